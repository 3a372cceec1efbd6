package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// hush has these addresses, and no others, not answer.
func (n *network) hush(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mute = map[string]bool{}
	for _, a := range addresses {
		n.mute[a] = true
	}
}

// leadsTo is where the virtual address, the name tasks.web and the published port lead: the last part of the addresses.
func (l *lab) leadsTo() string {
	c := l.net.config()
	var vip, port []string
	for _, a := range c.Overlays[0].VIPs[0].Backends {
		vip = append(vip, a.String()[len("10.0.1."):])
	}
	for _, b := range c.Published[0].Backends {
		port = append(port, strings.TrimPrefix(b.Addr().String(), "100.64."))
	}
	found, _ := l.names.get().Zones["n1"].Hosts.Get("tasks.web")
	return fmt.Sprintf("vip %s, port %s, %d names", strings.Join(vip, " "), strings.Join(port, " "), len(found))
}

// TestLookout: with a session, what managers say of others counts alone; without one, others that do not answer are not led to, as long as
// there is somebody in their place.
func TestLookout(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		bystander := l.swarm.service("bystander", nil)
		l.swarm.assign("t9", bystander, v1.TaskRunning)
		l.swarm.on("t9", v1.NetworkAddress{Network: "n1", Addresses: []string{"10.0.1.7/24"}})
		l.start(nil)
		const all, own = "vip 5 9, port 7.2 9.2, 2 names", "vip 5, port 7.2, 1 names"
		wait := func(what, want string) {
			t.Helper()
			settle(3 * time.Second)
			if got := l.leadsTo(); got != want {
				t.Errorf("%s: %s; want %s", what, got, want)
			}
		}
		l.net.hush("10.0.1.9", "100.64.9.2")
		wait("with a session", all)
		if l.net.asked > 0 {
			t.Error("others are asked though there is a session")
		}
		l.swarm.leave(true)
		wait("alone", own)
		if len(l.net.config().Overlays[0].Remote) != 1 || len(l.net.config().Published[0].Draining) != 1 {
			t.Errorf("the silent task has no way any more, and its connections end: %+v", l.net.config())
		}
		l.net.hush("10.0.1.9")
		wait("alone, and one of its addresses answers", all)
		l.net.hush("10.0.1.9", "100.64.9.2")
		wait("alone again", own)
		l.swarm.leave(false)
		wait("with a session again", all)
		l.swarm.leave(true)
		wait("alone once more", own)
		l.fake.Kill("t1", 1)
		wait("alone, and the own task has ended: nobody is in the place of the other", "vip 9, port 9.2, 1 names")
	})
}

// TestAloneTaskHasNoLinkMeanwhile: a task that waits to be started again does not answer other nodes, and has its address again.
func TestAloneTaskHasNoLinkMeanwhile(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		l.start(nil)
		settle(time.Second)
		before := asJSON(t, l.net.config().Tasks)
		l.swarm.leave(true)
		settle(10 * time.Second)
		l.fake.Kill("t1", 1)
		settle(time.Second)
		if tasks := l.net.config().Tasks; len(tasks) > 0 {
			t.Errorf("links while the task waits: %+v", tasks)
		}
		settle(restartDelay)
		if got := asJSON(t, l.net.config().Tasks); got != before {
			t.Errorf("links are %s, were %s", got, before)
		}
	})
}

// TestInquiries: all are asked in turn, however many there are.
func TestInquiries(t *testing.T) {
	p := newPeers("self")
	m := v1.Peers{Tasks: []v1.PeerTask{peerTask("own", "web", "self", true, "n1", "10.0.0.1/8"), peerTask("resting", "web", "other", false, "n1", "10.0.0.2/8")}}
	const many = 2*lookoutMost + 5
	for i := range many {
		m.Tasks = append(m.Tasks, peerTask(fmt.Sprintf("t%05d", i), "web", "other", true, "n1", fmt.Sprintf("10.1.%d.%d/8", i/256, i%256)))
	}
	p.take(&m, true, nil)
	var got []string
	for last, more := "", true; more; {
		some := p.inquiries(last)
		if more = len(some) == lookoutMost; more {
			last = some[len(some)-1].task
		}
		for _, one := range some {
			got = append(got, one.task)
			if len(one.at) != 1 || one.at[0].Overlay != "n1" {
				t.Fatalf("%s is asked at %v", one.task, one.at)
			}
		}
	}
	if len(got) != many || !slices.IsSorted(got) || len(slices.Compact(got)) != many {
		t.Errorf("%d were asked, want %d", len(got), many)
	}
}

// TestSilent: who was not asked, or answered anywhere, is not silent.
func TestSilent(t *testing.T) {
	reach := func(text string) netplugin.Reach { return netplugin.Reach{Overlay: text} }
	q := inquiry{at: []netplugin.Reach{reach("a"), reach("b")}}
	for _, c := range []struct {
		answered map[netplugin.Reach]bool
		silent   bool
	}{
		{nil, false},
		{map[netplugin.Reach]bool{reach("c"): false}, false},
		{map[netplugin.Reach]bool{reach("a"): false}, true},
		{map[netplugin.Reach]bool{reach("a"): false, reach("b"): false}, true},
		{map[netplugin.Reach]bool{reach("a"): false, reach("b"): true}, false},
	} {
		if got := q.silent(c.answered); got != c.silent {
			t.Errorf("%v: silent %t", c.answered, got)
		}
	}
}
