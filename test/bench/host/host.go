// Package host is what benchmarks have of a host of the swarm: a network namespace for it, and what its work costs. It measures nothing by itself.
package host

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/netplugin"
)

// NewNetwork takes charge of a network namespace that is made for it, and has the underlay's address. No packet is to leave it. The
// namespace goes with what the network holds of it. It tracks so many connections of each IP version, on which nobody sends anything.
func NewNetwork(underlay netip.Addr, connections int, o netplugin.Options) (n *netplugin.Linux, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err = errors.Join(enterNamespace(underlay), connect(connections)); err == nil {
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

// connect has the thread's namespace track so many connections of each IP version, from clients elsewhere to a server elsewhere.
func connect(each int) error {
	for i := range each {
		client := [4]byte{byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)}
		four := [2]netip.Addr{netip.AddrFrom4([4]byte{198, 18, client[2], client[3]}), netip.MustParseAddr("203.0.113.1")}
		six := [2]netip.Addr{netip.MustParseAddr("2001:db8::"), netip.MustParseAddr("2001:db8:1::1")}
		b := six[0].As16()
		copy(b[12:], client[:])
		six[0] = netip.AddrFrom16(b)
		for family, ends := range map[netlink.InetFamily][2]netip.Addr{unix.AF_INET: four, unix.AF_INET6: six} {
			there := netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: ends[0].AsSlice(), DstIP: ends[1].AsSlice(), SrcPort: 1000, DstPort: 53}
			back := netlink.IPTuple{Protocol: unix.IPPROTO_UDP, SrcIP: there.DstIP, DstIP: there.SrcIP, SrcPort: 53, DstPort: 1000}
			f := &netlink.ConntrackFlow{FamilyType: uint8(family), TimeOut: 3600, Forward: there, Reverse: back}
			if err := netlink.ConntrackCreate(netlink.ConntrackTable, family, f); err != nil {
				return fmt.Errorf("track a connection: %w", err)
			}
		}
	}
	return nil
}

// ProcessorTime is what this process used so far, in its own code and in the kernel.
func ProcessorTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
