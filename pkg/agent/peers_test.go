package agent

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// asJSON shows values with addresses in them, for people and for comparing.
func asJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func peerNetwork(id string, vni uint32) v1.PeerNetwork {
	return v1.PeerNetwork{ID: id, Name: "name-" + id, VNI: vni, Subnets: []v1.SubnetSpec{{Subnet: "10.0.1.0/24", Gateway: "10.0.1.1"}}}
}

func peerTask(id, service, node string, ready bool, network, address string) v1.PeerTask {
	return v1.PeerTask{ID: id, Service: service, Name: service + ".1", Node: node, Ready: ready,
		Networks: []v1.NetworkAddress{{Network: network, Addresses: []string{address}}}}
}

// on puts a task of the swarm on networks.
func (s *swarm) on(id string, networks ...v1.NetworkAddress) {
	s.change(id, func(t *v1.Task) *v1.Task {
		d := *t.Desired
		d.Networks = networks
		return &v1.Task{Meta: t.Meta, Desired: &d}
	})
}

// dataKeyOf is a key as nodes tell it: 64 bytes, of which only the first is not zero.
func dataKeyOf(first byte) string {
	k := netplugin.PublicKey{first}
	return base64.StdEncoding.EncodeToString(k[:])
}

// backend is a swarm with a network n1, a task of another node on it, and a task t1 for this one.
func backend(l *lab) {
	l.swarm.peers = v1.Peers{DataPort: 4999,
		Nodes:    []v1.PeerNode{{ID: "other", Index: 9, Addr: "192.0.2.9", DataKey: dataKeyOf(1), IPv6: true}, {ID: nodeID, Index: 7, DataKey: dataKeyOf(2)}, {ID: "mute", Index: 3}},
		Networks: []v1.PeerNetwork{peerNetwork("n1", 4096)},
		Services: []v1.PeerService{{ID: "web", Name: "Web", Ports: []v1.PortConfig{{Name: "http", Target: 80, Published: 8080, Mode: v1.PublishIngress}},
			HostPorts: []v1.PortConfig{{Name: "admin", Target: 9000, Published: 9001, Mode: v1.PublishHost}}, // which the mesh does not lead to
			Networks:  []v1.PeerServiceNetwork{{Network: "n1", VIPs: []string{"10.0.1.2"}, Aliases: []string{"front"}}}}},
		Tasks: []v1.PeerTask{peerTask("task2", "web", "other", true, "n1", "10.0.1.9/24")},
	}
	l.swarm.peers.Tasks[0].Gateway, l.swarm.peers.Tasks[0].Name = "100.64.9.2", "web.2"
	web := l.swarm.service("web", func(s *v1.ServiceRevisionSpec) {
		s.Endpoint = &v1.EndpointSpec{Ports: []v1.PortConfig{{Name: "http", Target: 80, Published: 8080, Mode: v1.PublishIngress}}}
		s.Task.Container.DNS = &v1.DNSConfig{Nameservers: []string{"9.9.9.9"}}
	})
	l.swarm.assign("t1", web, v1.TaskRunning)
	l.swarm.on("t1", v1.NetworkAddress{Network: "n1", Addresses: []string{"10.0.1.5/24"}})
}

