package netplugin

import (
	"context"
	"errors"
	"iter"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestHundredTasksLeaveNothing(t *testing.T) {
	b := newLab(t)
	empty := b.dump(false)
	before := mounts(t, b.dir)
	c := testConfig(100)
	for i := range 50 {
		c.Published = append(c.Published, published("tcp", uint16(8000+i), i, 2*i, 99-i))
	}
	b.apply(c)
	if n := pins(t, b.dir); n != 101 {
		t.Errorf("%d namespaces are mounted, want one for each task and the router", n)
	}
	b.apply(testConfig(0))
	if n := pins(t, b.dir); n != 1 {
		t.Errorf("%d namespaces are left, want the router's", n)
	}
	b.apply(c)
	must(t, b.linux.Teardown(context.Background()))
	if n := mounts(t, b.dir); n != before {
		t.Errorf("%d mounts are left", n-before)
	}
	if diff := cmp.Diff(empty, b.dump(false)); diff != "" {
		t.Errorf("Teardown left (-want +got):\n%s", diff)
	}
	left, err := os.ReadDir(b.dir)
	if err != nil || len(left) != 0 {
		t.Errorf("Teardown left files: %v, %v", left, err)
	}
	// And all of it can begin again.
	b.apply(c)
	if n := pins(t, b.dir); n != 101 {
		t.Errorf("%d namespaces after a second beginning", n)
	}
}

// mounts counts what is mounted below a directory.
func mounts(t testing.TB, dir string) (n int) {
	t.Helper()
	for range mountsBelow(t, dir) {
		n++
	}
	return n
}

// pins counts the namespaces among that.
func pins(t testing.TB, dir string) (n int) {
	t.Helper()
	for line := range mountsBelow(t, dir) {
		if strings.Contains(line, " - nsfs ") {
			n++
		}
	}
	return n
}

func mountsBelow(t testing.TB, dir string) iter.Seq[string] {
	t.Helper()
	all, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return func(yield func(string) bool) {
		for line := range strings.Lines(string(all)) {
			if strings.Contains(line, " "+dir+"/") && !yield(line) {
				return
			}
		}
	}
}

func TestForwardingIsRestored(t *testing.T) {
	for _, was := range []string{"0", "1"} {
		b := newLab(t)
		must(t, b.host.within(func() error { return setSysctls(setting{name: ipForward, value: was}) }))
		b.apply(testConfig(1))
		if got := forwarding(t, b.host); got != "1" {
			t.Errorf("ip_forward is %s while tasks run", got)
		}
		b.restart()
		b.apply(testConfig(1))
		must(t, b.linux.Teardown(context.Background()))
		if got := forwarding(t, b.host); got != was {
			t.Errorf("ip_forward is %s after Teardown, was %s", got, was)
		}
	}
}

func forwarding(t testing.TB, n *namespace) (value string) {
	t.Helper()
	must(t, n.within(func() (err error) {
		value, err = getSysctl(ipForward)
		return err
	}))
	return value
}

func TestTwoMachines(t *testing.T) {
	a, b := newLab(t), newLab(t)
	for _, one := range []*lab{a, b} {
		c := testConfig(2)
		c.Published = []PublishedPort{published("tcp", 8080, 0)}
		one.apply(c)
		serve(t, one.task("t0"), one.dir, 80)
	}
	for _, one := range []*lab{a, b} {
		if server, _, err := ask(one.client, "tcp", at(hostAddr, 8080)); err != nil || server != one.dir {
			t.Errorf("answered by %q, %v; want the machine's own task", server, err)
		}
	}
	must(t, a.linux.Teardown(context.Background()))
	if server, _, err := ask(b.client, "tcp", at(hostAddr, 8080)); err != nil || server != b.dir {
		t.Errorf("after the other machine's end: %q, %v", server, err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	b := newLab(t)
	open := func() (l *Linux, err error) {
		err = b.host.within(func() error {
			l, err = New(Options{Dir: t.TempDir()})
			return err
		})
		return l, err
	}
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "another swarmd has charge of this network namespace") {
		t.Errorf("a second daemon in the namespace: %v", err)
	}
	must(t, b.linux.Close())
	defer b.start()
	l, err := open()
	must(t, err)
	must(t, l.Close())
}

func TestClosed(t *testing.T) {
	b := newLab(t)
	must(t, b.linux.Close())
	defer b.start()
	if err := b.linux.Apply(t.Context(), testConfig(0)); !errors.Is(err, errClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
	if _, err := b.linux.Addresses(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("Addresses after Close: %v", err)
	}
	if err := b.linux.Teardown(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("Teardown after Close: %v", err)
	}
	must(t, b.linux.Close())
}

func TestSysctls(t *testing.T) {
	b := newLab(t)
	c := everything()
	read := func(task, name string) (value string) {
		t.Helper()
		must(t, b.task(task).within(func() (err error) {
			value, err = getSysctl(name)
			return err
		}))
		return value
	}
	b.apply(c)
	for name, want := range map[string]string{"net.ipv4.tcp_fin_timeout": "33", "net.ipv4.ip_local_port_range": "20000 30000", "net.ipv4.ip_unprivileged_port_start": "0"} {
		if got := read("t1", name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := read("t0", "net.ipv4.tcp_fin_timeout"); got == "33" {
		t.Error("the setting of one task is also another's")
	}
	c.Tasks[1].Sysctls = map[string]string{"net.ipv4.tcp_fin_timeout": "34"}
	b.apply(c)
	if got := read("t1", "net.ipv4.tcp_fin_timeout"); got != "34" {
		t.Errorf("the changed setting is %q", got)
	}
}

func TestBadTaskLeavesTheOthersAlone(t *testing.T) {
	b := newLab(t)
	c := testConfig(3)
	c.Tasks[1].Sysctls = map[string]string{"net.ipv4.no_such_thing": "1"}
	c.Tasks = append(c.Tasks, TaskLink{ID: "../x", Address: testAddr(7)}, TaskLink{ID: "far", Address: netip.MustParseAddr("10.0.0.1")})
	err := b.linux.Apply(t.Context(), c)
	byTask, alone := TaskErrors(err)
	if len(byTask) != 3 || !alone || !strings.Contains(byTask["t1"].Error(), "no_such_thing") {
		t.Errorf("errors by task: %v, alone %v", byTask, alone)
	}
	have, err := b.linux.Addresses(t.Context())
	must(t, err)
	if len(have) != 2 || have["t0"] != testAddr(0) || have["t2"] != testAddr(2) {
		t.Errorf("linked are %v, want t0 and t2", have)
	}
	if n := linkCount(t, b.linux.router); n != 2+2 {
		t.Errorf("%d links in the router, want lo, up0 and those of two tasks", n)
	}
	// Made good, it is linked; made bad, it stays.
	c = testConfig(3)
	b.apply(c)
	before := b.dump(true)
	c.Tasks[1].Address = netip.MustParseAddr("10.0.0.1")
	if err := b.linux.Apply(t.Context(), c); err == nil {
		t.Error("an address out of the block was taken")
	}
	if diff := cmp.Diff(before, b.dump(true)); diff != "" {
		t.Errorf("a task that cannot be as it should was touched (-before +after):\n%s", diff)
	}
}

func TestCanceledApply(t *testing.T) {
	b := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.linux.Apply(ctx, testConfig(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.apply(testConfig(1))
}

// TestForeignInputDropIsWarnedOf: a firewall of the machine's that lets no question for a name in is told of, whether its policy or its last
// rule is what drops, and though it forwards what is ours; the doctor says so too.
func TestForeignInputDropIsWarnedOf(t *testing.T) {
	for _, by := range []string{"policy", "last rule"} {
		b := newLab(t)
		c, err := b.host.firewall()
		must(t, err)
		table := c.AddTable(&nftables.Table{Name: "fw", Family: nftables.TableFamilyINet})
		policy := nftables.ChainPolicyDrop
		if by == "last rule" {
			policy = nftables.ChainPolicyAccept
		}
		input := c.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &policy})
		forward := c.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy})
		services := c.AddChain(&nftables.Chain{Name: "services", Table: table})
		c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: join(inLink(hostLink, true), accept())})
		c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: "services"}}})
		if by == "last rule" {
			c.AddRule(&nftables.Rule{Table: table, Chain: input, Exprs: []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}})
		}
		must(t, c.Flush())
		b.apply(testConfig(1))
		warned := func(list []string) bool {
			return len(list) == 1 && strings.Contains(list[0], "chain input of table fw") && strings.Contains(list[0], "names")
		}
		if w := b.linux.Warnings(); !warned(w) {
			t.Errorf("%s: warnings: %q", by, w)
		}
		findings, _, err := b.linux.Examine(t.Context(), "")
		must(t, err)
		if len(findings) == 0 || !warned([]string{findings[0].Text}) {
			t.Errorf("%s: findings: %v", by, findings)
		}
		open := c.AddRule(&nftables.Rule{Table: table, Chain: services, Exprs: join(inLink(hostLink, true), accept())})
		must(t, c.Flush())
		quiet := func(where string) {
			t.Helper()
			b.linux.Resync()
			b.apply(testConfig(1))
			if w := b.linux.Warnings(); len(w) != 0 {
				t.Errorf("%s: warnings where %s: %q", by, where, w)
			}
		}
		quiet("a chain that it leads to accepts " + hostLink)
		rules, err := c.GetRules(table, services)
		must(t, err)
		open.Handle = rules[0].Handle
		must(t, c.DelRule(open))
		ports := &nftables.Set{Table: table, Anonymous: true, Constant: true, KeyType: nftables.TypeInetService}
		must(t, c.AddSet(ports, []nftables.SetElement{{Key: []byte{0, 22}}, {Key: []byte{0, namesPort}}}))
		c.AddRule(&nftables.Rule{Table: table, Chain: services, Exprs: join(transport(unix.IPPROTO_UDP),
			[]expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, &expr.Lookup{SourceRegister: 1, SetName: ports.Name, SetID: ports.ID}}, accept())})
		must(t, c.Flush())
		quiet("a set of ports has that of names")
		c.DelTable(table)
		must(t, c.Flush())
	}
}

