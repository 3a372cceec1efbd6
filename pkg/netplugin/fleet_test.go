package netplugin

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// A fleet is machines joined by a bridge in a namespace of its own. Machine n, from 1, has the underlay addresses 10.78.0.n and fd78::n.
type fleet struct {
	t     testing.TB
	lan   *namespace
	labs  []*lab
	six   bool // the underlay is IPv6
	tasks []testTask
	nets  []*Overlay // as tests change them: see config
	ports uint16
	moved map[int]netip.Addr // machines with another underlay address
	mute  map[int]bool       // machines that have not told their keys
}

// testTask is a task of a fleet: the first in nets[0] of machine 1 is 10.0.1.11 and fd00:1::11.
type testTask struct {
	id      string
	machine int // from 0
	gateway netip.Addr
	nets    []int
	alias   string // the task whose addresses in its networks it has, if not its own
}

func newFleet(t testing.TB, machines int) *fleet {
	t.Helper()
	needRoot(t)
	f := &fleet{t: t, lan: newNamespace(t, "lan"), ports: 4790}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = "lan"
	must(t, f.lan.LinkAdd(bridge))
	setUp(t, f.lan, "lan", netip.Prefix{})
	for i := range machines {
		b := newLab(t)
		pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "lan0", PeerNamespace: netlink.NsFd(b.host.fd)}
		pair.Name, pair.MTU = fmt.Sprintf("port%d", i), 1500
		must(t, f.lan.LinkAdd(pair))
		must(t, f.lan.LinkSetMaster(pair, bridge))
		must(t, f.lan.LinkSetUp(pair))
		must(t, b.host.within(func() error { return setSysctls(setting{name: "net.ipv6.conf.lan0.accept_dad", value: "0"}) }))
		setUp(t, b.host, "lan0", netip.PrefixFrom(f.underlay(i, false), 24))
		one, err := b.host.LinkByName("lan0")
		must(t, err)
		must(t, b.host.addTaskAddress(one, netip.PrefixFrom(f.underlay(i, true), 64)))
		must(t, b.host.addRoute(route{dst: netip.MustParsePrefix("fd78::/64"), link: one.Attrs().Index}))
		f.labs = append(f.labs, b)
	}
	for i, b := range f.labs[1:] {
		for _, six := range []bool{false, true} {
			awaitRefusal(t, b.host, f.underlay(i, six))
		}
	}
	return f
}

// awaitRefusal returns once packets come and go: a bridge's port may take a moment.
func awaitRefusal(t testing.TB, n *namespace, to netip.Addr) {
	t.Helper()
	c, err := dial(n, "udp", at(to, 1))
	must(t, err)
	defer c.Close()
	for end := deadline(); time.Now().Before(end); {
		_, err := c.Write([]byte("x"))
		if err == nil {
			must(t, c.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
			_, err = c.Read(make([]byte, 1))
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
	}
	t.Fatalf("%s does not reach %s", n.name, to)
}

func (f *fleet) underlay(machine int, six bool) netip.Addr {
	if six {
		return netip.MustParseAddr(fmt.Sprintf("fd78::%d", machine+1))
	}
	if a, ok := f.moved[machine]; ok {
		return a
	}
	return netip.AddrFrom4([4]byte{10, 78, 0, byte(machine + 1)})
}

// network adds a network with the subnets of the number, and returns its index.
func (f *fleet) network(number byte, dual bool) int {
	n := len(f.nets)
	o := &Overlay{ID: fmt.Sprintf("net%d", n), VNI: 4096 + uint32(n), Subnets: []Subnet{{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, number, 0}), 24), netip.AddrFrom4([4]byte{10, 0, number, 1})}}}
	if dual {
		p := netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/64", number))
		o.Subnets = append(o.Subnets, Subnet{p, p.Addr().Next()})
	}
	f.nets = append(f.nets, o)
	return n
}

// task adds a task, which has the address with its own number in each network.
func (f *fleet) task(machine int, nets ...int) testTask {
	n := len(f.tasks)
	t := testTask{id: fmt.Sprintf("t%d", n), machine: machine, gateway: testAddr(n), nets: nets}
	f.tasks = append(f.tasks, t)
	return t
}

// address is a task's in a network.
func (f *fleet) address(t testTask, net int, six bool) netip.Addr {
	var n int
	if t.alias == "" {
		t.alias = t.id
	}
	_, err := fmt.Sscanf(t.alias, "t%d", &n)
	must(f.t, err)
	return f.numbered(net, n+11, six)
}

