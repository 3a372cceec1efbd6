package e2e

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// The network of Docker's swarm mode as it is laid out, to be measured beside ours: in each host a namespace with a bridge, the containers on it, and
// a VXLAN device whose forwarding entries and neighbours are given. A virtual address is that of a namespace for the balancing, which translates
// both addresses. A published port leads over a second bridge to a namespace that does the same. Docker balances by IPVS, which this machine's
// kernel may not have; it is nftables' translation here, which does as much to a packet. Docker's many firewall rules are left out.

const (
	dockerVNI  = 4200
	dockerPort = 4790 // ours has 4789
	dockerMTU  = 1450
)

// space is a network namespace without a name.
type space struct {
	*lab.Namespace
	file *os.File
}

func newSpace(t *testing.T) *space {
	t.Helper()
	s := new(space)
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		made <- func() (err error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			if s.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
				return err
			}
			for _, name := range []string{"ipv4/conf/all/rp_filter", "ipv4/conf/default/rp_filter", "ipv4/conf/all/send_redirects", "ipv4/conf/default/send_redirects"} {
				if err := os.WriteFile("/proc/sys/net/"+name, []byte("0"), 0); err != nil {
					return err
				}
			}
			if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.LinkSetUp(lo)
		}()
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	var err error
	if s.Namespace, err = lab.Inside(fmt.Sprintf("/proc/self/fd/%d", s.file.Fd())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Leave()
		s.file.Close()
	})
	return s
}

// sandbox is somebody on the overlay.
type sandbox struct {
	*space
	on   int // the host
	addr netip.Addr
}

func (s *sandbox) mac() net.HardwareAddr {
	a := s.addr.As4()
	return net.HardwareAddr{0x02, 0x42, a[0], a[1], a[2], a[3]}
}

// dockerLayout is the network over two hosts.
type dockerLayout struct {
	t         *testing.T
	hosts     [2]*lab.Host
	overlays  [2]*space // the bridge's and the VXLAN device's, in each host
	sandboxes []*sandbox
	// from and to are containers on different hosts.
	from, to *sandbox
	vip      netip.Addr // leads to the latter
}

// layDocker makes it. A client of the first host's port is led to the same port of the container on the second.
func layDocker(t *testing.T, first, second *lab.Host, port uint16) *dockerLayout {
	t.Helper()
	d := &dockerLayout{t: t, hosts: [2]*lab.Host{first, second}, vip: netip.MustParseAddr("10.99.0.100")}
	for i, h := range d.hosts {
		d.overlays[i] = newSpace(t)
		d.must(h.Do(func() error {
			vx := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "dockervx", MTU: dockerMTU, Namespace: netlink.NsFd(d.overlays[i].file.Fd())},
				VxlanId: dockerVNI, Port: dockerPort, Learning: false, Proxy: true, UDPCSum: true}
			return netlink.LinkAdd(vx)
		}))
		d.must(d.overlays[i].Do(func() error {
			if err := addUp(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", MTU: dockerMTU}}); err != nil {
				return err
			}
			return enslave("dockervx", "br0")
		}))
	}
	d.from, d.to = d.join(0, "10.99.0.2"), d.join(1, "10.99.0.3")
	balancer, ingress := d.join(0, "10.99.0.4"), d.join(0, "10.99.0.5")
	d.must(balancer.Do(func() error { return addAddress("eth0", netip.PrefixFrom(d.vip, 32)) }))
	d.know(balancer)
	d.must(balancer.Do(func() error { return translate(toAddress(d.vip), d.to.addr, true) }))
	d.gateway(ingress)
	d.must(ingress.Do(func() error { return translate(toPort(port), d.to.addr, true) }))
	d.must(first.Do(func() error {
		return translate(append(toAddress(first.Addr), toPort(port)...), netip.MustParseAddr("172.18.0.2"), false)
	}))
	return d
}

func (d *dockerLayout) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("lay out Docker's network: %v", err)
	}
}

// join makes a sandbox on the overlay.
func (d *dockerLayout) join(host int, addr string) *sandbox {
	d.t.Helper()
	s := &sandbox{newSpace(d.t), host, netip.MustParseAddr(addr)}
	d.sandboxes = append(d.sandboxes, s)
	port := fmt.Sprint("veth", len(d.sandboxes))
	d.must(d.overlays[host].Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port, MTU: dockerMTU}, PeerName: "eth0", PeerMTU: dockerMTU,
			PeerNamespace: netlink.NsFd(s.file.Fd()), PeerHardwareAddr: s.mac()}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return enslave(port, "br0")
	}))
	d.must(s.Do(func() error { return addAddress("eth0", netip.PrefixFrom(s.addr, 24)) }))
	return s
}

// know tells everybody where the others are, the virtual address being the balancer's.
func (d *dockerLayout) know(balancer *sandbox) {
	d.t.Helper()
	for _, s := range d.sandboxes {
		for i, in := range d.overlays {
			if i != s.on {
				d.must(in.Do(func() error { return forward("dockervx", s.mac(), d.hosts[s.on].Addr) }))
			}
		}
		for _, other := range d.sandboxes {
			if other != s {
				d.must(s.Do(func() error { return neighbour("eth0", other.addr, other.mac()) }))
			}
		}
		if s != balancer {
			d.must(s.Do(func() error { return neighbour("eth0", d.vip, balancer.mac()) }))
		}
	}
}

// gateway joins a sandbox to the first host by a second bridge, as docker_gwbridge does.
func (d *dockerLayout) gateway(s *sandbox) {
	d.t.Helper()
	d.must(d.hosts[0].Do(func() error {
		if err := addUp(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "dockergw"}}); err != nil {
			return err
		}
		if err := addAddress("dockergw", netip.MustParsePrefix("172.18.0.1/16")); err != nil {
			return err
		}
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "dockerin"}, PeerName: "eth1", PeerNamespace: netlink.NsFd(s.file.Fd())}); err != nil {
			return err
		}
		return enslave("dockerin", "dockergw")
	}))
	d.must(s.Do(func() error {
		if err := addAddress("eth1", netip.MustParsePrefix("172.18.0.2/16")); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(172, 18, 0, 1)})
	}))
}

func addUp(l netlink.Link) error {
	if err := netlink.LinkAdd(l); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

func enslave(name, to string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	bridge, err := netlink.LinkByName(to)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func addAddress(name string, p netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(p.String())
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func neighbour(name string, addr netip.Addr, mac net.HardwareAddr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac})
}

func forward(name string, mac net.HardwareAddr, to netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.NeighAppend(&netlink.Neigh{LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT,
		Flags: netlink.NTF_SELF, IP: to.AsSlice(), HardwareAddr: mac})
}

// toAddress and toPort match packets.
func toAddress(a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

func toPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

// translate has packets that match sent to another address, in the namespace of the thread; with masquerade what was sent on has the namespace's
// own address for its source.
func translate(match []expr.Any, to netip.Addr, masquerade bool) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "docker", Family: nftables.TableFamilyIPv4})
	pre := c.AddChain(&nftables.Chain{Name: "pre", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	c.AddRule(&nftables.Rule{Table: table, Chain: pre, Exprs: append(match,
		&expr.Immediate{Register: 1, Data: to.AsSlice()}, &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1})})
	if masquerade {
		const translated = 1 << 5 // IPS_DST_NAT
		post := c.AddChain(&nftables.Chain{Name: "post", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		mask := binary.NativeEndian.AppendUint32(nil, translated)
		c.AddRule(&nftables.Rule{Table: table, Chain: post, Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Masq{},
		}})
	}
	return c.Flush()
}
