package netplugin

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCheckRefuses(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string
		all    bool // nothing can be done
	}{
		{"no block", func(c *Config) { c.Gateway = netip.Prefix{} }, "gateway block invalid Prefix: it must be an IPv4 network", true},
		{"IPv6 block", func(c *Config) { c.Gateway = netip.MustParsePrefix("fd00::/64") }, "must be an IPv4 network", true},
		{"tiny block", func(c *Config) { c.Gateway = netip.MustParsePrefix("100.64.1.0/31") }, "at least 4 addresses", true},
		{"address with a length", func(c *Config) { c.Gateway = netip.MustParsePrefix("100.64.1.1/24") }, "must be an IPv4 network", true},
		{"block out of the pool", func(c *Config) { c.Pool = netip.MustParsePrefix("10.0.0.0/8") }, "not within the pool 10.0.0.0/8", true},
		{"pool within the block", func(c *Config) { c.Pool = netip.MustParsePrefix("100.64.1.0/25") }, "not within the pool", true},
		{"no ID", func(c *Config) { c.Tasks[0].ID = "" }, "its ID is no file name", false},
		{"ID that leads out", func(c *Config) { c.Tasks[0].ID = ".." }, "its ID is no file name", false},
		{"ID with a slash", func(c *Config) { c.Tasks[0].ID = "a/b" }, "its ID is no file name", false},
		{"long ID", func(c *Config) { c.Tasks[0].ID = strings.Repeat("x", 129) }, "its ID is no file name", false},
		{"twice", func(c *Config) { c.Tasks[1].ID = "t0" }, "task t0: it is there twice", false},
		{"no address", func(c *Config) { c.Tasks[1].Address = netip.Addr{} }, "task t1: address invalid IP is not one for a task", false},
		{"network address", func(c *Config) { c.Tasks[1].Address = testBlock.Addr() }, "not one for a task", false},
		{"gateway's address", func(c *Config) { c.Tasks[1].Address = testBlock.Addr().Next() }, "not one for a task", false},
		{"broadcast address", func(c *Config) { c.Tasks[1].Address = netip.MustParseAddr("100.64.1.255") }, "not one for a task", false},
		{"another's address", func(c *Config) { c.Tasks[1].Address = testAddr(0) }, "task t1: address 100.64.1.2 is that of task t0", false},
		{"sysctl of the machine", func(c *Config) { c.Tasks[1].Sysctls = map[string]string{"kernel.panic": "1"} }, `sysctl "kernel.panic" is not one of a network namespace`, false},
		{"sysctl that leads out", func(c *Config) { c.Tasks[1].Sysctls = map[string]string{"net...kernel.panic": "1"} }, "not one of a network namespace", false},
		{"sysctl with a slash", func(c *Config) { c.Tasks[1].Sysctls = map[string]string{"net./../kernel/panic": "1"} }, "not one of a network namespace", false},
		{"protocol", func(c *Config) { c.Published[0].Protocol = "icmp" }, "published port icmp/8080: its protocol must be tcp, udp or sctp", false},
		{"port 0", func(c *Config) { c.Published[0].Port = 0 }, "port 0 cannot be published", false},
		{"port twice", func(c *Config) { c.Published = append(c.Published, c.Published[0]) }, "published port tcp/8080: it is there twice", false},
		{"backend", func(c *Config) { c.Published[0].Backends = []netip.AddrPort{{}} }, "backend invalid AddrPort: it must be an IPv4 address and a port", false},
		{"backend's port", func(c *Config) { c.Published[0].Backends = []netip.AddrPort{netip.AddrPortFrom(testAddr(0), 0)} }, "must be an IPv4 address and a port", false},
	}
	for _, tt := range tests {
		c := testConfig(3)
		c.Published = []PublishedPort{published("tcp", 8080, 0), published("tcp", 9090, 1)}
		tt.change(&c)
		d, err := check(c, checked{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
		if (d == nil) != tt.all {
			t.Errorf("%s: what is left is %v", tt.name, d)
		}
		if d != nil && (d.tasks["t2"].Address != testAddr(2) || len(d.ports[portKey{6, 9090}]) != 1) {
			t.Errorf("%s: what is right of the Config was left out: %v", tt.name, d)
		}
	}
}

func TestCheckPutsBackendsInOrder(t *testing.T) {
	c := testConfig(3)
	c.Published = []PublishedPort{published("TCP", 8080, 2, 0, 2, 1), published("udp", 1)}
	d, err := check(c, checked{})
	must(t, err)
	if got := fmt.Sprint(d.ports); got != "map[tcp/8080:[100.64.1.2:80 100.64.1.3:80 100.64.1.4:80]]" {
		t.Errorf("ports are %s", got)
	}
}

func TestTaskErrors(t *testing.T) {
	one, two := &TaskError{"a", errors.New("x")}, &TaskError{"b", errors.New("y")}
	other := errors.New("z")
	tests := []struct {
		err   error
		tasks int
		alone bool
	}{
		{nil, 0, true},
		{one, 1, true},
		{fmt.Errorf("netplugin: %w", errors.Join(one, errors.Join(two))), 2, true},
		{fmt.Errorf("netplugin: %w", errors.Join(one, other, two)), 2, false},
		{errors.Join(one, &PortError{"tcp", 80, other}), 1, true},
		{other, 0, false},
		{fmt.Errorf("netplugin: %w", other), 0, false},
	}
	for _, tt := range tests {
		byTask, alone := TaskErrors(tt.err)
		if len(byTask) != tt.tasks || alone != tt.alone {
			t.Errorf("TaskErrors(%v) = %v, %v", tt.err, byTask, alone)
		}
	}
}

func TestLinkNames(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		a := netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(r, "address")))
		name := linkName(a)
		if back, ok := linkAddress(name); !ok || back != a || len(name) > 15 {
			r.Fatalf("%s is link %q, which is of %s, %v", a, name, back, ok)
		}
	})
	for _, name := range []string{"", "t", "lo", "up0", "t6440010", "t644001020", "T64400102", "t6440010g", "t6440010A"} {
		if a, ok := linkAddress(name); ok {
			t.Errorf("link %q is taken for that of %s", name, a)
		}
	}
}