func TestForeignForwardDropIsWarnedOf(t *testing.T) {
	b := newLab(t)
	c, err := b.host.firewall()
	must(t, err)
	table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	policy := nftables.ChainPolicyDrop
	forward := c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy})
	must(t, c.Flush())
	b.apply(testConfig(1))
	if w := b.linux.Warnings(); len(w) != 1 || !strings.Contains(w[0], "chain FORWARD of table filter") || !strings.Contains(w[0], hostLink) {
		t.Errorf("warnings: %q", w)
	}
	serve(t, b.client, "outside", 9000)
	for _, rule := range [][]expr.Any{join(inLink(hostLink, true), accept()), join(outLink(hostLink, true), accept())} {
		c.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: rule})
	}
	must(t, c.Flush())
	b.linux.Resync()
	b.apply(testConfig(1))
	if w := b.linux.Warnings(); len(w) != 0 {
		t.Errorf("warnings where %s is accepted: %q", hostLink, w)
	}
	if _, _, err := ask(b.task("t0"), "tcp", at(clientAddr, 9000)); err != nil {
		t.Error(err)
	}
	c.DelTable(table)
	must(t, c.Flush())
}

func TestMTUFollowsTheUplink(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(1))
	check := func(want int) {
		t.Helper()
		for _, one := range []struct {
			n    *namespace
			link string
		}{{b.host, hostLink}, {b.linux.router, routerLink}, {b.linux.router, linkName(testAddr(0))}, {b.task("t0"), taskLink}} {
			l, err := one.n.LinkByName(one.link)
			must(t, err)
			if got := l.Attrs().MTU; got != want {
				t.Errorf("MTU of %s in %s is %d, want the uplink's %d", one.link, one.n.name, got, want)
			}
		}
	}
	check(1400)
	out, err := b.host.LinkByName("out0")
	must(t, err)
	must(t, b.host.LinkSetMTU(out, 9000))
	b.linux.Resync()
	b.apply(testConfig(1))
	check(9000)
}

