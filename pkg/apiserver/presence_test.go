package apiserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/store"
)

// pipes is a listener in memory, for tests in which time stands still while anybody works.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

// Accept implements net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// Addr implements net.Listener.
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, errors.New("nobody listens")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// manager is one API server in a bubble.
type manager struct {
	*testing.T
	server *apiserver.Server
	http   *http.Client
	close  func()
}

// startManager starts a server whose node has the ID.
func startManager(t *testing.T, id string, st store.Store) *manager {
	m := &manager{T: t, server: apiserver.New(apiserver.Options{Log: slog.New(slog.DiscardHandler)})}
	m.server.Attach(st, apiserver.Backing{Node: id})
	listener := newPipes()
	server := apiserver.NewHTTPServer(m.server.Handler(), slog.New(slog.DiscardHandler))
	go server.Serve(listener)
	transport := &http.Transport{DialContext: listener.dial}
	m.http = &http.Client{Transport: transport}
	m.close = sync.OnceFunc(func() {
		m.server.Close()
		transport.CloseIdleConnections()
		server.Close()
	})
	return m
}

// raw is a session by hand.
type raw struct {
	*testing.T
	up     *io.PipeWriter
	code   int
	cancel context.CancelFunc // breaks the connection
	ended  chan struct{}

	mu      sync.Mutex
	news    []v1.SwarmNews
	first   v1.Assignment
	answers int
	problem *v1.Problem
}

// open opens a session, and takes what comes down until it ends.
func (m *manager) open(node, first string) *raw {
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	s := &raw{T: m.T, up: w, cancel: cancel, ended: make(chan struct{})}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://swarmd/v1/nodes/"+node+"/session", io.MultiReader(strings.NewReader(first+"\n"), r))
	if err != nil {
		m.Fatal(err)
	}
	resp, err := m.http.Do(req)
	if err != nil {
		m.Fatal(err)
	}
	s.code = resp.StatusCode
	go s.read(resp.Body)
	synctest.Wait()
	return s
}

const described = `{"description":{"hostname":"host1"}}`

func (s *raw) read(body io.ReadCloser) {
	defer close(s.ended)
	defer s.up.Close()
	defer body.Close()
	for lines := bufio.NewReader(body); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		s.take(line)
	}
}

func (s *raw) take(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var m struct {
		v1.Assignment
		Problem *v1.Problem
		Detail  string
	}
	if len(line) == 1 {
		s.answers++
		return
	}
	if err := json.Unmarshal(line, &m); err != nil {
		s.Errorf("line %q: %v", line, err)
	}
	if s.problem = m.Problem; s.code != http.StatusOK {
		s.problem = &v1.Problem{Status: s.code, Detail: m.Detail}
	}
	if m.Complete {
		s.first = m.Assignment
	}
	if m.Swarm != nil {
		s.news = append(s.news, *m.Swarm)
	}
}

// beat sends heartbeats for a time, one a period, and checks that each is answered.
func (s *raw) beat(period, during time.Duration) {
	s.Helper()
	for range int(during / period) {
		time.Sleep(period)
		before := s.answered()
		if _, err := s.up.Write([]byte{'\n'}); err != nil {
			return
		}
		synctest.Wait()
		if got := s.answered(); got != before+1 {
			s.Errorf("a heartbeat was answered %d times", got-before)
		}
	}
}

func (s *raw) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}