func TestCheckPeers(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		want   string // of the error, if there is one
		peers  string
	}{
		{"right", func(*Config) {}, "", "[2 3]"},
		{"alone", func(c *Config) { c.Peers, c.Published = nil, nil }, "", "[]"},
		{"no underlay", func(c *Config) { c.Underlay = netip.Addr{}; c.Published = nil }, "", "[]"},
		{"no index", func(c *Config) { c.Node = 0; c.Published = nil }, "node 0: this node reaches no other's gateway block: its index must be from 1", "[]"},
		{"underlay in the pool", func(c *Config) { c.Underlay = netip.MustParseAddr("100.64.9.9"); c.Published = nil }, "must not be in the pool", "[]"},
		{"underlay of nobody", func(c *Config) { c.Underlay = netip.IPv4Unspecified(); c.Published = nil }, "an address that other machines reach", "[]"},
		{"own index", func(c *Config) { c.Peers[1].Node = 1 }, "node 1: its index is 0, or another node's too", "[2]"},
		{"index twice", func(c *Config) { c.Peers[1].Node = 2 }, "node 2: its index is 0, or another node's too", "[2]"},
		{"index 0", func(c *Config) { c.Peers[1].Node = 0 }, "node 0: its index is 0, or another node's too", "[2]"},
		{"large index", func(c *Config) { c.Peers[1].Node = 65536 }, "its index must be from 1 to 65535", "[2]"},
		{"no address", func(c *Config) { c.Peers[1].Underlay = netip.Addr{} }, "node 3: underlay address invalid IP: there is none", "[2]"},
		{"own address", func(c *Config) { c.Peers[1].Underlay = nodeAddr(0) }, "is another node's too", "[2]"},
		{"address twice", func(c *Config) { c.Peers[1].Underlay = nodeAddr(1) }, "node 3: underlay address 10.77.0.2 is another node's too", "[2]"},
		{"address of the other version", func(c *Config) { c.Peers[1].Underlay = netip.MustParseAddr("fd77::3") }, "not of the same IP version", "[2]"},
		{"mapped address", func(c *Config) { c.Peers[1].Underlay = netip.AddrFrom16(nodeAddr(2).As16()) }, "", "[2 3]"},
		{"loopback", func(c *Config) { c.Peers[1].Underlay = netip.MustParseAddr("127.0.0.1") }, "an address that other machines reach", "[2]"},
		{"no block", func(c *Config) { c.Peers[1].Gateway = netip.Prefix{} }, "", "[2]"},
		{"tiny block", func(c *Config) { c.Peers[1].Gateway = netip.MustParsePrefix("100.64.3.0/31") }, "gateway block 100.64.3.0/31: it must be", "[2]"},
		{"block out of the pool", func(c *Config) { c.Peers[1].Gateway = netip.MustParsePrefix("10.1.0.0/24") }, "not within the pool", "[2]"},
		{"own block", func(c *Config) { c.Peers[1].Gateway = netip.MustParsePrefix("100.64.1.128/25") }, "has addresses of another node's 100.64.1.0/24", "[2]"},
		{"block around all", func(c *Config) { c.Peers[1].Gateway = netip.MustParsePrefix("100.64.0.0/16") }, "has addresses of another node's", "[2]"},
		{"block in another's", func(c *Config) { c.Peers[1].Gateway = netip.MustParsePrefix("100.64.2.64/26") }, "node 3: gateway block 100.64.2.64/26 has addresses of another node's 100.64.2.0/24", "[2]"},
		{"unknown block", func(c *Config) {
			c.Published[1].Backends = append(c.Published[1].Backends, netip.MustParseAddrPort("100.64.9.2:80"))
		}, "published port tcp/8081: backend 100.64.9.2:80 is in no known node's gateway block", "[2 3]"},
		{"the data port", func(c *Config) { c.Published[0] = spread("udp", 4789, [2]int{0, 0}) }, "published port udp/4789: it is the port of the traffic between nodes", "[2 3]"},
	}
	for _, tt := range tests {
		c := meshConfig(3, 0, 1)
		c.Published = []PublishedPort{spread("tcp", 8080, [2]int{0, 0}), spread("tcp", 8081, [2]int{1, 0})}
		tt.change(&c)
		d, err := check(c, checked{})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
		if byTask, alone := TaskErrors(err); len(byTask) != 0 || !alone {
			t.Errorf("%s: the error is not of peers and ports alone: %v", tt.name, err)
		}
		if got := fmt.Sprint(slices.Sorted(maps.Keys(d.peers))); got != tt.peers {
			t.Errorf("%s: the peers are %s, want %s", tt.name, got, tt.peers)
		}
		if len(c.Published) > 1 && tt.peers != "[]" && fmt.Sprint(d.ports[portKey{6, 8081}]) != "[100.64.2.2:80]" {
			t.Errorf("%s: the port leads to %v", tt.name, d.ports)
		}
	}
}