// TestPlaces: a port answers where its service says, for the tasks of other nodes and for own ones, and nowhere else while the service is
// not known yet.
func TestPlaces(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		near := v1.PortConfig{Target: 80, Published: 8080, HostIP: "127.0.0.1"}
		far := v1.PortConfig{Target: 80, Published: 8080, Interface: "eth1"}
		l.swarm.peers.Services[0].Ports = []v1.PortConfig{near, far}
		l.swarm.peers.Services = append(l.swarm.peers.Services, v1.PeerService{ID: "zoo", Ports: []v1.PortConfig{{Target: 80, Published: 8080}, {Target: 81, Published: 8081}}})
		other := peerTask("task3", "zoo", "other", true, "n1", "10.0.1.10/24")
		other.Gateway = "100.64.9.3"
		l.swarm.peers.Tasks = append(l.swarm.peers.Tasks, other)
		own := l.swarm.service("own", published(v1.PortConfig{Target: 80, Published: 53, Mode: v1.PublishHost, HostIP: "10.0.0.0/8"}, v1.PortConfig{Target: 81, Published: 54, HostIP: "10.0.0.1"},
			v1.PortConfig{Target: 81, Published: 55, HostIP: "0.0.0.0"}, v1.PortConfig{Target: 81, Published: 56, HostIP: "::"}, v1.PortConfig{Target: 81, Published: 57, HostIP: "2001:db8::1"}))
		l.swarm.assign("t2", own, v1.TaskRunning)
		l.start(nil)
		settle(5 * time.Second)
		var got []string
		for _, p := range l.net.config().Published {
			got = append(got, fmt.Sprint(p.Port, p.Backends, p.Places))
		}
		want := []string{"53 [100.64.7.3:80] [10.0.0.0/8]", "54 [100.64.7.3:81] [10.0.0.1/32]", "55 [100.64.7.3:81] [0.0.0.0/0]", "56 [100.64.7.3:81] [::/0]", "57 [100.64.7.3:81] [2001:db8::1/128]",
			"8080 [100.64.7.2:80 100.64.9.2:80] [127.0.0.1/32 eth1]", "8081 [100.64.9.3:81] []"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestConfigFromPeers(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		l.start(nil)
		settle(5 * time.Second)
		l.want("t1", v1.TaskRunning)
		addr, both := netip.MustParseAddr, []netip.Addr{netip.MustParseAddr("10.0.1.5"), netip.MustParseAddr("10.0.1.9")}
		want := netplugin.Config{Node: 7, Gateway: netip.MustParsePrefix("100.64.7.0/24"), Pool: netip.MustParsePrefix("100.64.0.0/10"), Prefix6: netip.MustParsePrefix("fd12:3456:789a::/96"),
			Underlay: addr("192.0.2.7"), DataPort: 4999, Key: netplugin.PublicKey{2},
			Peers: []netplugin.Peer{{Node: 9, Underlay: addr("192.0.2.9"), Gateway: netip.MustParsePrefix("100.64.9.0/24"), IPv6: true, Key: netplugin.PublicKey{1}}},
			Overlays: []*netplugin.Overlay{{ID: "n1", VNI: 4096,
				Subnets: []netplugin.Subnet{{Prefix: netip.MustParsePrefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
				Remote:  []netplugin.RemoteAddress{{Address: addr("10.0.1.9"), Node: 9}},
				VIPs:    []netplugin.VIP{{Address: addr("10.0.1.2"), Backends: both}}}},
			Tasks: []netplugin.TaskLink{{ID: "t1", Address: addr("100.64.7.2"),
				Networks: []netplugin.Attachment{{Overlay: "n1", Addresses: []netip.Addr{addr("10.0.1.5")}}}}},
			Published: []netplugin.PublishedPort{{Protocol: "tcp", Port: 8080,
				Backends: []netip.AddrPort{netip.MustParseAddrPort("100.64.7.2:80"), netip.MustParseAddrPort("100.64.9.2:80")}}},
		}
		if diff := cmp.Diff(asJSON(t, want), asJSON(t, l.net.config())); diff != "" {
			t.Errorf("config (-want +got):\n%s", diff)
		}
		const names = `{"Askers":{"100.64.7.2":{"Task":"t1","Zones":["n1"],"Internal":false,"Nameservers":["9.9.9.9:53"]}},` +
			`"Zones":{"n1":{"Name":"name-n1","Hosts":{"front":["10.0.1.2"],"t1":["10.0.1.5"],"task2":["10.0.1.9"],` +
			`"tasks.front":["10.0.1.5","10.0.1.9"],"tasks.web":["10.0.1.5","10.0.1.9"],"web":["10.0.1.2"],"web.1":["10.0.1.5"],` +
			`"web.1.t1":["10.0.1.5"],"web.2":["10.0.1.9"],"web.2.task2":["10.0.1.9"]},` +
			`"Reverse":{"10.0.1.2":"Web.name-n1","10.0.1.5":"web.1.t1.name-n1","10.0.1.9":"web.2.task2.name-n1"},` +
			`"Ports":{"front":[{"Name":"admin","Protocol":"tcp","Port":9000},{"Name":"http","Protocol":"tcp","Port":80}],` +
			`"web":[{"Name":"admin","Protocol":"tcp","Port":9000},{"Name":"http","Protocol":"tcp","Port":80}]}}}}`
		if diff := cmp.Diff(names, l.names.shown(t)); diff != "" {
			t.Errorf("names (-want +got):\n%s", diff)
		}
		for name, want := range map[string]string{
			"resolv.conf": "nameserver 127.0.0.11\noptions ndots:0\n",
			"hosts":       hostsHead + "10.0.1.5\tt1\n",
		} {
			if got, err := os.ReadFile(filepath.Join(l.dir, "tasks", "t1", name)); err != nil || string(got) != want {
				t.Errorf("%s is %q, %v; want %q", name, got, err, want)
			}
		}
		if len(l.took) != 1 {
			t.Errorf("programmed %v", l.took)
		}
	})
}

// TestOwnTasksAreKnownHere: what the agent itself does with its tasks counts, and not what managers say of them; each is linked
// before it starts, and nothing leads to it any more when it gets its stop signal, here or, for a moment, elsewhere.
func TestOwnTasksAreKnownHere(t *testing.T) {
	var l *lab
	var linked bool
	var signalled time.Time
	leads := func() bool {
		names := l.names.get()
		overlay := l.net.config().Overlays
		inNames := false
		if names != nil && names.Zones["n1"] != nil {
			found, _ := names.Zones["n1"].Hosts.Get("web.1")
			inNames = len(found) > 0
		}
		inVIP := len(overlay) > 0 && slices.Contains(overlay[0].VIPs[0].Backends, netip.MustParseAddr("10.0.1.5"))
		if inNames != inVIP {
			t.Errorf("in names %t, behind the VIP %t", inNames, inVIP)
		}
		return inNames
	}
	watch := func(op engine.FakeOp, _ string) error {
		switch op {
		case engine.FakeStart:
			if linked = len(l.net.config().Tasks) > 0 && len(l.net.config().Tasks[0].Networks) > 0; leads() {
				t.Error("names lead to a task that has not started")
			}
		case engine.FakeSignal:
			if signalled = time.Now(); leads() {
				t.Error("names lead to a task that gets its stop signal")
			}
		}
		return nil
	}
	bubble(t, engine.FakeOptions{Fail: watch}, func(t *testing.T, lab *lab) {
		l = lab
		l.net.delay = 20 * time.Millisecond
		backend(l)
		l.swarm.peers.Tasks = append(l.swarm.peers.Tasks, peerTask("t1", "web", nodeID, true, "n1", "10.0.1.5/24"))
		l.start(nil)
		settle(5 * time.Second)
		if !linked || !leads() {
			t.Errorf("linked before it started: %t, leads to it now: %t", linked, leads())
		}
		told := time.Now()
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(10 * time.Second)
		l.want("t1", v1.TaskShutdown)
		if waited := signalled.Sub(told); waited < v1.WithdrawWithin || waited > v1.WithdrawWithin+2*drainDelay {
			t.Errorf("got its stop signal %s after it was to stop, with nobody to say that others know", waited)
		}
	})
}

// TestAddressIsGivenOn: a task that was given the address of one that has ended waits until that one's link is gone.
func TestAddressIsGivenOn(t *testing.T) {
	slow := func(op engine.FakeOp, _ string) time.Duration {
		if op == engine.FakeRemove {
			return 5 * time.Second
		}
		return 0
	}
	bubble(t, engine.FakeOptions{Delay: slow}, func(t *testing.T, l *lab) {
		backend(l)
		l.start(nil)
		settle(5 * time.Second)
		l.want("t1", v1.TaskRunning)
		l.fake.Kill("t1", 1)
		settle(time.Second)
		l.want("t1", v1.TaskFailed)
		l.swarm.change("t2", func(*v1.Task) *v1.Task {
			d := *l.swarm.tasks["t1"].Desired
			d.Attempt = 2
			return &v1.Task{Meta: v1.Meta{ID: "t2"}, Desired: &d}
		})
		settle(time.Second)
		l.swarm.remove("t1")
		settle(20 * time.Second)
		if status := l.want("t2", v1.TaskRunning); status.Err != "" {
			t.Errorf("status is %+v", status)
		}
	})
}

// TestProgrammingIsMeasured: from the stamp of each change until the network follows it, also where that fails at first.
func TestProgrammingIsMeasured(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		l.start(nil)
		settle(5 * time.Second)
		l.net.mu.Lock()
		l.net.fail, l.took, l.followed = errAway, nil, nil
		l.net.mu.Unlock()
		now := time.Now()
		l.swarm.send(v1.Assignment{Revision: 50, Peers: &v1.Peers{Gone: []string{"task2"}, Stamps: []time.Time{now.Add(-time.Second), now.Add(time.Hour)}}})
		settle(10 * time.Millisecond)
		l.net.mu.Lock()
		l.net.fail = nil
		l.net.mu.Unlock()
		settle(5 * time.Second)
		if len(l.took) != 1 || len(l.followed) != 2 || l.followed[0] != l.took[0]+time.Second || l.followed[1] != 0 || l.took[0] < batchDelay {
			t.Errorf("applied after %v, followed after %v", l.took, l.followed)
		}
	})
}