func (s *raw) over() bool {
	synctest.Wait()
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// wantProblem checks that the session has ended with a problem.
func (s *raw) wantProblem(status int, detail string) {
	s.Helper()
	if !s.over() {
		s.Fatal("the session goes on")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem == nil || s.problem.Status != status || !strings.Contains(s.problem.Detail, detail) {
		s.Errorf("the session ended with %+v, want %d %q", s.problem, status, detail)
	}
}

// presence is what the store shows of a node.
func presence(t *testing.T, st store.Store, node string) *v1.PresenceStatus {
	t.Helper()
	synctest.Wait()
	s, err := st.Snapshot(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := store.Get(s, v1.Presences, node); ok {
		return p.Status
	}
	return nil
}

// swarmOf makes a store with nodes node1 to nodeN.
func swarmOf(t *testing.T, nodes int) *store.Memory {
	t.Helper()
	st := store.NewMemory()
	addNodes(t, st, 1, nodes)
	return st
}

func addNodes(t *testing.T, st store.Store, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if _, err := st.Commit(t.Context(), store.Commit{Ops: []store.Op{nodeOp(fmt.Sprintf("node%d", i), uint32(i))}}); err != nil {
			t.Fatal(err)
		}
	}
}

// inBubble runs a test with a store of one node and one server.
func inBubble(t *testing.T, test func(t *testing.T, st *store.Memory, m *manager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		st := swarmOf(t, 1)
		m := startManager(t, "m1", st)
		defer st.Close()
		defer m.close()
		test(t, st, m)
	})
}

func TestPresenceLastsAsLongAsHeartbeats(t *testing.T) {
	inBubble(t, func(t *testing.T, st *store.Memory, m *manager) {
		s := m.open("node1", described)
		p := presence(t, st, "node1")
		if p == nil || p.Manager != "m1" || len(p.Session) < 20 || !p.Since.Equal(time.Now()) {
			t.Fatalf("presence %+v", p)
		}
		if news := s.news; len(news) != 1 || time.Duration(news[0].Heartbeat) != time.Second || s.first.Swarm == nil {
			t.Errorf("news at the beginning: %+v", news)
		}
		snapshot, _ := st.Snapshot(t.Context(), 0)
		n, _ := store.Get(snapshot, v1.Nodes, "node1")
		if n.Status.State != v1.NodeReady || n.Status.Description.Hostname != "host1" {
			t.Errorf("status %+v", n.Status)
		}
		at := snapshot.Revision()
		s.beat(time.Second, 10*time.Minute)
		if now := presence(t, st, "node1"); now == nil || *now != *p || s.over() {
			t.Fatalf("after ten minutes: %+v", now)
		}
		if snapshot, _ = st.Snapshot(t.Context(), 0); snapshot.Revision() != at {
			t.Errorf("heartbeats wrote: revision %d, was %d", snapshot.Revision(), at)
		}
		time.Sleep(2900 * time.Millisecond) // silence: the cable was pulled
		if presence(t, st, "node1") == nil {
			t.Error("taken for lost too early")
		}
		time.Sleep(200 * time.Millisecond)
		if presence(t, st, "node1") != nil {
			t.Error("still there after 3 s of silence")
		}
		s.wantProblem(http.StatusRequestTimeout, "heartbeats")
	})
}

func TestHowASessionEnds(t *testing.T) {
	for name, c := range map[string]struct {
		end           func(s *raw)
		there, gone   time.Duration
		statusProblem int
		startup       string
	}{
		"killed":     {end: func(s *raw) { s.cancel() }, there: 650 * time.Millisecond, gone: 750 * time.Millisecond},
		"quick":      {end: func(s *raw) { s.cancel() }, there: 650 * time.Millisecond, gone: 750 * time.Millisecond, startup: "300ms"},
		"slow":       {end: func(s *raw) { s.cancel() }, there: 1950 * time.Millisecond, gone: 2050 * time.Millisecond, startup: "1s"},
		"very slow":  {end: func(s *raw) { s.cancel() }, there: 2900 * time.Millisecond, gone: 3050 * time.Millisecond, startup: "1m0s"},
		"for ever":   {end: func(s *raw) { s.cancel() }, there: 650 * time.Millisecond, gone: 750 * time.Millisecond, startup: "2562047h0m0s"},
		"before":     {end: func(s *raw) { s.cancel() }, there: 650 * time.Millisecond, gone: 750 * time.Millisecond, startup: "-1m0s"},
		"in order":   {end: func(s *raw) { s.up.Close() }, there: 14900 * time.Millisecond, gone: 15100 * time.Millisecond},
		"leaving":    {end: func(s *raw) { s.up.Write([]byte(`{"leaving":true}` + "\n")) }, there: -1, gone: 0, statusProblem: http.StatusGone},
		"nonsense":   {end: func(s *raw) { s.up.Write([]byte("hello\n")) }, there: 650 * time.Millisecond, gone: 750 * time.Millisecond, statusProblem: http.StatusBadRequest},
		"half line":  {end: func(s *raw) { s.up.Write([]byte(`{"lea`)); s.up.Close() }, there: 650 * time.Millisecond, gone: 750 * time.Millisecond},
		"endless":    {end: func(s *raw) { s.up.Write(make([]byte, 1<<20)) }, there: 650 * time.Millisecond, gone: 750 * time.Millisecond, statusProblem: http.StatusRequestEntityTooLarge},
		"says twice": {end: func(s *raw) { s.up.Write([]byte(`{"leaving":true,"leaving":false}` + "\n")) }, there: 650 * time.Millisecond, gone: 750 * time.Millisecond, statusProblem: http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, st *store.Memory, m *manager) {
				first := described
				if c.startup != "" {
					first = fmt.Sprintf(`{"description":{"hostname":"host1"},"startup":%q}`, c.startup)
				}
				s := m.open("node1", first)
				began := time.Now()
				c.end(s)
				if c.there > 0 {
					time.Sleep(c.there)
					if presence(t, st, "node1") == nil {
						t.Errorf("gone after %s", c.there)
					}
				}
				time.Sleep(c.gone - time.Since(began))
				if presence(t, st, "node1") != nil {
					t.Errorf("still there after %s", c.gone)
				}
				if !s.over() {
					t.Error("the session goes on")
				}
				if c.statusProblem != 0 {
					s.wantProblem(c.statusProblem, "")
				}
			})
		})
	}
}

