package lab

import (
	"errors"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// subnet6 is that of the hosts' IPv6 addresses, which they have where a test gives them some: host n's ends in n.
var subnet6 = netip.MustParsePrefix("2001:db8:91::/64")

// Addr6 is the host's IPv6 address, once there are any.
func (h *Host) Addr6() netip.Addr { return address6(h.number) }

// ClientAddr6 is the client's.
func (l *Lab) ClientAddr6() netip.Addr { return address6(clientNumber) }

func address6(n int) netip.Addr {
	b := subnet6.Addr().As16()
	b[15] = byte(n)
	return netip.AddrFrom16(b)
}

// GiveIPv6 gives every host and the client an IPv6 address beside the one that they reach each other by. A host loses it with its power.
func (l *Lab) GiveIPv6() error {
	errs := []error{l.Client.Do(func() error { return giveIPv6(clientNumber) })}
	for _, h := range l.Hosts {
		errs = append(errs, h.Do(func() error { return giveIPv6(h.number) }))
	}
	return errors.Join(errs...)
}

func giveIPv6(number int) error {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(netip.PrefixFrom(address6(number), subnet6.Bits()).String())
	if err != nil {
		return err
	}
	addr.Flags = unix.IFA_F_NODAD // nobody else has it, and it is to be used at once
	return netlink.AddrAdd(link, addr)
}
