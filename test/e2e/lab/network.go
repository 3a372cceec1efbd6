package lab

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
)

// makeBridge makes the namespace that joins all others.
func (l *Lab) makeBridge() error {
	var err error
	if l.bridge, err = newNamespace(l.namespacePath("bridge"), "bridge"); err != nil {
		return err
	}
	err = l.bridge.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		return addressAndUp(bridge, bridgeNumber)
	})
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	return nil
}

// join makes a namespace with a link eth0 to the bridge.
func (l *Lab) join(name string, number int) (*Namespace, error) {
	ns, err := newNamespace(l.namespacePath(name), name)
	if err != nil {
		return nil, err
	}
	err = l.bridge.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: portName(number)}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.file.Fd()),
			PeerHardwareAddr: net.HardwareAddr{2, 0, 10, 91, 0, byte(number)}} // the same after a power cut: others remember it
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return toBridge(veth)
	})
	if err != nil {
		return nil, fmt.Errorf("link of %s: %w", name, errors.Join(err, ns.close()))
	}
	return ns, ns.Do(func() error { return configure(number) })
}

// portName is the bridge's end of a host's link; a host's name may be longer than that of a link.
func portName(number int) string { return fmt.Sprintf("port%d", number) }

func toBridge(link netlink.Link) error {
	bridge, err := netlink.LinkByName("br0")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// unplug removes a host's link. The bridge's end of it goes with the namespace, but only some time after.
func (l *Lab) unplug(number int) error {
	return l.bridge.Do(func() error {
		link, err := netlink.LinkByName(portName(number))
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
}

// configure sets up lo and eth0 of the namespace that the thread is in.
func configure(number int) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := addressAndUp(link, number); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: address(bridgeNumber).AsSlice()})
}

func addressAndUp(link netlink.Link, number int) error {
	addr, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", address(number), subnet.Bits()))
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}