// TestBackAfterAnElection: where the managers have no leader when a node's connection breaks, the node has a while from when there is
// one, and no longer.
func TestBackAfterAnElection(t *testing.T) {
	for name, back := range map[string]bool{"back": true, "lost": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := &stuck{Memory: swarmOf(t, 1)}
				m := startManager(t, "m1", st)
				defer st.Close()
				defer m.close()
				lost := watchForLoss(t, st)
				st.loseWith(m.open("node1", described))
				time.Sleep(1200 * time.Millisecond)
				st.off.Store(false)
				time.Sleep(400 * time.Millisecond)
				if lost.Load() != 0 {
					t.Fatal("the node is missed before it could come back")
				}
				if back {
					m.open("node1", described).beat(time.Second, 10*time.Second)
				}
				time.Sleep(600 * time.Millisecond)
				if missed := lost.Load() != 0; missed == back {
					t.Errorf("the node is missed: %v", missed)
				}
			})
		})
	}
}

// loseWith breaks a session at the moment at which the leader is lost.
func (s *stuck) loseWith(r *raw) {
	r.beat(time.Second, 3*time.Second)
	s.off.Store(true)
	r.cancel()
}

// TestBackInTime: a node whose agent was killed, or restarted, and is back soon enough was never away.
func TestBackInTime(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(s *raw)
		away time.Duration
	}{
		"killed":   {func(s *raw) { s.cancel() }, 600 * time.Millisecond},
		"in order": {func(s *raw) { s.up.Close() }, 9 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, st *store.Memory, m *manager) {
				lost := watchForLoss(t, st)
				first := m.open("node1", described)
				c.end(first)
				time.Sleep(c.away)
				second := m.open("node1", described)
				second.beat(time.Second, 30*time.Second)
				if n := lost.Load(); n != 0 || second.over() {
					t.Errorf("the node was lost %d times", n)
				}
			})
		})
	}
}

// watchForLoss counts the times that a node has no Presence any more.
func watchForLoss(t *testing.T, st store.Store) *atomic.Int32 {
	n := new(atomic.Int32)
	go func() {
		for batch, err := range st.Watch(context.Background(), 1) {
			if err != nil {
				return
			}
			for _, c := range batch.Changes {
				if c.Kind == v1.KindPresence && c.New == nil {
					n.Add(1)
				}
			}
		}
	}()
	synctest.Wait()
	return n
}

