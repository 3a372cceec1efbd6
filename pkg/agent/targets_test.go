package agent

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// TestTargetsOfTasks: while an update changes which port of its tasks a published port leads to, each task, here and elsewhere, is led to at
// the one that it was made with, whatever its service says by then.
func TestTargetsOfTasks(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		http := func(target uint16) v1.PortConfig {
			return v1.PortConfig{Published: 8080, Target: target, Protocol: v1.TCP}
		}
		udp := func(target uint16) v1.PortConfig {
			return v1.PortConfig{Published: 8080, Target: target, Protocol: v1.UDP}
		}
		elsewhere := func(n int, ready bool, ports ...v1.PortConfig) v1.PeerTask {
			p := peerTask(fmt.Sprint("far", n), "web", "other", ready, "n1", fmt.Sprintf("10.0.1.%d/24", 100+n))
			p.Gateway, p.Ports = fmt.Sprint("100.64.9.", n), ports
			return p
		}
		before, after := []v1.PortConfig{http(80), udp(53)}, []v1.PortConfig{http(81), udp(53), {Published: 8443, Target: 443}}
		backend(l)
		l.swarm.peers.Services[0].Ports = before
		l.swarm.peers.Tasks = []v1.PeerTask{elsewhere(2, true, before...), elsewhere(3, true, before...)}
		l.swarm.peers.Tasks = append(l.swarm.peers.Tasks, elsewhere(4, true)) // by a manager that does not tell
		l.swarm.assign("t1", l.swarm.service("web", published(before...)), v1.TaskRunning)
		l.start(nil)
		settle(5 * time.Second)
		l.want("t1", v1.TaskRunning)
		revision := int64(50)
		leads := func(step string, m *v1.Peers, want ...string) {
			t.Helper()
			if m != nil {
				revision++
				l.swarm.send(v1.Assignment{Revision: revision, Peers: m})
				settle(time.Second)
			}
			var got []string
			for _, p := range l.net.config().Published {
				got = append(got, fmt.Sprintf("%s/%d %v resting %v", p.Protocol, p.Port, p.Backends, p.Draining))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step, diff)
			}
		}
		services := func(ports ...v1.PortConfig) *v1.Peers {
			s := l.swarm.peers.Services[0]
			s.Ports = ports
			return &v1.Peers{Services: []v1.PeerService{s}}
		}
		tasks := func(all ...v1.PeerTask) *v1.Peers { return &v1.Peers{Tasks: all} }
		const dns = "udp/8080 [100.64.7.2:53 100.64.9.2:53 100.64.9.3:53 100.64.9.4:53] resting []"
		leads("before", nil, "tcp/8080 [100.64.7.2:80 100.64.9.2:80 100.64.9.3:80 100.64.9.4:80] resting []", dns)
		leads("the spec says 81", services(after...), "tcp/8080 [100.64.7.2:80 100.64.9.2:80 100.64.9.3:80 100.64.9.4:81] resting []", dns, "tcp/8443 [100.64.9.4:443] resting []")
		leads("a new one starts", tasks(elsewhere(5, false, after...)), "tcp/8080 [100.64.7.2:80 100.64.9.2:80 100.64.9.3:80 100.64.9.4:81] resting [100.64.9.5:81]",
			dns[:len(dns)-2]+"[100.64.9.5:53]", "tcp/8443 [100.64.9.4:443] resting [100.64.9.5:443]")
		leads("it is ready, an old one rests", &v1.Peers{Tasks: []v1.PeerTask{elsewhere(5, true, after...), elsewhere(2, false, before...)}, Gone: []string{"far4"}},
			"tcp/8080 [100.64.7.2:80 100.64.9.3:80 100.64.9.5:81] resting [100.64.9.2:80]", "udp/8080 [100.64.7.2:53 100.64.9.3:53 100.64.9.5:53] resting [100.64.9.2:53]",
			"tcp/8443 [100.64.9.5:443] resting []")

		// The daemon is killed there, and finds it all again without a manager.
		settle(5 * time.Second)
		rolling := asJSON(t, l.net.config().Published)
		l.swarm.leave(true)
		l.agent.post(func() { l.agent.crashed.Store(true); l.agent.cancel() })
		l.stop()
		l.start(nil)
		settle(time.Minute)
		if diff := cmp.Diff(rolling, asJSON(t, l.net.config().Published)); diff != "" {
			t.Errorf("after a restart (-before +after):\n%s", diff)
		}
		l.swarm.peers.Services, l.swarm.peers.Tasks = services(before...).Services, tasks(elsewhere(3, true, before...), elsewhere(5, true, after...)).Tasks
		l.swarm.leave(false)
		settle(time.Minute)
		leads("it goes back", nil, "tcp/8080 [100.64.7.2:80 100.64.9.3:80 100.64.9.5:81] resting []", "udp/8080 [100.64.7.2:53 100.64.9.3:53 100.64.9.5:53] resting []")
		leads("the port is taken away", services(udp(53)), "udp/8080 [100.64.7.2:53 100.64.9.3:53 100.64.9.5:53] resting []")
		leads("a task is made without it", tasks(elsewhere(6, true, udp(53))), "udp/8080 [100.64.7.2:53 100.64.9.3:53 100.64.9.5:53 100.64.9.6:53] resting []")
		leads("and it is there again, at another", services(http(82), udp(53)), "tcp/8080 [100.64.7.2:80 100.64.9.3:80 100.64.9.5:81] resting []",
			"udp/8080 [100.64.7.2:53 100.64.9.3:53 100.64.9.5:53 100.64.9.6:53] resting []")

		// It is removed, and another one has its port by then: tasks of both are known for a moment.
		resting := tasks(elsewhere(3, false, before...), elsewhere(5, false, after...))
		resting.Services = []v1.PeerService{{ID: "web", Ports: before}}
		resting.Gone = []string{"far6"}
		leads("it is being removed", resting, "tcp/8080 [100.64.7.2:80] resting [100.64.9.3:80 100.64.9.5:81]", "udp/8080 [100.64.7.2:53] resting [100.64.9.3:53 100.64.9.5:53]")
		for i, id := range []string{"a web", "xweb"} {
			next := elsewhere(7+i, true, http(90))
			next.Service = id
			rests := elsewhere(9+i, false, http(90))
			rests.Service = id
			leads(id+" has its port", &v1.Peers{Services: []v1.PeerService{{ID: id, Name: id, Ports: []v1.PortConfig{http(90)}}}, Tasks: []v1.PeerTask{next, rests}},
				fmt.Sprintf("tcp/8080 [100.64.7.2:80 %s:90] resting [100.64.9.3:80 100.64.9.5:81 %s:90]", next.Gateway, rests.Gateway),
				"udp/8080 [100.64.7.2:53] resting [100.64.9.3:53 100.64.9.5:53]")
			leads(id+" goes", &v1.Peers{Gone: []string{id, next.ID, rests.ID}}, "tcp/8080 [100.64.7.2:80] resting [100.64.9.3:80 100.64.9.5:81]",
				"udp/8080 [100.64.7.2:53] resting [100.64.9.3:53 100.64.9.5:53]")
		}
	})
}

