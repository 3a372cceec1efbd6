package netplugin

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// vxlanFrame is what VXLAN carries from one node to another: a datagram between two addresses, to a port.
func vxlanFrame(from, to uint32, src, dst netip.AddrPort, data string) []byte {
	f := []byte{0x08, 0, 0, 0, 0, 0, meshNumber, 0}
	f = append(append(f, vtepMAC(to)...), vtepMAC(from)...)
	f = append(f, 0x08, 0x00)
	ip := make([]byte, 20, 28+len(data))
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(data)))
	copy(ip[12:], src.Addr().AsSlice())
	copy(ip[16:], dst.Addr().AsSlice())
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum&0xffff))
	ip = binary.BigEndian.AppendUint16(ip, src.Port())
	ip = binary.BigEndian.AppendUint16(ip, dst.Port())
	ip = binary.BigEndian.AppendUint16(ip, uint16(8+len(data)))
	ip = append(ip, 0, 0) // no checksum
	return append(append(f, ip...), data...)
}

// inbox is what a task gets by UDP.
type inbox struct {
	mu  sync.Mutex
	all []string
}

// listen makes the inbox of a task's port.
func listen(t testing.TB, n *namespace, port uint16) *inbox {
	b := &inbox{}
	must(t, listenUDP(t, n, port, func(from netip.AddrPort, data string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.all = append(b.all, from.Addr().String()+" "+data)
	}))
	return b
}

func (b *inbox) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.all
	b.all = nil
	return all
}

// send sends a datagram by a socket of a program.
func send(t testing.TB, n *namespace, to netip.AddrPort, data []byte) {
	t.Helper()
	if _, err := sendUDP(n, to, data); !errors.Is(err, unix.EPERM) { // which says that a rule dropped it
		must(t, err)
	}
}

// sendForged sends a datagram of IPv4 with any source, as who may open raw sockets can.
func sendForged(t testing.TB, n *namespace, from, to netip.AddrPort, data []byte) {
	t.Helper()
	p := make([]byte, 28, 28+len(data))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel fills in length and checksum; UDP may have none
	copy(p[12:], from.Addr().AsSlice())
	copy(p[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(data)))
	must(t, n.within(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		return errors.Join(unix.Sendto(fd, append(p, data...), 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}), unix.Close(fd))
	}))
}

func sendUDP(n *namespace, to netip.AddrPort, data []byte) (int, error) {
	c, err := dial(n, "udp", to.String())
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.Write(data)
}

// removeRules empties a chain.
func removeRules(t testing.TB, n *namespace, table *nftables.Table, name string) {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	c.FlushChain(&nftables.Chain{Name: name, Table: table})
	must(t, c.Flush())
}

// wait returns once a datagram came that ends in data, sending it again and again, and with it what else came.
func (b *inbox) wait(t testing.TB, data string, again func()) (all []string) {
	t.Helper()
	for start := time.Now(); ; {
		again()
		all = append(all, b.take()...)
		if slices.ContainsFunc(all, func(one string) bool { return strings.HasSuffix(one, data) }) {
			return all
		}
		if time.Since(start) > soon {
			t.Fatalf("%q does not come, only %q", data, all)
		}
	}
}