// TestSessionMovesToAnotherManager: the older session ends when its manager sees the newer, and takes nothing along.
func TestSessionMovesToAnotherManager(t *testing.T) {
	inBubble(t, func(t *testing.T, st *store.Memory, m1 *manager) {
		m2 := startManager(t, "m2", st)
		defer m2.close()
		lost := watchForLoss(t, st)
		old := m1.open("node1", described)
		young := m2.open("node1", described)
		old.wantProblem(http.StatusConflict, "a newer session")
		if p := presence(t, st, "node1"); p == nil || p.Manager != "m2" {
			t.Errorf("presence %+v", p)
		}
		young.beat(time.Second, 20*time.Second)
		again := m1.open("node1", described) // and back
		young.wantProblem(http.StatusConflict, "a newer session")
		again.beat(time.Second, 20*time.Second)
		if n := lost.Load(); n != 0 || again.over() {
			t.Errorf("the node was lost %d times", n)
		}
	})
}

// TestDetachLeavesPresence: nodes are not taken for lost by the end of a server, and have until their leases run out to find another.
func TestDetachLeavesPresence(t *testing.T) {
	inBubble(t, func(t *testing.T, st *store.Memory, m1 *manager) {
		m2 := startManager(t, "m2", st)
		defer m2.close()
		s := m1.open("node1", described)
		s.beat(time.Second, 5*time.Second)
		m1.server.Detach()
		s.wantProblem(http.StatusServiceUnavailable, "stopping")
		time.Sleep(2900 * time.Millisecond)
		if presence(t, st, "node1") == nil {
			t.Fatal("taken for lost by the end of the server")
		}
		if refused := m1.open("node1", described); refused.code != http.StatusServiceUnavailable {
			t.Errorf("a session at a server without a store: %d", refused.code)
		}
		moved := m2.open("node1", described)
		moved.beat(time.Second, 10*time.Second)
		if p := presence(t, st, "node1"); p == nil || p.Manager != "m2" {
			t.Errorf("presence %+v", p)
		}
	})
}

// stuck is a store that can be cut off from the others, or that gives no leases.
type stuck struct {
	*store.Memory
	off atomic.Bool
}

func (s *stuck) wait(ctx context.Context) error {
	if !s.off.Load() {
		return nil
	}
	<-ctx.Done()
	return fmt.Errorf("%w: %w", store.ErrUnavailable, context.Cause(ctx))
}

// Sync implements store.Store.
func (s *stuck) Sync(ctx context.Context) (int64, error) {
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	return s.Memory.Sync(ctx)
}

// Commit implements store.Store.
func (s *stuck) Commit(ctx context.Context, c store.Commit) (int64, error) {
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	return s.Memory.Commit(ctx, c)
}

// Grant implements store.Leaser.
func (s *stuck) Grant(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
	if err := s.wait(ctx); err != nil {
		return 0, err
	}
	return s.Memory.Grant(ctx, ttl)
}

// Renew implements store.Leaser: it fails at once, as a member that knows that there is no leader does.
func (s *stuck) Renew(ctx context.Context, id store.LeaseID) error {
	if s.off.Load() {
		return store.ErrUnavailable
	}
	return s.Memory.Renew(ctx, id)
}

// TestManagerWithoutQuorum: sessions outlast an election, and go elsewhere when it takes longer; new ones are refused.
func TestManagerWithoutQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &stuck{Memory: swarmOf(t, 1)}
		slow := v1.Duration(2 * time.Second) // a member that is cut off does not see leases end
		st.Memory.Commit(t.Context(), store.Commit{Ops: []store.Op{
			{Kind: v1.KindCluster, ID: v1.ClusterName, If: store.Absent(), Value: &v1.ClusterSpec{HeartbeatPeriod: &slow}}}})
		m := startManager(t, "m1", st)
		defer st.Close()
		defer m.close()
		s := m.open("node1", described)
		s.beat(time.Second, 5*time.Second)
		for range 10 { // elections
			st.off.Store(true)
			time.Sleep(500 * time.Millisecond)
			s.up.Write([]byte{'\n'})
			time.Sleep(1500 * time.Millisecond)
			st.off.Store(false)
			s.beat(time.Second, 3*time.Second)
		}
		if s.over() {
			t.Fatalf("an election ended the session: %+v", s.problem)
		}
		st.off.Store(true)
		s.beat(2*time.Second, 4*time.Second)
		time.Sleep(time.Second)
		s.wantProblem(http.StatusServiceUnavailable, "try another manager")
		began := time.Now()
		if refused := m.open("node1", described); refused.code != http.StatusServiceUnavailable || time.Since(began) > 3*time.Second {
			t.Errorf("a session without a quorum: %d after %s", refused.code, time.Since(began))
		}
		st.off.Store(false)
		if back := m.open("node1", described); back.code != http.StatusOK {
			t.Errorf("a session with a quorum again: %d", back.code)
		}
	})
}