// TestNetworkIsKeptForItsLinks: the managers forget a node's network with its last task, which still has to be taken down.
func TestNetworkIsKeptForItsLinks(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		l.start(nil)
		settle(5 * time.Second)
		l.swarm.send(v1.Assignment{Revision: 50, Peers: &v1.Peers{Gone: []string{"n1", "web", "task2"}}})
		settle(time.Second)
		if c := l.net.config(); len(c.Overlays) != 1 || len(c.Overlays[0].Remote)+len(c.Overlays[0].VIPs) > 0 {
			t.Errorf("overlays are %s", asJSON(t, c.Overlays))
		}
		l.swarm.revision = 51
		l.swarm.remove("t1")
		settle(5 * time.Second)
		if c := l.net.config(); len(c.Overlays)+len(c.Tasks) > 0 || len(l.names.get().Zones) > 0 {
			t.Errorf("overlays are %s", asJSON(t, c.Overlays))
		}
	})
}

// TestTaskWaitsForItsNetwork: a task whose network no manager has told of does not start without it.
func TestTaskWaitsForItsNetwork(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		l.swarm.peers = v1.Peers{}
		l.start(nil)
		settle(5 * time.Second)
		if status := l.want("t1", v1.TaskPreparing); status.Err != "the manager has not told of network n1 yet" {
			t.Errorf("status is %+v", status)
		}
		l.swarm.send(v1.Assignment{Revision: 50, Peers: &v1.Peers{Networks: []v1.PeerNetwork{peerNetwork("n1", 4096)}}})
		settle(time.Second)
		if status := l.want("t1", v1.TaskRunning); status.Err != "" {
			t.Errorf("status is %+v", status)
		}
	})
}