// Programs of any user, tasks, other machines and the node itself send frames to the data port as nodes do. Each way is tried with
// the rule that is against it and without, so that it is the rule that keeps them out.
func TestNobodyInjects(t *testing.T) {
	f := newFabric(t, 2, 2)
	f.publish(spread("udp", 8080, [2]int{1, 0}))
	task := listen(t, f.nodes[1].task("n2t0"), 80)
	target := netip.AddrPortFrom(meshAddr(1, 0), 80)
	fake := netip.MustParseAddrPort("192.0.2.1:99")
	frame := func(data string) []byte { return vxlanFrame(1, 2, fake, target, data) }
	port := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, defaultDataPort) }
	rightful := func() { send(t, f.client, netip.AddrPortFrom(nodeAddr(0), 8080), []byte("rightful")) }
	for _, tt := range []struct {
		name   string
		from   *namespace
		to     netip.Addr
		node   int // that has the rule
		chains []string
		source netip.Addr // that it pretends to have
	}{
		{"a program of another node", f.nodes[0].host, nodeAddr(1), 0, []string{"output"}, netip.Addr{}},
		{"a task of another node", f.nodes[0].task("n1t0"), nodeAddr(1), 0, []string{"forward"}, netip.Addr{}},
		{"another machine", f.client, nodeAddr(1), 1, []string{"input"}, netip.Addr{}},
		{"a program of the node", f.nodes[1].host, nodeAddr(1), 1, []string{"input"}, netip.Addr{}},
		{"a program of the node by loopback", f.nodes[1].host, netip.MustParseAddr("127.0.0.1"), 1, []string{"input"}, netip.Addr{}},
		{"a task of the node", f.nodes[1].task("n2t1"), nodeAddr(1), 1, []string{"input"}, netip.Addr{}},
		{"a program of the node with another's address", f.nodes[1].host, nodeAddr(1), 1, []string{"input"}, nodeAddr(0)},
	} {
		send := func(t testing.TB, n *namespace, to netip.AddrPort, data []byte) {
			t.Helper()
			if tt.source.IsValid() {
				sendForged(t, n, netip.AddrPortFrom(tt.source, 99), to, data)
			} else {
				send(t, n, to, data)
			}
		}
		send(t, tt.from, port(tt.to), frame("refused: "+tt.name))
		for _, name := range tt.chains {
			removeRules(t, f.nodes[tt.node].host, dataTable(), name)
		}
		// What was refused went the same way before, and would be here by now.
		got := task.wait(t, "let in", func() { send(t, tt.from, port(tt.to), frame("let in")) })
		f.nodes[tt.node].linux.Resync()
		f.apply()
		send(t, tt.from, port(tt.to), frame("refused after the repair: "+tt.name))
		got = append(got, task.wait(t, "rightful", rightful)...)
		for _, one := range got {
			if strings.Contains(one, "refused") {
				t.Errorf("the task got %q", one)
			}
		}
	}
	for _, one := range task.wait(t, "rightful", rightful) {
		if strings.Contains(one, "refused") {
			t.Errorf("the task got %q", one)
		}
	}
}

// A node gone bad can reach what is published, and nothing else.
func TestNodeReachesPublishedPortsOnly(t *testing.T) {
	f := newFabric(t, 3, 2)
	f.publish(spread("udp", 8080, [2]int{1, 0}))
	node := f.nodes[1]
	task, other, same := listen(t, node.task("n2t0"), 80), listen(t, node.task("n2t1"), 80), listen(t, node.task("n2t0"), 81)
	removeRules(t, f.nodes[0].host, dataTable(), "output")
	inject := func(src, dst string) {
		t.Helper()
		from, to := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
		send(t, f.nodes[0].host, netip.AddrPortFrom(nodeAddr(1), defaultDataPort), vxlanFrame(1, 2, from, to, "to "+dst))
	}
	for _, src := range []string{"100.64.2.3:80", "100.64.2.2:80", "100.64.2.1:80", "100.64.1.2:80", "100.64.3.2:80", "127.0.0.1:80"} {
		inject(src, "100.64.2.2:80")
	}
	resolver := listen(t, node.host, 53)
	for _, dst := range []string{"100.64.2.3:80", "100.64.2.2:81", "100.64.2.1:80", "10.77.0.2:53", "169.254.77.53:53", "127.0.0.11:53", "10.77.0.100:80"} {
		inject("192.0.2.1:99", dst)
	}
	for _, got := range task.wait(t, "to 100.64.2.2:80", func() { inject("192.0.2.1:99", "100.64.2.2:80") }) {
		if got != "192.0.2.1 to 100.64.2.2:80" {
			t.Errorf("the published task got %q, want datagrams with a source that is no task's only", got)
		}
	}
	for _, box := range []*inbox{other, same, resolver} {
		if got := box.take(); len(got) != 0 {
			t.Errorf("what is not published got %q", got)
		}
	}
}