// leaseless hides that a store gives leases.
type leaseless struct{ store.Store }

func TestStoreWithoutLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := swarmOf(t, 1)
		m := startManager(t, "m1", leaseless{st})
		defer st.Close()
		defer m.close()
		s := m.open("node1", described)
		s.wantProblem(http.StatusServiceUnavailable, "gives no leases")
	})
}

// TestRemovedNode: a node that is removed is told so at once, whether or not its presence goes with it.
func TestRemovedNode(t *testing.T) {
	inBubble(t, func(t *testing.T, st *store.Memory, m *manager) {
		s := m.open("node1", described)
		st.Commit(t.Context(), store.Commit{Ops: []store.Op{
			{Kind: v1.KindPresence, ID: "node1", Section: v1.SectionStatus, If: store.Exists()},
			{Kind: v1.KindNode, ID: "node1", If: store.Exists()}}})
		s.wantProblem(http.StatusNotFound, "was removed")
		if presence(t, st, "node1") != nil {
			t.Error("its presence is left")
		}
		if s := m.open("node1", described); s.code != http.StatusNotFound {
			t.Errorf("a session of a node that is gone: %d", s.code)
		}
	})
}

// TestDescriptionChanges: what a node says of itself later on is written, not too often, and its heartbeats go on meanwhile.
func TestDescriptionChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, st *store.Memory, m *manager) {
		s := m.open("node1", described)
		before, _ := st.Snapshot(t.Context(), 0)
		for i := range 20 {
			fmt.Fprintf(s.up, `{"description":{"hostname":"host%d"}}`+"\n", i/4)
		}
		time.Sleep(2 * time.Second) // the lines before the last took four
		if s.over() {
			t.Errorf("the session ended: %+v", s.problem)
		}
		after, _ := st.Snapshot(t.Context(), 0)
		n, _ := store.Get(after, v1.Nodes, "node1")
		if n.Status.Description.Hostname != "host4" || after.Revision()-before.Revision() > 5 {
			t.Errorf("%+v, after %d writes", n.Status.Description, after.Revision()-before.Revision())
		}
	})
}

// TestFloodOfHeartbeats: a node that beats as fast as it can costs no more renewals than others.
func TestFloodOfHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &countingLeases{Memory: swarmOf(t, 1)}
		m := startManager(t, "m1", st)
		defer st.Close()
		defer m.close()
		s := m.open("node1", described)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			s.up.Write([]byte(strings.Repeat("\n", 50)))
		}
		if n := st.renewals.Load(); n < 10 || n > 21 || s.over() {
			t.Errorf("%d renewals in 10 s", n)
		}
	})
}

type countingLeases struct {
	*store.Memory
	renewals, grants atomic.Int32
}

// Renew implements store.Leaser.
func (c *countingLeases) Renew(ctx context.Context, id store.LeaseID) error {
	c.renewals.Add(1)
	return c.Memory.Renew(ctx, id)
}

// Grant implements store.Leaser.
func (c *countingLeases) Grant(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
	c.grants.Add(1)
	return c.Memory.Grant(ctx, ttl)
}

