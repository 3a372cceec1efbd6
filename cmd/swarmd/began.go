package main

import (
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// ticks is how many units of the times in /proc there are in a second (USER_HZ; proc_pid_stat(5)).
const ticks = 100

// processBegan tells when this process was made, which is a while before main on a busy machine. It is exact to 10 ms.
func processBegan() (time.Time, error) {
	self, err := procfs.Self()
	if err != nil {
		return time.Time{}, err
	}
	stat, err := self.Stat()
	if err != nil {
		return time.Time{}, err
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, err
	}
	since := time.Duration(up.Nano()) - time.Duration(stat.Starttime)*time.Second/ticks
	return time.Now().Add(-since), nil
}
