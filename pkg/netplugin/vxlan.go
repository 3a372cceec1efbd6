package netplugin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// defaultDataPort is the UDP port that IANA gave to VXLAN.
const defaultDataPort = 4789

// underlay is where this machine's end of the networks' traffic between nodes is.
type underlay struct {
	node uint32
	addr netip.Addr // not valid where there is no such traffic
	port uint16
}

// underlayOf is a Config's.
func underlayOf(c Config) underlay {
	u := underlay{node: c.Node, addr: c.Underlay.Unmap(), port: c.DataPort}
	if u.port == 0 {
		u.port = defaultDataPort
	}
	return u
}

// usable tells whether there can be traffic between nodes.
func (u underlay) usable() bool {
	return u.addr.IsValid() && !u.addr.IsMulticast() && !u.addr.IsUnspecified() && u.addr.Zone() == "" && u.node > 0 && u.node <= mostNode
}

// overhead is what VXLAN adds to a packet: the outer IP, UDP and VXLAN headers, and the inner Ethernet's.
func (u underlay) overhead() int {
	if u.addr.Is6() {
		return 40 + 8 + 8 + 14
	}
	return 20 + 8 + 8 + 14
}

// vtepMAC is the link address of a node's end of every VXLAN. It does not come from an address, so that frames to a node stay right
// when that node's address changes.
func vtepMAC(node uint32) net.HardwareAddr {
	return binary.BigEndian.AppendUint32(net.HardwareAddr{0x02, 0x53}, 0x80000000|node)
}

// underlayLink is the link which has this machine's underlay address, or the one that the default route leads to; nil if there is none.
func (n *namespace) underlayLink(a netip.Addr) (netlink.Link, error) {
	if !a.IsValid() {
		return n.uplink()
	}
	list, err := dump(func() ([]netlink.Addr, error) { return n.AddrList(nil, familyOf(a)) })
	if err != nil {
		return nil, fmt.Errorf("list addresses in %s: %w", n.name, err)
	}
	for _, one := range list {
		if prefixOf(one.IPNet).Addr() != a {
			continue
		}
		l, err := n.LinkByIndex(one.LinkIndex)
		if err != nil {
			return nil, fmt.Errorf("find the link of address %s in %s: %w", a, n.name, err)
		}
		return l, nil
	}
	return n.uplink()
}

// mtuOf is a link's MTU as far as it matters to IP, 1500 of none.
func mtuOf(l netlink.Link) int {
	if l == nil {
		return 1500
	}
	return min(l.Attrs().MTU, 65535)
}

// ensureVXLAN makes a link of the namespace that carries a VNI over this machine's underlay. One that is there is adopted if it is as
// it should be, else replaced. Its packets to other nodes leave from, and come to, the machine's own namespace.
func (l *Linux) ensureVXLAN(in *namespace, name string, vni uint32, mac net.HardwareAddr, mtu int) (netlink.Link, error) {
	want := l.vxlan(in, name, vni)
	have, err := in.LinkByName(name)
	if err == nil && !l.sameVXLAN(in, have, want) {
		if err := in.LinkDel(have); err != nil && !errors.Is(err, unix.ENODEV) {
			return nil, fmt.Errorf("remove link %s in %s, which is not as it should be: %w", name, in.name, err)
		}
		err = netlink.LinkNotFoundError{}
	}
	if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
		want.HardwareAddr, want.MTU = mac, mtu
		if err := l.addVXLAN(want); err != nil {
			return nil, fmt.Errorf("make link %s in %s: %w", name, in.name, err)
		}
		have, err = in.LinkByName(name)
	}
	if err != nil {
		return nil, fmt.Errorf("find link %s in %s: %w", name, in.name, err)
	}
	if have.Attrs().RawFlags&unix.IFF_NOARP == 0 {
		if err := in.LinkSetARPOff(have); err != nil {
			return nil, fmt.Errorf("switch off ARP of link %s in %s: %w", name, in.name, err)
		}
	}
	err = in.syncLink(have, mac, mtu)
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("UDP port %d is another program's: choose another data port for the swarm: %w", l.underlay.port, err)
	}
	return have, err
}

// vxlan is a link as we make it. Nothing is learned from packets, and those without a checksum are not sent.
func (l *Linux) vxlan(in *namespace, name string, vni uint32) *netlink.Vxlan {
	v := &netlink.Vxlan{LinkAttrs: netlink.NewLinkAttrs(), VxlanId: int(vni), SrcAddr: l.underlay.addr.AsSlice(), Port: int(l.underlay.port), TTL: 64, UDPCSum: true}
	v.Name, v.Namespace = name, netlink.NsFd(in.fd)
	return v
}

