package netplugin

import (
	"errors"
	"os"
	"path/filepath"
)

// forwardFile remembers that it was us who made the machine forward packets.
func (l *Linux) forwardFile() string { return filepath.Join(l.dir, "ip_forward") }

// bootMark tells this namespace of this boot from others, so that a file of an earlier one means nothing.
func (l *Linux) bootMark() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(id) + l.host.fd.UniqueId() + "\n", err
}

// enableForward makes the machine forward packets, and remembers if it did not before.
func (l *Linux) enableForward() error {
	return l.host.within(func() error {
		on, err := getSysctl(ipForward)
		if err != nil || on == "1" {
			return err
		}
		mark, err := l.bootMark()
		if err != nil {
			return err
		}
		// First the note: after a crash between the two, restoring what is as it was does no harm.
		if err := os.WriteFile(l.forwardFile(), []byte(mark), 0o600); err != nil {
			return err
		}
		l.log.Info("making this machine forward packets", "sysctl", ipForward)
		return setSysctls(setting{name: ipForward, value: "1"})
	})
}

// restoreForward undoes enableForward.
func (l *Linux) restoreForward() error {
	note, err := os.ReadFile(l.forwardFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	mark, markErr := l.bootMark()
	if err := errors.Join(err, markErr); err != nil {
		return err
	}
	if string(note) == mark {
		if err := l.host.within(func() error { return setSysctls(setting{name: ipForward, value: "0"}) }); err != nil {
			return err
		}
	}
	return os.Remove(l.forwardFile())
}

const ipForward = "net.ipv4.ip_forward"