// TestMTUBelowIPv6AndBack: with less than 1280 bytes the kernel takes IPv6 from a link, with all its settings; it comes back with the bytes.
func TestMTUBelowIPv6AndBack(t *testing.T) {
	b := newLab(t)
	c := testConfig(2)
	c.Prefix6 = netip.MustParsePrefix("fd12:3456:789a::/96")
	b.apply(c)
	if !b.linux.six {
		t.Skip("this kernel has no IPv6")
	}
	before := b.dump(false)
	out, err := b.host.LinkByName("out0")
	must(t, err)
	for _, mtu := range []int{1200, out.Attrs().MTU} {
		must(t, b.host.LinkSetMTU(out, mtu))
		b.linux.Resync()
		b.apply(c)
		if b.linux.six != (mtu >= leastMTU6) {
			t.Errorf("with an MTU of %d, tasks have IPv6: %v", mtu, b.linux.six)
		}
	}
	if diff := cmp.Diff(before, b.dump(false)); diff != "" {
		t.Errorf("afterwards (-before +after):\n%s", diff)
	}
}

func TestForeignLinkOfOurName(t *testing.T) {
	b := newLab(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = hostLink
	must(t, b.host.LinkAdd(bridge))
	if err := b.linux.Apply(t.Context(), testConfig(1)); err == nil || !strings.Contains(err.Error(), "not ours: rename or remove it") {
		t.Errorf("got %v", err)
	}
	must(t, b.host.LinkDel(bridge))
	b.apply(testConfig(1))
}
