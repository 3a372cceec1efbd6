package netplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// overlayConfig has a task on two networks, of which the first has remote tasks and VIPs.
func overlayConfig() Config {
	c := testConfig(2)
	c.Underlay = netip.MustParseAddr("10.78.0.1")
	c.Peers = []Peer{{Node: 2, Underlay: netip.MustParseAddr("10.78.0.2")}, {Node: 3, Underlay: netip.MustParseAddr("10.78.0.3")}}
	subnet := func(p, g string) Subnet { return Subnet{netip.MustParsePrefix(p), netip.MustParseAddr(g)} }
	a := netip.MustParseAddr
	c.Overlays = []*Overlay{
		{
			ID: "front", VNI: 4096, Subnets: []Subnet{subnet("10.0.1.0/24", "10.0.1.1"), subnet("fd00:1::/64", "fd00:1::1")},
			Remote: []RemoteAddress{{a("10.0.1.12"), 2}, {a("10.0.1.13"), 3}, {a("fd00:1::12"), 2}},
			VIPs:   []VIP{{a("10.0.1.5"), []netip.Addr{a("10.0.1.11"), a("10.0.1.12")}}, {a("10.0.1.6"), nil}},
		},
		{ID: "back", VNI: 4097, Subnets: []Subnet{subnet("10.0.1.0/24", "10.0.1.1")}},
	}
	c.Tasks[0].Networks = []Attachment{{"front", []netip.Addr{a("10.0.1.11"), a("fd00:1::11")}}, {"back", []netip.Addr{a("10.0.1.11")}}}
	c.Tasks[1].Networks = []Attachment{{"back", []netip.Addr{a("10.0.1.12")}}}
	return c
}

// checkOverlays is what Apply does with a Config before it touches anything.
func checkOverlays(c Config) (*desired, error) {
	d, err := check(c, checked{})
	if d == nil {
		return nil, err
	}
	err = errors.Join(err, d.addOverlays(c, nil))
	since := map[conflict]time.Time{}
	return d, errors.Join(err, d.lasting(since, day), d.lasting(since, day.Add(conflictPatience)))
}

var day = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestConflictsAreToldWhenTheyLast: an address that is given on is on two nodes for a moment, by what the nodes know.
func TestConflictsAreToldWhenTheyLast(t *testing.T) {
	twice, over := overlayConfig(), overlayConfig()
	a := netip.MustParseAddr("10.0.1.11")
	twice.Overlays[0].Remote[0].Address = a
	since := map[conflict]time.Time{}
	after := func(c Config, later time.Duration) error {
		t.Helper()
		d, err := check(c, checked{})
		must(t, errors.Join(err, d.addOverlays(c, nil)))
		if r, remote := d.overlays["front"].find(a); remote {
			t.Errorf("address %s of a task here is also that of %v", a, r)
		}
		return d.lasting(since, day.Add(later))
	}
	must(t, after(twice, 0))
	must(t, after(twice, conflictPatience-1))
	if err := after(twice, conflictPatience); err == nil || !strings.Contains(err.Error(), "network front: address 10.0.1.11 is that of task t0 here, and of one on node 2") {
		t.Errorf("a conflict that lasts: %v", err)
	}
	must(t, after(over, conflictPatience))
	must(t, after(twice, 2*conflictPatience)) // another one
	must(t, after(over, 2*conflictPatience))
	if len(since) != 0 {
		t.Errorf("%v is kept of what is over", since)
	}
}

func TestCheckOverlays(t *testing.T) {
	c := overlayConfig()
	d, err := checkOverlays(c)
	must(t, err)
	front := d.overlays["front"]
	if len(front.remote) != 3 || !slices.Equal(front.vteps, []vtep{{node: 2, addr: c.Peers[0].Underlay}, {node: 3, addr: c.Peers[1].Underlay}}) || len(front.vips) != 2 {
		t.Errorf("the network is %v", front)
	}
	if m := front.members["t0"]; m.eth() != "eth1" || len(m.addresses) != 2 || m.link != testAddr(0) {
		t.Errorf("the task there is %v", m)
	}
	if m := d.overlays["back"].members["t0"]; m.eth() != "eth2" {
		t.Errorf("the task on the second network is %v", m)
	}
}

