package netplugin

import (
	"errors"
	"fmt"
	"net/netip"
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
		d, err := check(c)
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
	d, err := check(c)
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