// TestPeersOutliveTheAgent: with no manager in reach, an agent that is restarted, in order or not, gives the same answers.
func TestPeersOutliveTheAgent(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint("killed ", killed), func(t *testing.T) {
			bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
				backend(l)
				l.start(nil)
				settle(5 * time.Second)
				config, names := asJSON(t, l.net.config()), l.names.shown(t)
				l.swarm.leave(true)
				if killed {
					l.agent.post(func() { l.agent.crashed.Store(true); l.agent.cancel() })
				}
				l.stop()
				l.net.applied, l.names.now = netplugin.Config{}, nil
				l.start(nil)
				settle(time.Minute)
				if diff := cmp.Diff(config, asJSON(t, l.net.config())); diff != "" {
					t.Errorf("config (-before +after):\n%s", diff)
				}
				if diff := cmp.Diff(names, l.names.shown(t)); diff != "" {
					t.Errorf("names (-before +after):\n%s", diff)
				}
			})
		})
	}
}

// TestNothingIsTouchedBlindly: where what was known of others is lost and no manager can be reached, the links stay as they are.
func TestNothingIsTouchedBlindly(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		l.start(nil)
		settle(5 * time.Second)
		l.swarm.leave(true)
		l.stop()
		s, err := read(l.dir)
		if err != nil {
			t.Fatal(err)
		}
		s.Networks = nil
		if err := write(l.dir, stateName, s); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l.dir, peersName), []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		applies := l.net.applies
		l.start(nil)
		settle(time.Minute)
		if l.net.applies != applies {
			t.Errorf("applied %s", asJSON(t, l.net.config()))
		}
		l.swarm.leave(false)
		settle(time.Minute)
		if c := l.net.config(); len(c.Tasks) != 1 || len(c.Tasks[0].Networks) != 1 || len(c.Overlays) != 1 {
			t.Errorf("applied %s", asJSON(t, c))
		}
	})
}