func TestCheckRefusesOverlays(t *testing.T) {
	a := netip.MustParseAddr
	tests := []struct {
		name   string
		change func(c *Config, o *Overlay) // o is front
		want   string
		front  bool // the network is still there
		task   bool // and its task
	}{
		{"no ID", func(c *Config, o *Overlay) { o.ID = "" }, "network : its ID is no file name", false, false},
		{"ID that leads out", func(c *Config, o *Overlay) { o.ID = "../x" }, "its ID is no file name", false, false},
		{"the gateway's ID", func(c *Config, o *Overlay) { o.ID = "gw" }, "network gw: its ID is no file name", false, false},
		{"no VNI", func(c *Config, o *Overlay) { o.VNI = 0 }, "network front: VNI 0 is not between 2 and 16777215", false, false},
		{"the gateway's VNI", func(c *Config, o *Overlay) { o.VNI = 1 }, "VNI 1 is not between", false, false},
		{"large VNI", func(c *Config, o *Overlay) { o.VNI = 1 << 24 }, "VNI 16777216 is not between", false, false},
		{"no subnet", func(c *Config, o *Overlay) { o.Subnets = nil }, "network front: it has no subnet", false, false},
		{"subnet with host bits", func(c *Config, o *Overlay) { o.Subnets[0].Prefix = netip.MustParsePrefix("10.0.1.1/24") }, "subnet 10.0.1.1/24: it must be a network", false, false},
		{"tiny subnet", func(c *Config, o *Overlay) { o.Subnets[0].Prefix = netip.MustParsePrefix("10.0.1.0/31") }, "at least 4 addresses", false, false},
		{"gateway elsewhere", func(c *Config, o *Overlay) { o.Subnets[0].Gateway = a("10.0.2.1") }, "gateway 10.0.2.1 is not an address in it", false, false},
		{"no gateway", func(c *Config, o *Overlay) { o.Subnets[0].Gateway = netip.Addr{} }, "gateway invalid IP is not an address in it", false, false},
		{"overlap", func(c *Config, o *Overlay) {
			o.Subnets[1] = Subnet{netip.MustParsePrefix("10.0.0.0/16"), a("10.0.0.1")}
		}, "subnets 10.0.1.0/24 and 10.0.0.0/16 overlap", false, false},
		{"tiny MTU", func(c *Config, o *Overlay) { o.MTU = 1200 }, "MTU 1200 is not between 1280 and 65535", false, false},
		{"twice", func(c *Config, o *Overlay) { again := *o; again.VNI = 5000; c.Overlays = append(c.Overlays, &again) }, "network front: it is there twice", true, true},
		{"VNI twice", func(c *Config, o *Overlay) { c.Overlays[1].VNI = 4096 }, "network back: VNI 4096 is that of network front", true, false},
		{"remote address elsewhere", func(c *Config, o *Overlay) { o.Remote[0].Address = a("10.0.2.12") }, "network front: remote task: address 10.0.2.12 is in none of the network's subnets [10.0.1.0/24 fd00:1::/64]", true, true},
		{"remote gateway", func(c *Config, o *Overlay) { o.Remote[0].Address = a("10.0.1.1") }, "address 10.0.1.1 is the network's gateway", true, true},
		{"remote on this node", func(c *Config, o *Overlay) { o.Remote[0].Node = 1 }, "remote address 10.0.1.12: 1 is not another node's index", true, true},
		{"remote on two nodes", func(c *Config, o *Overlay) { o.Remote[1].Address = o.Remote[0].Address }, "remote address 10.0.1.12 is on node 2 and on node 3", true, true},
		{"remote and here", func(c *Config, o *Overlay) { o.Remote[0].Address = a("10.0.1.11") }, "address 10.0.1.11 is that of task t0 here, and of one on node 2", true, true},
		{"peer of the other IP version", func(c *Config, o *Overlay) { c.Peers[0].Underlay = a("fd78::2") }, "node 2 is not reached: its address fd78::2 is not of the same IP version as this machine's 10.78.0.1", true, true},
		{"no node", func(c *Config, o *Overlay) { c.Node = 0 }, "it reaches no other node: index 0", true, true},
		{"VIP elsewhere", func(c *Config, o *Overlay) { o.VIPs[0].Address = a("10.9.0.5") }, "VIP: address 10.9.0.5 is in none of the network's subnets", true, true},
		{"VIP twice", func(c *Config, o *Overlay) { o.VIPs[1].Address = o.VIPs[0].Address }, "VIP 10.0.1.5 is there twice", true, true},
		{"VIP of a remote task", func(c *Config, o *Overlay) { o.VIPs[1].Address = a("10.0.1.12") }, "VIP 10.0.1.12 is also a task's address", true, true},
		{"backend of the other IP version", func(c *Config, o *Overlay) { o.VIPs[0].Backends[1] = a("fd00:1::12") }, "backend fd00:1::12 of VIP 10.0.1.5 is not an address of the same IP version in the network", true, true},
		{"no such network", func(c *Config, o *Overlay) { c.Tasks[0].Networks[0].Overlay = "nowhere" }, "task t0: network nowhere: it is not among the networks of this machine", true, false},
		{"same network twice", func(c *Config, o *Overlay) { c.Tasks[0].Networks[1] = c.Tasks[0].Networks[0] }, "task t0: network front: the task is on it twice", true, false},
		{"no address", func(c *Config, o *Overlay) { c.Tasks[0].Networks[0].Addresses = nil }, "task t0: network front: the task has no address there", true, false},
		{"address elsewhere", func(c *Config, o *Overlay) { c.Tasks[0].Networks[0].Addresses[0] = a("10.0.2.11") }, "task t0: network front: address 10.0.2.11 is in none", true, false},
		{"gateway's address", func(c *Config, o *Overlay) { c.Tasks[0].Networks[0].Addresses[0] = a("10.0.1.1") }, "task t0: network front: address 10.0.1.1 is the network's gateway", true, false},
		{"two IPv4 addresses", func(c *Config, o *Overlay) { c.Tasks[0].Networks[0].Addresses[1] = a("10.0.1.14") }, "are of the same IP version", true, false},
		{"another task's address", func(c *Config, o *Overlay) {
			c.Tasks[1].Networks[0] = Attachment{"front", []netip.Addr{a("10.0.1.11")}}
		}, "task t1: network front: address 10.0.1.11 is that of task t0", true, true},
		{"a service's address", func(c *Config, o *Overlay) { c.Tasks[0].Networks[0].Addresses[0] = a("10.0.1.5") }, "task t0: network front: address 10.0.1.5 is that of a service", true, false},
	}
	for _, tt := range tests {
		c := overlayConfig()
		tt.change(&c, c.Overlays[0])
		d, err := checkOverlays(c)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", tt.name, err, tt.want)
		}
		if _, alone := TaskErrors(err); !alone {
			t.Errorf("%s: the error is of all: %v", tt.name, err)
		}
		front := d.overlays["front"]
		if (front != nil) != tt.front {
			t.Errorf("%s: the network is %v", tt.name, front)
		}
		if _, there := d.tasks["t0"]; there != tt.task || there == d.refused["t0"] {
			t.Errorf("%s: task t0 is among those to link: %t, refused %t", tt.name, there, d.refused["t0"])
		}
		if front != nil && front.members["t0"].index == 0 == tt.task {
			t.Errorf("%s: members are %v", tt.name, front.members)
		}
		if _, there := d.tasks["t1"]; !there && !d.refused["t1"] {
			t.Errorf("%s: task t1 was forgotten", tt.name)
		}
	}
}