// TestNews: what all nodes have to know is told at the beginning and when it changes, and not otherwise.
func TestNews(t *testing.T) {
	inBubble(t, func(t *testing.T, st *store.Memory, m *manager) {
		commit := func(ops ...store.Op) {
			t.Helper()
			if _, err := st.Commit(t.Context(), store.Commit{Ops: ops}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(500 * time.Millisecond)
		}
		s := m.open("node1", described)
		member := func(id, addr string, voter, leader bool) store.Op {
			return store.Op{Kind: v1.KindMember, ID: id, Section: v1.SectionStatus, If: store.Always(), Meta: &v1.Meta{ID: id},
				Value: &v1.MemberStatus{MemberID: id, Addr: addr, Voter: voter, Leader: leader}}
		}
		latest := func() v1.SwarmNews {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.news[len(s.news)-1]
		}
		commit(store.Op{Kind: v1.KindNode, ID: "node1", If: store.Exists(), Value: &v1.NodeSpec{Role: v1.RoleManager, Index: 1}},
			store.Op{Kind: v1.KindNode, ID: "node1", Section: v1.SectionStatus, If: store.Exists(), Value: &v1.NodeStatus{State: v1.NodeReady, Addr: "10.0.0.9"}})
		if got := latest().Managers; len(got) != 1 || got[0] != (v1.Peer{NodeID: "node1", Addr: "10.0.0.9:2377"}) {
			t.Errorf("managers before there are members: %+v", got)
		}
		commit(member("m1", "10.0.0.1:2377", true, true), member("m2", "10.0.0.2:2377", true, false), member("m3", "10.0.0.3:2377", false, false))
		if got := latest().Managers; len(got) != 2 || got[0].Addr != "10.0.0.1:2377" || got[1].NodeID != "m2" {
			t.Errorf("managers: %+v", got)
		}
		count := len(s.news)
		commit(member("m1", "10.0.0.1:2377", true, false), member("m2", "10.0.0.2:2377", true, true)) // another leader
		addNodes(t, st, 2, 20)
		time.Sleep(500 * time.Millisecond)
		if len(s.news) != count {
			t.Errorf("told again: %+v", s.news[count:])
		}
		period := v1.Duration(300 * time.Millisecond)
		commit(store.Op{Kind: v1.KindCluster, ID: v1.ClusterName, If: store.Absent(), Value: &v1.ClusterSpec{HeartbeatPeriod: &period}})
		if got := latest().Heartbeat; got != v1.Duration(time.Second) {
			t.Errorf("heartbeat %v before the lease is as long", got)
		}
		s.up.Write([]byte{'\n'})
		time.Sleep(500 * time.Millisecond)
		if got := latest().Heartbeat; got != period {
			t.Errorf("heartbeat %v", got)
		}
	})
}

// TestHeartbeatGrowsWithTheSwarm adds nodes while one beats: its lease is always as long as what it was told asks, and the steps
// are few.
func TestHeartbeatGrowsWithTheSwarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &countingLeases{Memory: swarmOf(t, 1)}
		m := startManager(t, "m1", st)
		defer st.Close()
		defer m.close()
		lost := watchForLoss(t, st)
		s := m.open("node1", described)
		period := func() time.Duration {
			s.mu.Lock()
			defer s.mu.Unlock()
			return time.Duration(s.news[len(s.news)-1].Heartbeat)
		}
		for n := 1; n < 1500; {
			add := 100
			if n == 1 {
				add = 700 // all at once
			}
			addNodes(t, st, n+1, n+add)
			n += add
			time.Sleep(300 * time.Millisecond)
			s.beat(period(), period())
			if want := v1.HeartbeatPeriod(nil, n); period() < want || period() > want*5/4 {
				t.Errorf("with %d nodes the heartbeat is %s, at least %s", n, period(), want)
			}
			s.beat(period(), 2*period())
		}
		if n := lost.Load(); n != 0 || s.over() {
			t.Errorf("the node was lost %d times: %+v", n, s.problem)
		}
		if steps := len(s.news); steps > 8 || int(st.grants.Load()) != steps {
			t.Errorf("told %d times, %d leases", steps, st.grants.Load())
		}
		time.Sleep(3*period() - 100*time.Millisecond)
		if presence(t, st, "node1") == nil {
			t.Error("taken for lost too early")
		}
		time.Sleep(1200 * time.Millisecond)
		if presence(t, st, "node1") != nil {
			t.Error("not taken for lost")
		}
	})
}