// TestNameOfSeveral: a name that several services have leads to those whose tasks can be spoken to, and to all of them where none can.
func TestNameOfSeveral(t *testing.T) {
	service := func(id, vip string) v1.PeerService {
		return v1.PeerService{ID: id, Name: id, Networks: []v1.PeerServiceNetwork{{Network: "n1", VIPs: []string{vip}, Aliases: []string{"app"}}}}
	}
	p := newPeers("self")
	take := func(m v1.Peers) { p.take(&m, false, nil) }
	take(v1.Peers{Nodes: []v1.PeerNode{{ID: "other", Index: 2, Addr: "192.0.2.2"}}, Networks: []v1.PeerNetwork{peerNetwork("n1", 4096)},
		Services: []v1.PeerService{service("blue", "10.0.1.2"), service("green", "10.0.1.3")}})
	for _, step := range []struct {
		task, service string
		ready         bool
		app           string
	}{
		{"t1", "blue", false, "[10.0.1.2 10.0.1.3]"},
		{"t1", "blue", true, "[10.0.1.2]"},
		{"t2", "green", false, "[10.0.1.2]"},
		{"t2", "green", true, "[10.0.1.2 10.0.1.3]"},
		{"t1", "blue", false, "[10.0.1.3]"},
		{"t2", "green", false, "[10.0.1.2 10.0.1.3]"},
	} {
		take(v1.Peers{Tasks: []v1.PeerTask{peerTask(step.task, step.service, "other", step.ready, "n1", "10.0.1.1"+step.task[1:]+"/24")}})
		z := p.segment("n1").resolver(p.networks["n1"])
		for name, want := range map[string]string{"app": step.app, "blue": "[10.0.1.2]", "green": "[10.0.1.3]"} {
			if got, _ := z.Hosts.Get(name); fmt.Sprint(got) != want {
				t.Errorf("task %s of %s, ready %t: %s leads to %v, want %s", step.task, step.service, step.ready, name, got, want)
			}
		}
	}
}

// TestPeersStepByStep: any sequence of messages leads to what one message with the outcome does, and a network that nothing
// changed on is the same pointer.
func TestPeersStepByStep(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 2))
		p := newPeers("self")
		all := newPeers("self") // only its maps are used
		for range 1 + random.IntN(40) {
			before := map[string]any{}
			for id, n := range p.networks {
				before[id+" router"], before[id+" resolver"] = p.segment(id).router(n), p.segment(id).resolver(n)
			}
			m := randomPeers(random, all)
			p.take(&m, false, nil)
			if random.IntN(2) == 0 {
				p.meshPorts() // what is so now is what the next change is made on
			}
			for id, n := range p.networks {
				if strings.Contains(asJSON(t, m), `"`+id+`"`) || len(m.Gone)+len(m.Nodes) > 0 || all.moved(m, id) {
					continue
				}
				if r, z := p.segment(id).router(n), p.segment(id).resolver(n); before[id+" router"] != any(r) || before[id+" resolver"] != any(z) {
					t.Fatalf("seed %d: %s was made again though nothing changed on it: %s", seed, id, asJSON(t, m))
				}
			}
			all.take(&m, false, nil)
		}
		whole := v1.Peers{Nodes: derefs(valuesOf(all.nodes)), Networks: derefs(valuesOf(all.networks)), Services: derefs(valuesOf(all.services)),
			Tasks: derefs(valuesOf(all.tasks))}
		fresh := newPeers("self")
		fresh.take(&whole, true, nil)
		if diff := cmp.Diff(everything(t, fresh), everything(t, p)); diff != "" {
			t.Fatalf("seed %d (-fresh +step by step):\n%s", seed, diff)
		}
		p.take(&whole, true, nil) // the same once more changes nothing, and nothing at all leaves nothing
		if diff := cmp.Diff(everything(t, fresh), everything(t, p)); diff != "" {
			t.Fatalf("seed %d (-fresh +once more):\n%s", seed, diff)
		}
		p.take(new(v1.Peers), true, nil)
		if n := len(p.endpoints) + len(p.onNode) + len(p.segments) + len(p.gateways) + len(p.resting) + len(p.services) + len(p.nodes) + len(p.meshPorts()); n > 0 {
			t.Fatalf("seed %d: %d things are left: %+v", seed, n, p)
		}
	}
}

// moved tells whether a message takes somebody off a network.
func (p *peers) moved(m v1.Peers, network string) bool {
	for _, t := range m.Tasks {
		if old := p.tasks[t.ID]; old != nil && strings.Contains(fmt.Sprint(old.Networks), network) {
			return true
		}
	}
	for _, s := range m.Services {
		if old := p.services[s.ID]; old != nil && strings.Contains(fmt.Sprint(old.Networks), network) {
			return true
		}
	}
	return false
}

// everything is all that follows from peers, where every known network is in use.
func everything(t *testing.T, p *peers) string {
	out := map[string]any{"others": p.toOthers(netip.MustParsePrefix("100.64.0.0/10"))}
	for id, n := range p.networks {
		out[id] = []any{p.segment(id).router(n), plain(p.segment(id).resolver(n))}
	}
	a := New(Options{NodeID: "self"})
	a.peers = p
	out["published"] = a.published()
	return asJSON(t, out)
}

