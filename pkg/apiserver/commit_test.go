package apiserver

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// lagging is a manager's view of a store, that is behind by a time.
type lagging struct {
	*store.Memory
	lag  time.Duration
	stop context.CancelFunc

	mu      sync.Mutex
	view    *store.Snapshot
	changed chan struct{}
}

func newLagging(t *testing.T, st *store.Memory, lag time.Duration) *lagging {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	view, err := st.Snapshot(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := &lagging{Memory: st, lag: lag, stop: cancel, view: view, changed: make(chan struct{})}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		for _, err := range st.Watch(ctx, view.Revision()) {
			if err != nil {
				return
			}
			if s, err := st.Snapshot(ctx, 0); err == nil {
				time.AfterFunc(lag, func() { l.show(s) })
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-followed })
	return l
}

func (l *lagging) show(s *store.Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.Revision() > l.view.Revision() {
		l.view = s
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// Snapshot implements store.Store.
func (l *lagging) Snapshot(ctx context.Context, atLeast int64) (*store.Snapshot, error) {
	for {
		l.mu.Lock()
		view, changed := l.view, l.changed
		l.mu.Unlock()
		if view.Revision() >= atLeast {
			return view, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Watch implements store.Store.
func (l *lagging) Watch(ctx context.Context, after int64) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		for batch, err := range l.Memory.Watch(ctx, after) {
			if err == nil {
				_, err = l.Snapshot(ctx, batch.Revision)
			}
			if !yield(batch, err) || err != nil {
				return
			}
		}
	}
}

// several are the backends of several managers over one store: the first sees everything at once, the others later.
func several(t *testing.T, st *store.Memory, n int) []*backend {
	t.Helper()
	var all []*backend
	for i := range n {
		s := New(Options{})
		var view store.Store = st
		if i > 0 {
			view = newLagging(t, st, time.Duration(i)*5*time.Millisecond)
		}
		s.Attach(view, Backing{Node: fmt.Sprint("m", i)})
		t.Cleanup(s.Close)
		all = append(all, s.current.Load())
	}
	return all
}

// createService creates a service at a server, as the door does.
func createService(ctx context.Context, b *backend, service *v1.Service) error {
	v1.Default(service)
	_, _, err := b.write(ctx, v1.KindService, false, func(s *store.Snapshot) (change, error) {
		return b.server.creation(s, v1.Services, service, service.Meta.ID)
	})
	return err
}

func publishing(name string, port uint16) *v1.Service {
	return &v1.Service{Meta: v1.Meta{ID: v1.NewID(), Name: name}, Spec: &v1.ServiceSpec{
		Task:     v1.TaskSpec{Container: v1.ContainerSpec{Image: "nginx:1.27"}},
		Endpoint: &v1.EndpointSpec{Ports: []v1.PortConfig{{Protocol: v1.TCP, Target: 80, Published: port}}}}}
}

// atOnce runs all at the same time, more or less, and returns their errors.
func atOnce(do ...func() error) []error {
	errs := make([]error, len(do))
	var wg sync.WaitGroup
	for i := range do {
		wg.Go(func() {
			time.Sleep(rand.N(2 * time.Millisecond))
			errs[i] = do[i]()
		})
	}
	wg.Wait()
	return errs
}

func wantOne(t *testing.T, errs []error, detail string) {
	t.Helper()
	done := 0
	for _, err := range errs {
		if err == nil {
			done++
		} else if !strings.Contains(err.Error(), detail) {
			t.Errorf("refused with %v, want %q", err, detail)
		}
	}
	if done != 1 {
		t.Errorf("%d of %d were done: %v", done, len(errs), errs)
	}
}

// TestOnePortOneService creates services with the same published port at several servers at the same time: one of them wins, and
// the others are told why.
func TestOnePortOneService(t *testing.T) {
	st := store.NewMemory()
	defer st.Close()
	managers := several(t, st, 3)
	for round := range 40 {
		port := uint16(10_000 + round)
		var do []func() error
		for i, b := range managers {
			do = append(do, func() error {
				return createService(t.Context(), b, publishing(fmt.Sprintf("web%d-%d", round, i), port))
			})
		}
		wantOne(t, atOnce(do...), "is already in use by service")
	}
}

// TestSecretOrService removes a secret at one server while another creates a service that needs it: never both.
func TestSecretOrService(t *testing.T) {
	st := store.NewMemory()
	defer st.Close()
	managers := several(t, st, 2)
	for round := range 40 {
		secret := &v1.Secret{Meta: v1.Meta{ID: v1.NewID(), Name: fmt.Sprint("key", round)}, Spec: &v1.SecretSpec{Data: []byte("x")}}
		if _, _, err := managers[round%2].write(t.Context(), v1.KindSecret, false, func(s *store.Snapshot) (change, error) {
			return managers[0].server.creation(s, v1.Secrets, secret, secret.Meta.ID)
		}); err != nil {
			t.Fatal(err)
		}
		create := func() error {
			service := publishing(fmt.Sprint("web", round), 0)
			service.Spec.Endpoint = nil
			service.Spec.Task.Container.Secrets = []v1.FileReference{{Source: secret.Meta.Name}}
			return createService(t.Context(), managers[round%2], service)
		}
		remove := func() error {
			b := managers[1-round%2]
			_, _, err := b.write(t.Context(), v1.KindSecret, false, func(s *store.Snapshot) (change, error) {
				obj, err := s.Resolve(v1.KindSecret, secret.Meta.Name)
				if err != nil {
					return change{}, err
				}
				if err := checkUnused(s, obj, false); err != nil {
					return change{}, err
				}
				return b.server.removal(s, v1.Secrets, obj), nil
			})
			return err
		}
		wantOne(t, atOnce(create, remove), "secret")
	}
}

// elected is a cluster of voters, who are all there but those that are dead.
type elected struct {
	Membership
	voters []Voter
}

// Voters implements Membership.
func (e *elected) Voters(context.Context) ([]Voter, error) { return e.voters, nil }

// TestQuorumOfFour demotes two of the three that are there of four managers, each at another server: one of them stays, for of the other two
// one is dead.
func TestQuorumOfFour(t *testing.T) {
	st := store.NewMemory()
	defer st.Close()
	servers := several(t, st, 2)
	for round := range 20 {
		var ops []store.Op
		var voters []Voter
		for i := range 4 { // of which the last is dead
			id := fmt.Sprintf("node%d-%d", round, i)
			voters = append(voters, Voter{Node: id, Reachable: i < 3})
			ops = append(ops, store.Op{Kind: v1.KindNode, ID: id, If: store.Absent(), Meta: &v1.Meta{}, Value: &v1.NodeSpec{Role: v1.RoleManager, Index: uint32(4*round + i + 1)}})
		}
		revision, err := st.Commit(t.Context(), store.Commit{Ops: ops})
		if err != nil {
			t.Fatal(err)
		}
		var do []func() error
		for i, b := range servers {
			b.backing.Members = &elected{voters: voters}
			if _, err := b.store.Snapshot(t.Context(), revision); err != nil {
				t.Fatal(err)
			}
			do = append(do, func() error { return demote(t, b, voters[i].Node) })
		}
		wantOne(t, atOnce(do...), "lose quorum")
	}
}

// demote makes a manager a worker, as a server does.
func demote(t *testing.T, b *backend, id string) error {
	_, _, err := b.write(t.Context(), v1.KindNode, false, func(s *store.Snapshot) (change, error) {
		n, ok := store.Get(s, v1.Nodes, id)
		if !ok {
			return change{}, errors.New("no such node")
		}
		if err := b.demotable(t.Context(), s, n); err != nil {
			return change{}, err
		}
		spec := *n.Spec
		spec.Role = v1.RoleWorker
		return change{id: id, ops: []store.Op{{Kind: v1.KindNode, ID: id, Value: &spec, If: store.AtRevision(n.Meta.Revisions[v1.SectionSpec])}}}, nil
	})
	return err
}

// TestLastManagerOfTwo demotes both managers, each at another server: one stays.
func TestLastManagerOfTwo(t *testing.T) {
	st := store.NewMemory()
	defer st.Close()
	managers := several(t, st, 2)
	for round := range 20 {
		var ids []string
		var ops []store.Op
		for i := range 2 {
			ids = append(ids, fmt.Sprintf("node%d-%d", round, i))
			ops = append(ops, store.Op{Kind: v1.KindNode, ID: ids[i], If: store.Absent(), Meta: &v1.Meta{},
				Value: &v1.NodeSpec{Role: v1.RoleManager, Index: uint32(2*round + i + 1)}})
		}
		revision, err := st.Commit(t.Context(), store.Commit{Ops: ops})
		if err != nil {
			t.Fatal(err)
		}
		var do []func() error
		for i, b := range managers {
			if _, err := b.store.Snapshot(t.Context(), revision); err != nil {
				t.Fatal(err)
			}
			do = append(do, func() error { return demote(t, b, ids[i]) })
		}
		wantOne(t, atOnce(do...), "last manager")
		ops = nil
		for _, id := range ids {
			ops = append(ops, store.Op{Kind: v1.KindNode, ID: id, If: store.Exists()})
		}
		if _, err := st.Commit(t.Context(), store.Commit{Ops: ops}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestManyWriters: what many clients write at several servers at the same time is all done, and each index is given once.
func TestManyWriters(t *testing.T) {
	st := store.NewMemory()
	defer st.Close()
	managers := several(t, st, 3)
	var do []func() error
	for i := range 150 {
		b := managers[i%3]
		do = append(do, func() error {
			return createService(t.Context(), b, publishing(fmt.Sprint("web", i), uint16(20_000+i)))
		}, func() error {
			_, _, err := b.write(t.Context(), v1.KindNode, false, func(s *store.Snapshot) (change, error) {
				return b.join(s, &v1.Node{Meta: v1.Meta{ID: fmt.Sprint("node", i)}, Spec: &v1.NodeSpec{}})
			})
			return err
		})
	}
	if err := errors.Join(atOnce(do...)...); err != nil {
		t.Fatal(err)
	}
	s, _ := st.Snapshot(t.Context(), 0)
	seen := map[uint32]bool{}
	for n := range store.All(s, v1.Nodes) {
		if seen[n.Spec.Index] || n.Spec.Index > 150 {
			t.Errorf("index %d is given twice, or leaves a gap", n.Spec.Index)
		}
		seen[n.Spec.Index] = true
	}
	if len(seen) != 150 || s.Count(v1.KindService) != 150 {
		t.Errorf("%d nodes, %d services", len(seen), s.Count(v1.KindService))
	}
}

// TestIndexIsFreeAgainEverywhere: an index that was freed at one server is given again at another.
func TestIndexIsFreeAgainEverywhere(t *testing.T) {
	st := store.NewMemory()
	defer st.Close()
	managers := several(t, st, 2)
	for round := range 100 {
		b := managers[round%2]
		id := fmt.Sprint("node", round)
		made, _, err := b.write(t.Context(), v1.KindNode, false, func(s *store.Snapshot) (change, error) {
			return b.join(s, &v1.Node{Meta: v1.Meta{ID: id}, Spec: &v1.NodeSpec{}})
		})
		if err != nil {
			t.Fatal(err)
		}
		if index := made.(*v1.Node).Spec.Index; index > 4 { // the watch may be a moment behind
			t.Fatalf("in round %d the index is %d", round, index)
		}
		other := managers[1-round%2]
		if _, _, err := other.write(t.Context(), v1.KindNode, false, func(s *store.Snapshot) (change, error) {
			n, ok := store.Get(s, v1.Nodes, id)
			if !ok {
				return change{}, &store.NotFoundError{Kind: v1.KindNode, Ref: id}
			}
			return other.server.removal(s, v1.Nodes, n), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRefusedOnWhatIsSo: a server that is behind does not refuse what another one has made possible, nor call done what is not.
func TestRefusedOnWhatIsSo(t *testing.T) {
	st := store.NewMemory()
	defer st.Close()
	managers := several(t, st, 2)
	behind := managers[1]
	service := publishing("web", 80)
	if err := createService(t.Context(), managers[0], service); err != nil {
		t.Fatal(err)
	}
	if obj, err := behind.resolve(t.Context(), v1.KindService, "web"); err != nil || obj.GetMeta().ID != service.Meta.ID {
		t.Errorf("a service of a moment ago: %v", err)
	}
	if _, err := st.Commit(t.Context(), store.Commit{Ops: []store.Op{
		{Kind: v1.KindService, ID: service.Meta.ID, If: store.Exists()},
		{Kind: v1.KindClaim, ID: v1.NameClaim(v1.KindService, "web"), If: store.Exists()}}}); err != nil {
		t.Fatal(err)
	}
	if err := createService(t.Context(), behind, publishing("web", 80)); err != nil {
		t.Errorf("name and port were free again: %v", err)
	}
}

// TestReportBeforeTheServerKnows: a report of a task that this server has not seen yet waits for it.
func TestReportBeforeTheServerKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := store.NewMemory()
		defer st.Close()
		b := several(t, st, 2)[1]
		revision, err := st.Commit(t.Context(), store.Commit{Ops: []store.Op{{Kind: v1.KindNode, ID: "n", Value: &v1.NodeSpec{Index: 1}, Meta: &v1.Meta{}, If: store.Absent()}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.caughtUp(t.Context(), revision); err != nil {
			t.Fatal(err)
		}
		if s, _ := b.store.Snapshot(t.Context(), 0); s.Revision() < revision {
			t.Errorf("judged at revision %d", s.Revision())
		}
		var p *v1.Problem
		if err := b.caughtUp(t.Context(), revision+100); !errors.As(err, &p) || p.Status != 503 {
			t.Errorf("a revision that never comes: %v", err)
		}
	})
}