// TestBackendsStayTheSame: as long as nothing changes of who is behind a port the list is the same one, also where its tasks are led to at
// several ports, and tasks that have gone leave nothing.
func TestBackendsStayTheSame(t *testing.T) {
	p := newPeers("self")
	port := v1.PortConfig{Published: 8080, Target: 81}
	made := func(id string, target uint16) v1.PeerTask {
		return v1.PeerTask{ID: id, Service: "web", Node: "other", Ready: true, Gateway: "100.64.9." + id, Ports: []v1.PortConfig{{Published: 8080, Target: target}}}
	}
	web := v1.PeerService{ID: "web", Ports: []v1.PortConfig{port}}
	p.take(&v1.Peers{Services: []v1.PeerService{web}, Tasks: []v1.PeerTask{made("3", 80), made("2", 81), made("4", 80)}}, true, nil)
	list := func() []string {
		t.Helper()
		one := p.meshPorts()[0].ready
		for name, change := range map[string]v1.Peers{
			"nothing":        {},
			"a task":         {Tasks: []v1.PeerTask{{ID: "of another", Service: "db", Node: "other", Ready: true, Gateway: "100.64.9.77"}}},
			"what has ports": {Services: []v1.PeerService{{ID: "db", Ports: []v1.PortConfig{{Published: 9000, Target: 9000}}}}},
			"what is gone":   {Gone: []string{"db", "of another"}},
		} {
			p.take(&change, false, nil)
			if again := p.meshPorts()[0].ready; len(one) != len(again) || &one[0] != &again[0] {
				t.Errorf("%v was made again after %s", one, name)
			}
		}
		p.take(&v1.Peers{Gone: []string{"db", "of another"}}, false, nil)
		var text []string
		for _, to := range one {
			text = append(text, to.String())
		}
		return text
	}
	if got := list(); !slices.Equal(got, []string{"100.64.9.2:81", "100.64.9.3:80", "100.64.9.4:80"}) {
		t.Errorf("backends are %v", got)
	}
	p.take(&v1.Peers{Tasks: []v1.PeerTask{made("3", 81)}, Gone: []string{"4"}}, false, nil)
	if got := list(); !slices.Equal(got, []string{"100.64.9.2:81", "100.64.9.3:81"}) || len(p.gateways["web"]) != 1 {
		t.Errorf("backends are %v, of %d kinds", got, len(p.gateways["web"]))
	}
}
