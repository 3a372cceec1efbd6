package apiserver_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"

	nodeagent "github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/store"
)

// losses are the nodes that had no Presence at some time.
func (c *cluster) losses() func() []string {
	ctx, cancel := context.WithCancel(c.ctx)
	var mu sync.Mutex
	var lost []string
	done := make(chan struct{})
	from := c.snapshot().Revision()
	go func() {
		defer close(done)
		for batch, err := range c.store.Watch(ctx, from) {
			if err != nil {
				return
			}
			for _, change := range batch.Changes {
				if change.Kind == v1.KindPresence && change.New == nil {
					mu.Lock()
					lost = append(lost, change.ID)
					mu.Unlock()
				}
			}
		}
	}()
	c.Cleanup(func() { cancel(); <-done })
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(lost)
	}
}

// TestAgentOutlivesItsManager has a real agent lose the manager that holds its session: it goes on with the other one, its task is
// never touched, and what it reports arrives. Then the agent itself is restarted.
func TestAgentOutlivesItsManager(t *testing.T) {
	c := form(t)
	m2 := c.another()
	c.commit(revisionOp("r1"), taskOp("a", "s", "w1", "r1", 1))
	chain, key := c.certify("w1", ca.RoleWorker)
	identity, err := ca.NewIdentity(chain, key, c.cert)
	if err != nil {
		t.Fatal(err)
	}
	manager, err := client.Dial(client.Options{Hosts: []string{m2.addr, c.addr}, TLS: identity.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	lost := c.losses()
	engine := runtime.NewFake(runtime.FakeOptions{})
	dir := t.TempDir()
	start := func() (stop func()) {
		ctx, cancel := context.WithCancel(c.ctx)
		done := make(chan struct{})
		a := nodeagent.New(nodeagent.Options{NodeID: "w1", Dir: dir, Runtime: engine, Manager: manager.Node("w1"), Log: slog.New(slog.DiscardHandler),
			Told: func(n v1.SwarmNews) {
				var hosts []string
				for _, p := range n.Managers {
					hosts = append(hosts, p.Addr)
				}
				manager.SetHosts(hosts)
			}})
		go func() {
			defer close(done)
			if err := a.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		return sync.OnceFunc(func() { cancel(); <-done })
	}
	stop := start()
	defer func() { stop() }()
	heldBy := func(id string) func(*store.Snapshot) bool {
		return func(s *store.Snapshot) bool {
			p, ok := store.Get(s, v1.Presences, "w1")
			return ok && p.Status.Manager == id
		}
	}
	stateOf := func(id string, state v1.TaskState) func(*store.Snapshot) bool {
		return func(s *store.Snapshot) bool {
			task, ok := store.Get(s, v1.Tasks, id)
			return ok && v1.Observed(task) == state
		}
	}
	c.until("the session is at m2", heldBy("m2"))
	c.until("the task runs", stateOf("a", v1.TaskRunning))
	m2.stop()
	c.until("the session is at m1", heldBy("m1"))
	c.commit(taskOp("b", "s", "w1", "r1", 2))
	c.until("another task runs", stateOf("b", v1.TaskRunning))

	session := func() string {
		p, ok := store.Get(c.snapshot(), v1.Presences, "w1")
		if !ok {
			return ""
		}
		return p.Status.Session
	}
	before := session()
	stop() // as for an upgrade
	engine.Kill("b", 5)
	stop = start()
	c.until("there is a new session", func(*store.Snapshot) bool { return session() != before })
	c.until("what happened meanwhile is told", stateOf("b", v1.TaskFailed))
	if got := lost(); got != nil {
		t.Errorf("lost: %v", got)
	}
	if n := engine.Calls(runtime.FakeStart); n != 2 {
		t.Errorf("%d containers were started", n)
	}
}

func revisionOp(id string) store.Op {
	return store.Op{Kind: v1.KindServiceRevision, ID: id, If: store.Absent(), Meta: &v1.Meta{}, Value: &v1.ServiceRevisionSpec{
		Service: "s", Number: 1, Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "nginx:1.27"}}}}
}