// What is right of a network stays when something else is wrong with it.
func TestCheckLeavesOutWhatIsWrong(t *testing.T) {
	c := overlayConfig()
	o := c.Overlays[0]
	for i := range 20 {
		o.Remote = append(o.Remote, RemoteAddress{netip.AddrFrom4([4]byte{10, 9, 9, byte(i)}), 2})
	}
	o.VIPs[0].Backends = append(o.VIPs[0].Backends, netip.MustParseAddr("10.9.9.9"), o.VIPs[0].Backends[0])
	d, err := checkOverlays(c)
	if err == nil || !strings.Contains(err.Error(), "and 11 more of such") {
		t.Errorf("got %v", err)
	}
	want, err := checkOverlays(overlayConfig())
	must(t, err)
	for id := range want.overlays {
		same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if diff := cmp.Diff(want.overlays[id].remote, d.overlays[id].remote, same); diff != "" {
			t.Errorf("remote addresses (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want.overlays[id].vips, d.overlays[id].vips, same); diff != "" {
			t.Errorf("VIPs (-want +got):\n%s", diff)
		}
	}
	if len(o.VIPs[0].Backends) != 4 || len(o.Remote) != 23 {
		t.Error("the Config was changed")
	}
}

// A node without an address yet, or that is no peer any more, is not reached. That is no error: it happens while nodes come and go.
func TestRemoteOfUnknownNodes(t *testing.T) {
	c := overlayConfig()
	c.Peers = c.Peers[1:]
	d, err := checkOverlays(c)
	must(t, err)
	if o := d.overlays["front"]; len(o.remote) != 1 || len(o.vteps) != 1 || o.remote[0].Node != 3 {
		t.Errorf("reached are %v by %v", o.remote, o.vteps)
	}
	c.Underlay = netip.Addr{}
	d, err = checkOverlays(c)
	must(t, err)
	if o := d.overlays["front"]; len(o.remote) != 0 || len(o.vteps) != 0 {
		t.Errorf("without an underlay reached are %v by %v", o.remote, o.vteps)
	}
	c = overlayConfig()
	c.Overlays[0].Encrypted = true
	c.Peers[0].Key, c.Peers[1].Key = PublicKey{1}, testKey(3) // the first half of one makes no secret
	d, err = checkOverlays(c)
	if err == nil || !strings.Contains(err.Error(), "node 2 is not reached: its key") || strings.Contains(err.Error(), "node 3") {
		t.Errorf("of an encrypted network: %v", err)
	}
	if o := d.overlays["front"]; len(o.vteps) != 1 || o.vteps[0].node != 3 || o.vteps[0].key != testKey(3) {
		t.Errorf("of an encrypted network reached are %v by %v", o.remote, o.vteps)
	}
	c.Peers[0].Key, c.Peers[1].Key = testKey(3), PublicKey{}
	d, err = checkOverlays(c)
	if err == nil || !strings.Contains(err.Error(), "node 3 is not reached: it has not told its key") {
		t.Errorf("of an encrypted network: %v", err)
	}
	if o := d.overlays["front"]; len(o.vteps) != 1 || o.vteps[0].node != 2 {
		t.Errorf("of an encrypted network reached are %v by %v", o.remote, o.vteps)
	}
	c.Peers[1].Key = testKey(3)
	if d, err = checkOverlays(c); err == nil || !strings.Contains(err.Error(), "node 3 is not reached: its key for encrypted networks is node 2's too") || len(d.overlays["front"].vteps) != 1 {
		t.Errorf("of two nodes with one key: %v", err)
	}
	c.Overlays[0].VNI = 9000
	if _, err := checkOverlays(c); err == nil || !strings.Contains(err.Error(), "VNI 9000 of an encrypted network is not between 4096 and 8631") {
		t.Errorf("of a VNI without a port: %v", err)
	}
}

// testKey is some key of a node.
func testKey(node byte) (k PublicKey) {
	for i := range k {
		k[i] = node + byte(i)
	}
	return k
}

func TestNextHopsAreDistinct(t *testing.T) {
	for _, tt := range []struct {
		node uint32
		v    int
		want string
	}{{1, 0, "240.0.0.1"}, {258, 0, "240.0.1.2"}, {mostNode, 0, "255.255.255.254"}, {1, 1, "fe80::5300:0:0:1"}, {mostNode, 1, "fe80::5300:0:fff:fffe"}} {
		if got := nextHop(tt.node, tt.v); got.String() != tt.want {
			t.Errorf("next hop of node %d is %s, want %s", tt.node, got, tt.want)
		}
	}
}

// Whatever comes and goes, the slots are the backends without holes, and few of them change.
func TestReslot(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		draw := func(label string) []netip.Addr {
			var list []netip.Addr
			for n := range 12 {
				if rapid.Bool().Draw(r, fmt.Sprintf("%s %d", label, n)) {
					list = append(list, netip.AddrFrom4([4]byte{10, 0, 1, byte(n)}))
				}
			}
			return list
		}
		have := draw("have")
		slots := slices.Clone(have)
		for i := range slots {
			j := rapid.IntRange(0, i).Draw(r, "swap")
			slots[i], slots[j] = slots[j], slots[i]
		}
		before := slices.Clone(slots)
		want := draw("want")
		next := reslot(slots, have, want)
		if !slices.Equal(slots, before) {
			r.Fatal("the slots that the kernel has were changed")
		}
		if got := slices.SortedFunc(slices.Values(next), netip.Addr.Compare); !slices.Equal(got, want) {
			r.Fatalf("slots are of %v, want %v", got, want)
		}
		changed, moved := 0, 0
		for i := range min(len(slots), len(next)) {
			if slots[i] != next[i] {
				changed++
			}
		}
		for _, a := range have {
			if !slices.Contains(want, a) {
				moved++
			}
		}
		for _, a := range want {
			if !slices.Contains(have, a) {
				moved++
			}
		}
		if changed > moved {
			r.Fatalf("%d slots changed for %d backends: %v to %v", changed, moved, slots, next)
		}
	})
}

