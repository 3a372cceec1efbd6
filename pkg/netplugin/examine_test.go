package netplugin

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// examined are a machine's findings, each as "about overlay node: text".
func examined(t *testing.T, b *lab, overlay string) (all []string) {
	t.Helper()
	findings, checks, err := b.linux.Examine(t.Context(), overlay)
	must(t, err)
	if checks < 5 {
		t.Errorf("only %d things were looked at", checks)
	}
	for _, f := range findings {
		all = append(all, fmt.Sprintf("%s %s %d: %s", f.About, f.Overlay, f.Node, f.Text))
	}
	slices.Sort(all)
	return all
}

// A network that is as it should be has no findings; each damage has its own, and nothing that is well is blamed. Nothing is mended by looking.
func TestExamine(t *testing.T) {
	damages := []struct {
		name   string
		damage func(f *fleet)
		want   []string // what each finding of machine 1 begins with, in order, or is to have after "…"
	}{
		{"nothing", func(*fleet) {}, nil},
		{"the other machine is cut off", func(f *fleet) { setDown(t, f.lan, "port1") },
			[]string{"underlay  2: it does not answer pings at 10.78.0.2"}},
		{"a smaller MTU along the way", func(f *fleet) { setMTU(t, f.lan, "port1", 1400) },
			[]string{"mtu  2: packets to 10.78.0.2 of 1500 bytes"}},
		{"a table flushed", func(f *fleet) { removeTable(t, f.labs[0].host, four.newTransaction(nil).table) },
			[]string{"rules  0: table swarmd of family ip, with the rules of published ports, is gone"}},
		{"the data port's table of the other side has no peers", func(f *fleet) {
			must(f.t, f.labs[1].linux.changePeers(f.labs[1].linux.have.underlays, nil))
		}, []string{"link net0 2: the task with the address 10.0.1.12 is not reached", "link net1 2: the task with the address 10.0.2.12 is not reached"}},
		{"the same before two nodes ever met", func(f *fleet) {
			must(f.t, f.labs[1].linux.changePeers(f.labs[1].linux.have.underlays, nil))
			f.forgetSession(0, "net1")
		}, []string{"encrypted net1 2: there was no WireGuard handshake yet: let UDP port", "link net0 2: the task", "link net1 2: the task"}},
		{"a session that is about to begin", func(f *fleet) { f.forgetSession(0, "net1") }, nil},
		{"the encrypting process killed", func(f *fleet) {
			must(f.t, syscall.Kill(processOf(f.t, f.labs[0], "net1"), syscall.SIGKILL))
			f.awaitGone(f.labs[0].overlay("net1"))
		}, []string{"link net1 2: the task", "rules net1 0: link vx in router of network net1 is gone"}},
		{"the encrypting process stopped", func(f *fleet) {
			stopProcess(f.t, processOf(f.t, f.labs[0], "net1"))
		}, []string{"encrypted net1 0: what encrypts it on this node does not answer", "link net1 2: the task"}},
		{"a route removed", func(f *fleet) {
			must(f.t, f.labs[0].overlay("net0").removeRoute(route{dst: host(f.address(f.tasks[1], 0, false)), link: f.labs[0].linux.overlays["net0"].vx.Attrs().Index, via: nextHop(2, 0)}))
		}, []string{"link net0 2: the task", "rules net0 0: 1 of its 3 routes on this node are missing"}},
	}
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			f := newFleet(t, 2)
			f.network(1, false)
			f.nets[f.network(2, false)].Encrypted = true
			f.task(0, 0, 1)
			f.task(1, 0, 1)
			f.apply()
			f.serve()
			f.shakeHandsOn(1)
			d.damage(f)
			got := examined(t, f.labs[0], "")
			if len(got) != len(d.want) || !slices.EqualFunc(got, d.want, strings.HasPrefix) {
				t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(d.want, "\n"))
			}
			for _, one := range examined(t, f.labs[0], "net0") {
				if !strings.HasPrefix(one, "underlay") && !strings.HasPrefix(one, "mtu") && !strings.Contains(one, " net0 ") && !strings.HasPrefix(one, "link  ") {
					t.Errorf("of network net0: %s", one)
				}
			}
		})
	}
}

