package agent

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// slowLinks is a network to which each new link takes a second.
type slowLinks struct {
	*network
	most int // links made by one Apply
}

func (n *slowLinks) delay(c netplugin.Config) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	made := 0
	for _, t := range c.Tasks {
		if _, there := n.links[t.ID]; !there {
			made++
		}
	}
	n.most = max(n.most, made)
	return time.Duration(made) * time.Second
}

// TestOthersDoNotWaitForLinks: while many tasks of this node get their links, what others do is followed within what a few links take, and
// however much others do, the links are made.
func TestOthersDoNotWaitForLinks(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		slow := &slowLinks{network: l.net}
		l.net.delayOf = slow.delay
		l.start(nil)
		settle(10 * time.Second)
		l.want("t1", v1.TaskRunning)
		slow.most, l.followed = 0, nil
		revision := l.swarm.tasks["t1"].Desired.Revision
		l.swarm.send(v1.Assignment{Revision: 50, Peers: &v1.Peers{Gone: []string{"none"}}})
		settle(time.Millisecond)
		l.swarm.revision = 51
		for i := range 40 {
			id := fmt.Sprint("many", i)
			l.swarm.assign(id, revision, v1.TaskRunning)
			l.swarm.on(id, v1.NetworkAddress{Network: "n1", Addresses: []string{fmt.Sprintf("10.0.1.%d/24", 100+i)}})
		}
		for i := range 600 {
			task := l.swarm.peers.Tasks[0]
			task.Gateway = fmt.Sprint("100.64.9.", 2+i%200)
			l.swarm.mu.Lock()
			revision := l.swarm.revision
			l.swarm.mu.Unlock()
			l.swarm.send(v1.Assignment{Revision: revision, Peers: &v1.Peers{Tasks: []v1.PeerTask{task}, Stamps: []time.Time{time.Now()}}})
			settle(100 * time.Millisecond)
		}
		settle(10 * time.Second)
		for i := range 40 {
			l.want(fmt.Sprint("many", i), v1.TaskRunning)
		}
		for _, took := range l.followed {
			if took > (linksAtOnce+1)*time.Second {
				t.Errorf("a change of others was followed after %s", took)
			}
		}
		if len(l.followed) != 600 || slow.most > linksAtOnce {
			t.Errorf("%d changes were followed, up to %d links were made at once", len(l.followed), slow.most)
		}
		if to := l.net.config().Published[0].Backends; to[len(to)-1] != netip.MustParseAddrPort("100.64.9.201:80") {
			t.Errorf("the port leads to %v", to)
		}
	})
}

// TestAddressesOfEndedTasks: once a task is said to have ended, its addresses are others', though its container and its link are still there: also where
// others change, and the links stay as they are for now.
func TestAddressesOfEndedTasks(t *testing.T) {
	slowly := func(op engine.FakeOp, _ string) time.Duration {
		if op == engine.FakeRemove {
			return time.Minute
		}
		return 0
	}
	bubble(t, engine.FakeOptions{Delay: slowly}, func(t *testing.T, l *lab) {
		backend(l)
		l.start(nil)
		settle(3 * time.Second)
		l.want("t1", v1.TaskRunning)
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(15 * time.Second) // the others are waited for
		l.want("t1", v1.TaskShutdown)
		late := l.swarm.peers.Services[0]
		late.ID, late.Name, late.Ports = "late", "late", nil
		late.Networks = []v1.PeerServiceNetwork{{Network: "n1", VIPs: []string{"10.0.1.5"}}}
		l.swarm.mu.Lock()
		revision := l.swarm.revision
		l.swarm.mu.Unlock()
		l.swarm.send(v1.Assignment{Revision: revision, Peers: &v1.Peers{Services: []v1.PeerService{late},
			Tasks: []v1.PeerTask{peerTask("task3", "late", "other", true, "n1", "10.0.1.10/24")}, Stamps: []time.Time{time.Now()}}})
		settle(time.Second)
		if _, there := l.net.links["t1"]; !there {
			t.Fatal("the link is gone already")
		}
		if o := l.net.config().Overlays; len(o) != 1 || !slices.ContainsFunc(o[0].VIPs, func(v netplugin.VIP) bool { return v.Address.String() == "10.0.1.5" }) {
			t.Errorf("the service has no address yet: %+v", o)
		}
	})
}

// TestSameLink: each field of a link, also one that is new, makes it another.
func TestSameLink(t *testing.T) {
	whole := func() netplugin.TaskLink {
		return netplugin.TaskLink{ID: "a", Guest: "/run/netns/a", Address: netip.MustParseAddr("100.64.1.2"), Internal: true, Administers: true,
			Networks: []netplugin.Attachment{{Overlay: "n", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}},
			Sysctls:  map[string]string{"net.ipv4.ip_forward": "1"}}
	}
	if !sameLink(whole(), whole()) {
		t.Error("a link is not the same as itself")
	}
	for field := range reflect.TypeFor[netplugin.TaskLink]().Fields() {
		other := whole()
		v := reflect.ValueOf(&other).Elem().FieldByIndex(field.Index)
		if v.IsZero() {
			t.Errorf("%s is not tried", field.Name)
		}
		v.SetZero()
		if sameLink(whole(), other) {
			t.Errorf("another %s is no other link", field.Name)
		}
	}
	for _, change := range []func(*netplugin.Attachment){
		func(at *netplugin.Attachment) { at.Overlay = "m" },
		func(at *netplugin.Attachment) { at.Addresses = slices.Repeat(at.Addresses, 2) },
	} {
		other := whole()
		change(&other.Networks[0])
		if sameLink(whole(), other) {
			t.Errorf("%v is no other link", other.Networks)
		}
	}
}