func randomPeers(random *rand.Rand, known *peers) (m v1.Peers) {
	pick := func(prefix string, n int) string { return fmt.Sprint(prefix, random.IntN(n)) }
	network := pick("n", 3)
	switch random.IntN(7) {
	case 0:
		m.Nodes = append(m.Nodes, v1.PeerNode{ID: pick("node", 3), Index: 1 + random.Uint32N(5), Addr: "192.0.2.1"})
	case 1:
		m.Networks = append(m.Networks, v1.PeerNetwork{ID: network, Name: "name-" + network, VNI: 4096 + random.Uint32N(2)})
	case 2:
		s := v1.PeerService{ID: pick("s", 3), Name: pick("name", 2)}
		n := v1.PeerServiceNetwork{Network: network, Aliases: []string{pick("alias", 2)}}
		if random.IntN(2) == 0 {
			n.VIPs = []string{"10.0.0." + s.ID[1:]} // its own, for the same reason as below
		}
		s.Networks = append(s.Networks, n)
		if random.IntN(2) == 0 {
			s.Ports = []v1.PortConfig{{Name: "http", Target: 80, Published: uint16(8080 + random.IntN(2))}}
		}
		if random.IntN(2) == 0 { // another, or the same one at some place more
			s.Ports = append(s.Ports, v1.PortConfig{Name: "http", Target: 80, Published: uint16(8080 + random.IntN(2)), HostIP: "10.0.0." + s.ID[1:]})
		}
		if random.IntN(2) == 0 {
			s.HostPorts = []v1.PortConfig{{Target: uint16(9000 + random.IntN(2)), Mode: v1.PublishHost}}
		}
		m.Services = append(m.Services, s)
	case 3:
		m.Gone = append(m.Gone, []string{pick("t", 8), pick("s", 3), pick("node", 3), pick("n", 3)}[random.IntN(4)])
	default:
		id := random.IntN(8) // each has an address of its own, for two with one would depend on which came last
		t := peerTask(fmt.Sprint("t", id), pick("s", 3), pick("node", 3), random.IntN(2) == 0, network, fmt.Sprintf("10.0.1.%d/24", id))
		if t.Gateway = fmt.Sprint("100.64.1.", id); random.IntN(3) == 0 {
			t.Networks, t.Hostname = nil, pick("host", 2)
		}
		switch random.IntN(3) {
		case 0:
			t.Ports = []v1.PortConfig{}
		case 1:
			t.Ports = []v1.PortConfig{{Target: uint16(80 + random.IntN(2)), Published: uint16(8080 + random.IntN(2))}}
		}
		m.Tasks = append(m.Tasks, t)
	}
	return m
}

// BenchmarkOneOfTenThousand changes one task of a network with 10,000, and makes what the router and the resolver are given.
func BenchmarkOneOfTenThousand(b *testing.B) {
	m := v1.Peers{Nodes: []v1.PeerNode{{ID: "other", Index: 2, Addr: "192.0.2.2"}}, Networks: []v1.PeerNetwork{peerNetwork("n1", 4096)}}
	for i := range 50 {
		m.Services = append(m.Services, v1.PeerService{ID: fmt.Sprint("s", i), Name: fmt.Sprint("name", i),
			Networks: []v1.PeerServiceNetwork{{Network: "n1", VIPs: []string{fmt.Sprint("10.1.0.", i)}, Aliases: []string{fmt.Sprint("alias", i)}}}})
	}
	for i := range 10_000 {
		t := peerTask(fmt.Sprintf("task%021d", i), fmt.Sprint("s", i%50), "other", true, "n1", fmt.Sprintf("10.0.%d.%d/16", i/250, i%250))
		t.Name = fmt.Sprintf("name%d.%d", i%50, i/50)
		m.Tasks = append(m.Tasks, t)
	}
	p := newPeers("self")
	began := time.Now()
	p.take(&m, true, nil)
	n := p.networks["n1"]
	p.segment("n1").router(n)
	p.segment("n1").resolver(n)
	b.ReportMetric(float64(time.Since(began).Microseconds()), "first-µs")
	changed := m.Tasks[4321]
	for b.Loop() {
		changed.Ready = !changed.Ready
		p.take(&v1.Peers{Tasks: []v1.PeerTask{changed}}, false, nil)
		if o := p.segment("n1").router(n); len(o.Remote) != 10_000 {
			b.Fatal(len(o.Remote))
		}
		p.segment("n1").resolver(n)
	}
}