func TestTasksOfNodesAreApart(t *testing.T) {
	f := newFabric(t, 2, 2)
	f.publish(spread("tcp", 8080, [2]int{1, 0}), spread("udp", 8080, [2]int{1, 0}))
	f.serve()
	from := f.nodes[0].task("n1t0")
	for _, to := range []netip.Addr{meshAddr(0, 1), meshAddr(1, 0), meshAddr(1, 1), netip.MustParseAddr("100.64.9.2"), nodeBlock(1).Addr().Next()} {
		// Refused at once: by an ICMP message, not by a timeout.
		if _, err := dial(from, "tcp", at(to, 80)); err == nil || isTimeout(err) {
			t.Errorf("task to gateway address %s: %v, want it refused at once", to, err)
		}
	}
	// Nor does the client come straight to a task by way of any node.
	box := listen(t, f.nodes[1].task("n2t1"), 81)
	for n := range f.nodes {
		must(t, f.client.addRoute(route{dst: nodeBlock(1), link: linkOf(t, f.client, "out0"), via: nodeAddr(n)}))
		send(t, f.client, netip.AddrPortFrom(meshAddr(1, 1), 81), []byte("straight"))
	}
	for range 3 {
		_, _, err := ask(f.client, "udp", at(nodeAddr(0), 8080))
		must(t, err)
	}
	if got := box.take(); len(got) != 0 {
		t.Errorf("the task got %q", got)
	}
	if server, _, err := ask(from, "tcp", at(nodeAddr(1), 8080)); err != nil || server != "n2t0" {
		t.Errorf("task to a published port: %q, %v", server, err)
	}
}

// What a program of a node sends to the ports of its own business is no concern of ours.
func TestOtherPortsAreLetBe(t *testing.T) {
	f := newFabric(t, 2, 1)
	f.apply()
	box := listen(t, f.nodes[1].host, defaultDataPort+1)
	send(t, f.nodes[0].host, netip.AddrPortFrom(nodeAddr(1), defaultDataPort+1), []byte("hello"))
	box.wait(t, "hello", func() {})
	// And that to the data port of who is no node.
	box = &inbox{}
	must(t, f.client.within(func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: defaultDataPort})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		send(t, f.nodes[0].host, netip.AddrPortFrom(clientAddr, defaultDataPort), []byte("hello"))
		must(t, c.SetReadDeadline(deadline()))
		_, _, err = c.ReadFromUDPAddrPort(make([]byte, 100))
		return err
	}))
}

func TestWhatKeepsNodesApartIsWarnedOf(t *testing.T) {
	f := newFabric(t, 2, 0)
	b := f.nodes[0]
	warnings := func() string {
		t.Helper()
		b.linux.Resync()
		b.apply(f.configs[0])
		return strings.Join(b.linux.Warnings(), "\n")
	}
	if got := warnings(); got != "" {
		t.Errorf("warnings: %s", got)
	}
	c, err := b.host.firewall()
	must(t, err)
	table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyINet})
	policy := nftables.ChainPolicyDrop
	input := c.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &policy})
	must(t, c.Flush())
	if got := warnings(); !strings.Contains(got, "chain input of table filter drops") || !strings.Contains(got, "UDP port 4789") {
		t.Errorf("warnings: %s", got)
	}
	c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: join(transport(unix.IPPROTO_UDP), destinationPort(defaultDataPort), accept())})
	c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: join(inLink(hostLink, true), accept())})
	must(t, c.Flush())
	if got := warnings(); got != "" {
		t.Errorf("warnings where the port is open: %s", got)
	}
	f.configs[0].Underlay = netip.MustParseAddr("10.77.0.50")
	if got := warnings(); !strings.Contains(got, "has not the address 10.77.0.50") {
		t.Errorf("warnings: %s", got)
	}
}

// A machine whose networks may have the data port open, but that knows no other node, lets nobody in.
func TestDataPortIsKeptWithoutPeers(t *testing.T) {
	f := newFabric(t, 1, 1)
	b := f.nodes[0]
	network := &Overlay{ID: "net", VNI: 4097, Subnets: []Subnet{{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParseAddr("10.0.1.1")}}}
	for _, networks := range [][]*Overlay{nil, {network}, nil} {
		f.configs[0].Overlays = networks
		f.apply()
		c, err := b.host.firewall()
		must(t, err)
		found, err := chainsOf(c, dataTable())
		must(t, err)
		if guarded := len(found) > 0; guarded != (len(networks) > 0) {
			t.Errorf("with %d networks the data port is guarded: %t", len(networks), guarded)
		}
		if len(networks) == 0 {
			continue
		}
		if have, ok := readSet(c, peerSet(dataTable(), underlayOf(f.configs[0]))); !ok || len(have) != 0 {
			t.Errorf("let in are %v, %t", have, ok)
		}
	}
}
