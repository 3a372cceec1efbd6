// Package host is what benchmarks have of a host of the swarm: a network namespace for it, and what its work costs. It measures nothing by itself.
package host

import (
	"net/netip"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/netplugin"
)

// NewNetwork takes charge of a network namespace that is made for it, and has the underlay's address. No packet is to leave it. The
// namespace goes with what the network holds of it.
func NewNetwork(underlay netip.Addr, o netplugin.Options) (n *netplugin.Linux, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err = enterNamespace(underlay); err == nil {
			n, err = netplugin.New(o)
		}
	}()
	<-done
	return n, err
}

// enterNamespace puts the calling thread into a new network namespace with an address.
func enterNamespace(addr netip.Addr) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(addr.AsSlice())}); err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// ProcessorTime is what this process used so far, in its own code and in the kernel.
func ProcessorTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