// TestExamineManyThatHang: what encrypts one network is waited for no longer where that of others hangs too, and each is told of, and mended.
func TestExamineManyThatHang(t *testing.T) {
	f := newFleet(t, 2)
	var all []int
	for i := range 6 {
		n := f.network(byte(i+1), false)
		f.nets[n].Encrypted = true
		all = append(all, n)
	}
	f.task(0, all...)
	f.task(1, all...)
	f.apply()
	f.serve()
	for _, n := range all {
		f.shakeHandsOn(n)
	}
	var want []string
	for _, n := range all {
		want = append(want, fmt.Sprintf("encrypted net%d 0: what encrypts it on this node does not answer", n), fmt.Sprintf("link net%d 2: the task", n))
		stopProcess(t, processOf(t, f.labs[0], fmt.Sprintf("net%d", n)))
	}
	slices.Sort(want)
	if got := examined(t, f.labs[0], ""); len(got) != len(want) || !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	f.labs[0].linux.Resync()
	f.apply()
	for _, n := range all {
		f.shakeHandsOn(n)
	}
}

// TestGathered: addresses of one network and node that are not reached are told of once, others each by itself.
func TestGathered(t *testing.T) {
	link := func(node uint32, text string) Finding {
		return Finding{About: AboutLink, Overlay: "net0", Node: node, Text: text}
	}
	rules := Finding{About: AboutRules, Text: "a table is gone"}
	got := gathered([]Finding{link(2, "10.0.0.1"), rules, link(2, "10.0.0.2"), link(3, "10.0.0.3"), rules, link(2, "10.0.0.4"), link(0, "a"), link(0, "b")})
	want := []Finding{link(2, "10.0.0.1 (2 more addresses there: the same)"), rules, link(3, "10.0.0.3"), rules, link(0, "a"), link(0, "b")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// forgetSession has a machine's device of a network know the others as if it had never met them. It begins nothing by itself.
func (f *fleet) forgetSession(machine int, network string) {
	f.t.Helper()
	time.Sleep(50 * time.Millisecond) // who heard of a handshake just now does not begin one: see pkg/netplugin/wire
	l := f.labs[machine].linux
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.overlays[network]
	var c wgtypes.Config
	for k, p := range o.wires.peers {
		again := wgtypes.PeerConfig{PublicKey: k, PresharedKey: &p.shared, Endpoint: net.UDPAddrFromAddrPort(p.at)}
		for prefix, owner := range o.wires.owner {
			if owner == k {
				again.AllowedIPs = append(again.AllowedIPs, *ipNet(prefix))
			}
		}
		c.Peers = append(c.Peers, wgtypes.PeerConfig{PublicKey: k, Remove: true}, again)
	}
	must(f.t, o.tunnel.change(c))
}

// shakeHandsOn waits until the first task has reached the second on a network.
func (f *fleet) shakeHandsOn(net int) {
	f.t.Helper()
	f.awaitAnswer(f.tasks[0], f.address(f.tasks[1], net, false), time.Now().Add(3*soon)) // see TestEncryptedNetworkWithoutKeys
}

// stopProcess returns once all threads of a process are stopped, which the kernel does some time after it was asked.
func stopProcess(t testing.TB, pid int) {
	t.Helper()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	runs := func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		must(t, err)
		return slices.ContainsFunc(threads, func(path string) bool {
			text, err := os.ReadFile(path)
			_, state, _ := strings.Cut(string(text), ") ")
			return err == nil && !strings.HasPrefix(state, "T")
		})
	}
	for end := deadline(); runs(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d does not stop", pid)
		}
	}
}

// awaitGone waits until a router's link to other nodes is gone.
func (f *fleet) awaitGone(n *namespace) {
	f.t.Helper()
	for end := deadline(); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := n.LinkByName(overlayLink); err != nil {
			return
		}
	}
	f.t.Fatal("the link is still there")
}