func TestCheckDraining(t *testing.T) {
	c := meshConfig(3, 0, 2)
	p := spread("tcp", 8080, [2]int{0, 0}, [2]int{1, 0})
	p.Draining = spread("tcp", 0, [2]int{2, 0}, [2]int{0, 1}, [2]int{0, 0}).Backends
	c.Published = []PublishedPort{p, {Protocol: "udp", Port: 53, Draining: spread("udp", 0, [2]int{0, 0}).Backends}}
	d, err := check(c, checked{})
	must(t, err)
	if got := fmt.Sprint(d.ports, d.draining); got != "map[tcp/8080:[100.64.1.2:80 100.64.2.2:80]] map[tcp/8080:[100.64.1.3:80 100.64.3.2:80] udp/53:[100.64.1.2:80]]" {
		t.Errorf("backends are %s", got)
	}
	var targets []string
	for one := range d.targets {
		targets = append(targets, fmt.Sprintf("%x", one))
	}
	slices.Sort(targets)
	if got := fmt.Sprint(targets); got != "[644001020600000000500000 644001021100000000500000 644001030600000000500000]" {
		t.Errorf("targets are %s", got)
	}
}

// Networks reach a node also where the gateway network does not.
func TestCheckLetsInNodesWithoutBlock(t *testing.T) {
	c := meshConfig(4, 0, 0)
	c.Peers[0].Gateway = netip.Prefix{}
	c.Peers[1].Gateway = netip.MustParsePrefix("10.0.0.0/24")
	c.Peers[2].Node = 65536
	d, err := check(c, checked{})
	if got := fmt.Sprint(err); got != "node 3: gateway block 10.0.0.0/24 is not within the pool 100.64.0.0/16\nnode 65536: its index must be from 1 to 65535" {
		t.Errorf("got %s", got)
	}
	if len(d.underlays) != 3 || len(d.peers) != 0 || d.wire.up() || d.guard != underlayOf(c) {
		t.Errorf("let in are %v, reached %v", d.underlays, d.peers)
	}
}