// The edits of a VIP, made one after another on the elements of an empty table, give the elements of the last.
func TestEditsGiveTheElements(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b, have := newBalance(), map[element]bool{}
		for range rapid.IntRange(1, 6).Draw(r, "changes") {
			want := drawVIPs(r)
			edits := b.edits(want)
			come, gone := b.newCounts(edits, 0)
			for _, n := range gone {
				delete(have, dispatchElement(n))
			}
			for _, n := range come {
				have[dispatchElement(n)] = true
			}
			for _, e := range edits {
				remove, add := e.elements()
				for _, one := range remove {
					if !have[one] {
						r.Fatalf("%v is removed and was not there", one)
					}
					delete(have, one)
				}
				for _, one := range add {
					have[one] = true
				}
			}
			b.apply(edits, want)
		}
		all := map[element]bool{}
		for vip, slots := range b.slots {
			_, add := edit{vip: vip, now: slots}.elements()
			for _, one := range add {
				all[one] = true
			}
			if len(slots) > standingPicks {
				all[dispatchElement(len(slots))] = true
			}
		}
		if diff := cmp.Diff(all, have, cmp.AllowUnexported(element{})); diff != "" {
			r.Fatalf("elements (-want +got):\n%s", diff)
		}
	})
}

func drawVIPs(r *rapid.T) (vips []VIP) {
	for n := range 4 {
		if !rapid.Bool().Draw(r, "VIP") {
			continue
		}
		v := VIP{Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})}
		first := rapid.SampledFrom([]int{0, standingPicks - 2}).Draw(r, "of many") // some around the number from which on a chain comes and goes
		for i := range first {
			v.Backends = append(v.Backends, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
		}
		for i := first; i < first+5; i++ {
			if rapid.Bool().Draw(r, "backend") {
				v.Backends = append(v.Backends, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
			}
		}
		vips = append(vips, v)
	}
	return vips
}
