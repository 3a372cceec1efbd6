package netplugin

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

// A lab is a machine and a client next to it, each a network namespace of the test's own.
//
//	client 10.77.0.100 ── out0 10.77.0.1 machine gw0 ── router ── tasks
type lab struct {
	t      testing.TB
	client *namespace
	host   *namespace
	dir    string
	linux  *Linux
}

var (
	clientAddr = netip.MustParseAddr("10.77.0.100")
	hostAddr   = netip.MustParseAddr("10.77.0.1")
	testBlock  = netip.MustParsePrefix("100.64.1.0/24")
	testPool   = netip.MustParsePrefix("100.64.0.0/16")
	// four is IPv4's side, where only the form matters.
	four = base{block: testBlock, pool: testPool}.side(0)
)

// TestMain makes properties check fewer cases than rapid's 100, unless told: with a kernel each takes a third of a second.
func TestMain(m *testing.M) {
	if os.Getenv(resolverOf) != "" {
		runResolver()
		return
	}
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "rapid.checks" })
	if !told {
		if err := flag.Set("rapid.checks", "20"); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	if path, err := buildWire(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes network namespaces")
	}
}

// newLab makes the namespaces; they go with the test.
func newLab(t testing.TB) *lab {
	t.Helper()
	needRoot(t)
	b := &lab{t: t, client: newNamespace(t, "client"), host: newNamespace(t, "machine"), dir: t.TempDir()}
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "out0", PeerNamespace: netlink.NsFd(b.host.fd)}
	pair.Name, pair.MTU = "eth0", 1400
	must(t, b.client.LinkAdd(pair))
	setUp(t, b.client, "lo", netip.Prefix{})
	setUp(t, b.host, "lo", netip.Prefix{})
	setUp(t, b.client, "eth0", netip.PrefixFrom(clientAddr, 24))
	setUp(t, b.host, "out0", netip.PrefixFrom(hostAddr, 24))
	out, err := b.host.LinkByName("out0")
	must(t, err)
	must(t, b.host.addRoute(route{dst: anywhere, link: out.Attrs().Index, via: clientAddr}))
	b.start()
	t.Cleanup(func() {
		if err := b.linux.Teardown(context.Background()); err != nil {
			t.Error(err)
		}
		must(t, b.linux.Close())
	})
	return b
}

// start makes the machine's Linux, as a daemon does that starts in its namespace.
func (b *lab) start() {
	b.t.Helper()
	must(b.t, b.host.within(func() (err error) {
		b.linux, err = New(Options{Dir: b.dir, Wire: wireProgram(b.t), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		return err
	}))
}

// buildWire builds swarm-wire, once.
var buildWire = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "wire")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "swarm-wire")
	out, err := exec.Command("go", "build", "-trimpath", "-o", path, "../../cmd/swarm-wire").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build swarm-wire: %w: %s", err, out)
	}
	return path, err
})

// wireProgram is the path of swarm-wire.
func wireProgram(t testing.TB) string {
	t.Helper()
	path, err := buildWire()
	must(t, err)
	return path
}

// restart is what a daemon's end and its next start are to the network.
func (b *lab) restart() {
	b.t.Helper()
	must(b.t, b.linux.Close())
	b.start()
}

func (b *lab) apply(c Config) {
	b.t.Helper()
	if err := b.linux.Apply(context.Background(), c); err != nil {
		b.t.Fatal(err)
	}
}

// task opens the namespace of a task.
func (b *lab) task(id string) *namespace {
	b.t.Helper()
	n, err := openNamespace("task "+id, b.linux.Namespace(id))
	must(b.t, err)
	b.t.Cleanup(n.close)
	return n
}

func newNamespace(t testing.TB, name string) *namespace {
	t.Helper()
	n := &namespace{name: name}
	must(t, onThread(n.unshare))
	t.Cleanup(n.close)
	return n
}