// numbered is an address of a network.
func (f *fleet) numbered(net, n int, six bool) netip.Addr {
	for _, s := range f.nets[net].Subnets {
		if s.Gateway.Is6() != six {
			continue
		}
		b := s.Prefix.Addr().AsSlice()
		b[len(b)-1], b[len(b)-2] = byte(n), b[len(b)-2]+byte(n>>8)
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	return netip.Addr{}
}

func (f *fleet) addresses(t testTask, net int) (all []netip.Addr) {
	for _, six := range []bool{false, true} {
		if a := f.address(t, net, six); a.IsValid() {
			all = append(all, a)
		}
	}
	return all
}

// config is a machine's, with networks that are new pointers.
func (f *fleet) config(machine int) Config {
	c := Config{Node: uint32(machine + 1), Gateway: testBlock, Pool: testPool, Underlay: f.underlay(machine, f.six), DataPort: f.ports}
	for i := range f.labs {
		if i != machine {
			c.Peers = append(c.Peers, Peer{Node: uint32(i + 1), Underlay: f.underlay(i, f.six), Key: f.key(i)})
		}
	}
	c.Key = f.key(machine)
	on := map[int]bool{}
	for _, t := range f.tasks {
		if t.machine == machine {
			link := TaskLink{ID: t.id, Address: t.gateway}
			for _, n := range t.nets {
				on[n] = true
				link.Networks = append(link.Networks, Attachment{f.nets[n].ID, f.addresses(t, n)})
			}
			c.Tasks = append(c.Tasks, link)
		}
	}
	for n, net := range f.nets {
		if !on[n] {
			continue
		}
		o := *net
		for _, t := range f.tasks {
			for _, other := range t.nets {
				if other == n && t.machine != machine {
					for _, a := range f.addresses(t, n) {
						o.Remote = append(o.Remote, RemoteAddress{a, uint32(t.machine + 1)})
					}
				}
			}
		}
		c.Overlays = append(c.Overlays, &o)
	}
	return c
}

// key is what a machine tells the others, where there is an encrypted network.
func (f *fleet) key(machine int) PublicKey {
	if f.mute[machine] || !slices.ContainsFunc(f.nets, func(o *Overlay) bool { return o.Encrypted }) {
		return PublicKey{}
	}
	k, err := f.labs[machine].linux.PublicKey()
	must(f.t, err)
	return k
}

// apply brings all machines to what the fleet says.
func (f *fleet) apply() {
	f.t.Helper()
	for i, b := range f.labs {
		b.apply(f.config(i))
	}
}

// space opens the namespace of a task.
func (f *fleet) space(t testTask) *namespace {
	f.t.Helper()
	return f.labs[t.machine].task(t.id)
}

// serve starts servers of all tasks.
func (f *fleet) serve() {
	f.t.Helper()
	for _, t := range f.tasks {
		serveAll(f.t, f.space(t), t.id, 80)
	}
}

// vip makes tasks the backends of a network's VIP with a number.
func (f *fleet) vip(net, number int, tasks ...testTask) {
	o := f.nets[net]
	for _, six := range []bool{false, true} {
		v := VIP{Address: f.numbered(net, number, six)}
		if !v.Address.IsValid() {
			continue
		}
		for _, t := range tasks {
			v.Backends = append(v.Backends, f.address(t, net, six))
		}
		at := -1
		for i, one := range o.VIPs {
			if one.Address == v.Address {
				at = i
			}
		}
		if at < 0 {
			o.VIPs = append(o.VIPs, v)
		} else {
			vips := append([]VIP{}, o.VIPs...)
			vips[at] = v
			o.VIPs = vips
		}
	}
}

// serveAll is serve for both IP versions.
func serveAll(t testing.TB, n *namespace, name string, port uint16) {
	t.Helper()
	var tcp net.Listener
	var udp net.PacketConn
	must(t, n.within(func() (err error) {
		if tcp, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		udp, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	}))
	t.Cleanup(func() { _, _ = tcp.Close(), udp.Close() })
	go func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	go func() {
		b := make([]byte, 1500)
		for {
			_, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(fmt.Appendf(nil, "%s %s\n", name, from), from)
		}
	}()
}

// hold connects, and returns the connection after the server's first line: it echoes from then on.
func hold(t testing.TB, n *namespace, to string) (net.Conn, string) {
	t.Helper()
	c, err := dial(n, "tcp", to)
	must(t, err)
	must(t, c.SetReadDeadline(deadline()))
	var server, from string
	_, err = fmt.Fscanln(bufio.NewReaderSize(c, 16), &server, &from)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c, server
}