// sameVXLAN tells whether what cannot be changed of a link is as it should be: also that its sockets are in the machine's own
// namespace.
func (l *Linux) sameVXLAN(in *namespace, have netlink.Link, want *netlink.Vxlan) bool {
	v, ok := have.(*netlink.Vxlan)
	if !ok || v.VxlanId != want.VxlanId || v.Port != want.Port || !v.SrcAddr.Equal(want.SrcAddr) || v.Group != nil || v.VtepDevIndex != 0 || v.TTL != want.TTL ||
		v.Learning || v.Proxy || v.L2miss || v.L3miss || v.FlowBased || v.GBP || v.UDP6ZeroCSumTx || v.UDP6ZeroCSumRx || !v.UDPCSum {
		return false
	}
	id, err := in.GetNetNsIdByFd(int(l.host.fd))
	return err == nil && id == v.NetNsID
}

// The kernel takes some 20 ms to let go of a VNI whose link went with its namespace, longer when it is busy.
const (
	vniPatience = 5 * time.Second
	vniPause    = 10 * time.Millisecond
)

// addVXLAN adds a link. A machine has a VNI on a UDP port once, whatever the namespace: one of ours that still has it is removed.
func (l *Linux) addVXLAN(v *netlink.Vxlan) error {
	for end := time.Now().Add(vniPatience); ; time.Sleep(vniPause) {
		err := l.host.LinkAdd(v)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		if removed, err := l.removeVNI(v.VxlanId, v.Port); removed || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if time.Now().After(end) {
			return fmt.Errorf("VNI %d on UDP port %d is that of a link in a network namespace that is not ours, such as one of Docker's: choose another data port for the swarm, or remove that network: %w", v.VxlanId, v.Port, err)
		}
	}
}

// removeVNI removes the link of a VNI from whichever router has it.
func (l *Linux) removeVNI(vni, port int) (removed bool, err error) {
	if other, err := l.host.linkOfVNI(vni, port); err != nil || other != nil {
		if other != nil {
			err = fmt.Errorf("VNI %d on UDP port %d is that of link %s in the machine's namespace, which is not ours: remove it, or choose another data port for the swarm", vni, port, other.Attrs().Name)
		}
		return false, err
	}
	dir := filepath.Dir(l.routerPath())
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !pinned(path) {
			continue
		}
		n, err := openNamespace("router "+e.Name(), path)
		if err != nil {
			return removed, err
		}
		other, err := n.linkOfVNI(vni, port)
		if err == nil && other != nil {
			removed, err = true, n.LinkDel(other)
		}
		n.close()
		if err != nil && !errors.Is(err, unix.ENODEV) {
			return removed, fmt.Errorf("remove a link of VNI %d in %s: %w", vni, n.name, err)
		}
	}
	return removed, nil
}

// linkOfVNI is the namespace's link that has a VNI on a UDP port, or nil.
func (n *namespace) linkOfVNI(vni, port int) (netlink.Link, error) {
	links, err := dump(n.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links in %s: %w", n.name, err)
	}
	for _, one := range links {
		if v, ok := one.(*netlink.Vxlan); ok && v.VxlanId == vni && v.Port == port {
			return one, nil
		}
	}
	return nil, nil
}

// setForward makes frames to a link address go to another node. It is no change, and nobody is told of one, where they do.
func (n *namespace) setForward(link int, mac net.HardwareAddr, to netip.Addr) error {
	if err := n.NeighSet(forward(link, mac, to)); err != nil {
		return fmt.Errorf("enter that %s is at %s in %s: %w", mac, to, n.name, err)
	}
	return nil
}

func (n *namespace) removeForward(link int, mac net.HardwareAddr, to netip.Addr) error {
	if err := n.NeighDel(forward(link, mac, to)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove that %s is at %s in %s: %w", mac, to, n.name, err)
	}
	return nil
}

// dropForward makes frames to a link address go nowhere, whatever the entry says: the unspecified address stands for all.
func (n *namespace) dropForward(link int, mac net.HardwareAddr) error {
	if err := n.NeighDel(forward(link, mac, netip.IPv4Unspecified())); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove where %s is in %s: %w", mac, n.name, err)
	}
	return nil
}

func forward(link int, mac net.HardwareAddr, to netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: link, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, IP: to.AsSlice(), HardwareAddr: mac}
}

// forwards lists where the frames of a VXLAN link go, by link address.
func (n *namespace) forwards(link int) (map[neighbour]bool, error) {
	list, err := dump(func() ([]netlink.Neigh, error) { return n.NeighList(link, unix.AF_BRIDGE) })
	if err != nil {
		return nil, fmt.Errorf("list forwarding entries in %s: %w", n.name, err)
	}
	have := map[neighbour]bool{}
	for _, one := range list {
		have[neighbour{one.LinkIndex, addrOf(one.IP), one.HardwareAddr.String()}] = true
	}
	return have, nil
}

// familyOf is the address family of an address, and family that of an IP version.
func familyOf(a netip.Addr) int { return family(version(a)) }

func family(v int) int {
	if v == 1 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