func setMTU(t *testing.T, n *namespace, name string, mtu int) {
	t.Helper()
	one, err := n.LinkByName(name)
	must(t, err)
	must(t, n.LinkSetMTU(one, mtu))
}

func TestPingOfNobody(t *testing.T) {
	b := newLab(t)
	answered, _, err := b.host.ping(t.Context(), hostAddr, nil, pingSmall)
	if err != nil || len(answered) != 0 {
		t.Errorf("%v, %v", answered, err)
	}
	if _, _, err := b.host.ping(t.Context(), clientAddr, []netip.Addr{hostAddr}, pingSmall); err == nil {
		t.Error("an address that is somebody else's was asked from")
	}
	answered, tooLarge, err := b.host.ping(t.Context(), hostAddr, []netip.Addr{clientAddr}, 1401)
	if err != nil || !tooLarge || len(answered) != 0 {
		t.Errorf("a packet larger than the link takes: %v, %t, %v", answered, tooLarge, err)
	}
	answered, tooLarge, err = b.host.ping(t.Context(), hostAddr, []netip.Addr{clientAddr}, 1400)
	if err != nil || tooLarge || len(answered) != 1 {
		t.Errorf("a packet as large as the link takes: %v, %t, %v", answered, tooLarge, err)
	}
}

// TestExamineCutMTU: a network that asks for larger packets than fit between nodes has what fits, and that is told.
func TestExamineCutMTU(t *testing.T) {
	f := newFleet(t, 2)
	for i, mtu := range []int{9000, 1400} {
		f.nets[f.network(byte(i+1), false)].MTU = mtu
		f.task(0, i)
		f.task(1, i)
	}
	f.apply()
	found := examined(t, f.labs[0], "")
	if want := "mtu net0 0: it asks for an MTU of 9000, and 1450 bytes fit"; len(found) != 1 || !strings.HasPrefix(found[0], want) {
		t.Errorf("found %q, want one that begins with %q", found, want)
	}
}

// TestExamineFailures: what the latest Apply could not do for one attachment, or one network, is told with the reason, and what others have is
// compared all the same.
func TestExamineFailures(t *testing.T) {
	b := newLab(t)
	if found, _, err := b.linux.Examine(t.Context(), ""); err != nil || len(found) != 1 || !strings.Contains(found[0].Text, "the network is not made yet") {
		t.Errorf("before the first Apply found %v, %v", found, err)
	}
	guest, path := newGuest(t)
	c := guestConfig(path)
	b.apply(c)
	if found := examined(t, b, ""); len(found) != 0 {
		t.Fatalf("found %q", found)
	}
	must(t, guest.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: indexOf(guest, "swarm1")}}))
	must(t, guest.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "swarm1"}}))
	second := *c.Overlays[0]
	second.ID = "second"
	c.Overlays = append(c.Overlays, &second)
	c.Overlays[1].VNI = 1 << 24
	b.linux.Resync()
	err := b.linux.Apply(t.Context(), c)
	if byTask, alone := TaskErrors(err); !alone || byTask["guest"] == nil {
		t.Fatalf("%v", err)
	}
	must(t, b.host.LinkDel(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: indexOf(b.host, hostLink)}}))
	found := strings.Join(examined(t, b, ""), "\n")
	for _, want := range []string{
		"back 0: attachment guest cannot be put on its networks (there is another link swarm1 in the network namespace: rename that first): it is tried again",
		"second 0: VNI 16777216",
		"link " + hostLink + " in host is gone",
	} {
		if !strings.Contains(found, want) {
			t.Errorf("found\n%s\nwant %q among it", found, want)
		}
	}
	if of, _, err := b.linux.Examine(t.Context(), "second"); err != nil || len(of) != 1 || of[0].Overlay != "second" || !strings.HasPrefix(of[0].Text, "VNI") {
		t.Errorf("of one network found %v, %v", of, err)
	}
}