func setUp(t testing.TB, n *namespace, name string, a netip.Prefix) {
	t.Helper()
	l, err := n.LinkByName(name)
	must(t, err)
	must(t, n.LinkSetUp(l))
	if a.IsValid() {
		must(t, n.addAddress(l, a))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testAddr is the address of the nth task, from 0.
func testAddr(n int) netip.Addr {
	a := testBlock.Addr().As4()
	n += 2
	a[2], a[3] = a[2]+byte(n>>8), byte(n)
	return netip.AddrFrom4(a)
}

// testConfig has n tasks, named t0, t1 and so on.
func testConfig(n int) Config {
	c := Config{Node: 1, Gateway: testBlock, Pool: testPool}
	for i := range n {
		c.Tasks = append(c.Tasks, TaskLink{ID: fmt.Sprintf("t%d", i), Address: testAddr(i)})
	}
	return c
}

// published is a port with the first n tasks behind it, on port 80.
func published(protocol string, port uint16, tasks ...int) PublishedPort {
	p := PublishedPort{Protocol: protocol, Port: port}
	for _, n := range tasks {
		p.Backends = append(p.Backends, netip.AddrPortFrom(testAddr(n), 80))
	}
	return p
}

// serve answers each connection to a TCP and a UDP port of the namespace with the server's name and the client's address, and
// echoes what comes after.
func serve(t testing.TB, n *namespace, name string, port uint16) {
	t.Helper()
	serveOf(t, n, name, port, 0)
}

// serveOf does so with one IP version.
func serveOf(t testing.TB, n *namespace, name string, port uint16, v int) {
	t.Helper()
	at, of := fmt.Sprintf("%s:%d", [2]string{"0.0.0.0", "[::]"}[v], port), [2]string{"4", "6"}[v]
	var tcp net.Listener
	var udp net.PacketConn
	must(t, n.within(func() (err error) {
		if tcp, err = net.Listen("tcp"+of, at); err != nil {
			return err
		}
		udp, err = net.ListenPacket("udp"+of, at)
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

// soon bounds what a test waits for an answer that should come.
const soon = 10e9

// dial connects from the namespace.
func dial(n *namespace, network, to string) (c net.Conn, err error) {
	err = n.within(func() error {
		c, err = (&net.Dialer{Timeout: soon}).Dial(network, to)
		return err
	})
	return c, err
}

// ask connects from the namespace and returns who answered, and whom the server took it for.
func ask(n *namespace, network, to string) (server string, seen netip.AddrPort, err error) {
	c, err := dial(n, network, to)
	if err != nil {
		return "", seen, err
	}
	defer c.Close()
	if network == "udp" {
		if _, err := c.Write([]byte("x")); err != nil {
			return "", seen, err
		}
	}
	return answer(c)
}

// answerer tells who answers, or "" for nobody.
func answerer(from *namespace, network string, to netip.Addr, port uint16) string {
	server, _, err := ask(from, network, at(to, port))
	if err != nil {
		return ""
	}
	return server
}

// closed is a place where nobody is to answer, and what it would be.
type closed struct {
	what string
	from *namespace
	to   netip.Addr
	port uint16
}

// nobodyAnswers asks at all of them by TCP, at the same time: each takes as long as one waits for what is dropped.
func nobodyAnswers(t testing.TB, all ...closed) {
	t.Helper()
	var asked sync.WaitGroup
	for _, c := range all {
		asked.Go(func() {
			if got := answerer(c.from, "tcp", c.to, c.port); got != "" {
				t.Errorf("%s: %s answers at %s", c.what, got, at(c.to, c.port))
			}
		})
	}
	asked.Wait()
}

func answer(c net.Conn) (server string, seen netip.AddrPort, err error) {
	if err := c.SetReadDeadline(deadline()); err != nil {
		return "", seen, err
	}
	var from string
	if _, err := fmt.Fscan(bufio.NewReader(c), &server, &from); err != nil {
		return "", seen, err
	}
	seen, err = netip.ParseAddrPort(from)
	return server, seen, err
}
