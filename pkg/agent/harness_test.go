package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/dnsplugin"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

const nodeID = "node0000000000000000000001"

// swarm is a manager for tests: it holds what is assigned to one node, and remembers what was reported.
type swarm struct {
	mu        sync.Mutex
	revision  int64
	tasks     map[string]*v1.Task
	services  map[string]*v1.ServiceRevision
	secrets   []*v1.Secret // sent with each task
	configs   []*v1.Config
	peers     v1.Peers // with every Complete
	away      bool
	changed   chan struct{}
	messages  []v1.Assignment // sent to every session as they are, after its Complete
	status    map[string]v1.TaskStatus
	history   map[string][]v1.TaskState
	backward  []string // reports that went back
	reports   int
	sessions  int
	reject    func(v1.StatusReport) error
	streams   map[string][]string
	streamed  func(id string, records iter.Seq2[v1.LogRecord, error]) error
	tunnelled func(id string) (v1.Tunnel, error)
	given     func(again int) (v1.Tunnel, error)
	followed  []uint64
}

func newSwarm() *swarm {
	return &swarm{revision: 1, tasks: map[string]*v1.Task{}, services: map[string]*v1.ServiceRevision{}, changed: make(chan struct{}),
		status: map[string]v1.TaskStatus{}, history: map[string][]v1.TaskState{}, streams: map[string][]string{}}
}

var errAway = errors.New("no manager can be reached")

func (s *swarm) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// service makes a service revision; change it with the function.
func (s *swarm) service(name string, change func(*v1.ServiceRevisionSpec)) string {
	spec := &v1.ServiceRevisionSpec{Service: name, Number: 1}
	spec.Task.Container.Image = "hello:1"
	if change != nil {
		change(spec)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprintf("%s-%d", name, len(s.services))
	s.services[id] = &v1.ServiceRevision{Meta: v1.Meta{ID: id}, Spec: spec}
	return id
}

// assign sets what is desired of a task, and makes it if need be.
func (s *swarm) assign(id, revision string, state v1.TaskState) {
	s.change(id, func(*v1.Task) *v1.Task {
		return &v1.Task{Meta: v1.Meta{ID: id}, Desired: &v1.TaskDesired{Service: s.services[revision].Spec.Service,
			ServiceName: s.services[revision].Spec.Service, Slot: 1, Attempt: 1, Revision: revision, State: state,
			Placement: &v1.TaskPlacement{Node: nodeID}}}
	})
}

func (s *swarm) desire(id string, state v1.TaskState) {
	s.change(id, func(t *v1.Task) *v1.Task {
		d := *t.Desired
		d.State = state
		return &v1.Task{Meta: t.Meta, Desired: &d}
	})
}

func (s *swarm) remove(id string) { s.change(id, func(*v1.Task) *v1.Task { return nil }) }

func (s *swarm) change(id string, f func(*v1.Task) *v1.Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	m := v1.Assignment{Revision: s.revision}
	if t := f(s.tasks[id]); t != nil {
		t.Meta.Revisions[v1.SectionDesired] = s.revision
		s.tasks[id] = t
		m.Tasks, m.Services = []*v1.Task{t}, []*v1.ServiceRevision{s.services[t.Desired.Revision]}
		m.Secrets, m.Configs = s.secrets, s.configs
	} else {
		delete(s.tasks, id)
		m.Removed = []string{id}
	}
	s.messages = append(s.messages, m)
	s.wake()
}

// send sends a message as it is.
func (s *swarm) send(m v1.Assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
	s.wake()
}

// leave makes the manager unreachable, or reachable again.
func (s *swarm) leave(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
	s.wake()
}

func (s *swarm) whole() v1.Assignment {
	m := v1.Assignment{Revision: s.revision, Complete: true, GatewayPrefix6: "fd12:3456:789a::/96", Node: &v1.Node{Meta: v1.Meta{ID: nodeID}, Spec: &v1.NodeSpec{Index: 7}}}
	told := s.peers
	m.Peers = &told
	m.Secrets, m.Configs = s.secrets, s.configs
	for id, t := range s.tasks {
		if status, told := s.status[id]; told && t.Status == nil {
			t = &v1.Task{Meta: t.Meta, Desired: t.Desired, Status: &status}
		}
		m.Tasks = append(m.Tasks, t)
	}
	for _, r := range s.services {
		m.Services = append(m.Services, r)
	}
	return m
}

// Session implements Manager.
func (s *swarm) Session(ctx context.Context, _ func() v1.NodeDescription) iter.Seq2[v1.Assignment, error] {
	return func(yield func(v1.Assignment, error) bool) {
		s.mu.Lock()
		first, next, away := s.whole(), len(s.messages), s.away
		s.sessions++
		s.mu.Unlock()
		if away {
			yield(v1.Assignment{}, errAway)
			return
		}
		if !yield(first, nil) {
			return
		}
		for {
			s.mu.Lock()
			messages, changed, away := s.messages[next:], s.changed, s.away
			next += len(messages)
			s.mu.Unlock()
			if away {
				yield(v1.Assignment{}, errAway)
				return
			}
			for _, m := range messages {
				if !yield(m, nil) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(v1.Assignment{}, ctx.Err())
				return
			}
		}
	}
}

// Report implements Manager as the real one does: it refuses states that go back.
func (s *swarm) Report(_ context.Context, r v1.StatusReport) (v1.StatusResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var result v1.StatusResult
	if s.away {
		return result, errAway
	}
	if s.reject != nil {
		if err := s.reject(r); err != nil {
			return result, err
		}
	}
	s.reports++
	for _, t := range r.Tasks {
		if s.tasks[t.ID] == nil {
			result.Unknown = append(result.Unknown, t.ID)
			continue
		}
		old, seen := s.status[t.ID]
		if seen && (t.Status.State < old.State || old.State.Terminal() && t.Status.State != old.State) {
			s.backward = append(s.backward, fmt.Sprintf("%s: %s after %s", t.ID, t.Status.State, old.State))
			continue
		}
		s.status[t.ID] = t.Status
		if h := s.history[t.ID]; len(h) == 0 || h[len(h)-1] != t.Status.State {
			s.history[t.ID] = append(h, t.Status.State)
		}
	}
	return result, nil
}

// Followed implements Manager.
func (s *swarm) Followed(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followed = append(s.followed, number)
}

// Stream implements Manager.
func (s *swarm) Stream(_ context.Context, id string, records iter.Seq2[v1.LogRecord, error]) error {
	if s.streamed != nil {
		return s.streamed(id, records)
	}
	for r, err := range records {
		line := string(r.Line)
		if err != nil {
			line = "error: " + err.Error()
		}
		s.mu.Lock()
		s.streams[id] = append(s.streams[id], line)
		s.mu.Unlock()
	}
	return nil
}

// Image implements Manager. Unless a test says otherwise, no other node has anything.
func (s *swarm) Image(_ context.Context, _, _ string, again int) (v1.Tunnel, error) {
	if s.given == nil {
		return nil, errAway
	}
	return s.given(again)
}

// Tunnel implements Manager.
func (s *swarm) Tunnel(_ context.Context, id string) (v1.Tunnel, error) {
	if s.tunnelled == nil {
		return nil, errors.New("nobody waits for a tunnel")
	}
	return s.tunnelled(id)
}

// network is a netplugin.Network in memory, which outlives the agent as a kernel does.
type network struct {
	listening map[uint16]bool // ports at which a program of the machine listens
	mu        sync.Mutex
	applied   netplugin.Config
	links     map[string]netip.Addr
	applies   int
	resyncs   int
	fail      error
	delay     time.Duration
	delayOf   func(netplugin.Config) time.Duration // unless nil, in the place of delay
	// disturbed yields when something else changed the network.
	disturbed chan struct{}
	findings  []netplugin.Finding // what Examine finds
	mute      map[string]bool     // addresses that do not answer Echo
	asked     int                 // how often Echo was called
	unseen    error               // and why not more
	// spaces is where namespaces of guests are linked to; "" is nowhere.
	spaces string
	// dial is how connections to tasks are made; nil is refused.
	dial func(ctx context.Context, task, network, address string) (net.Conn, error)
}

func newNetwork() *network {
	return &network{links: map[string]netip.Addr{}, disturbed: make(chan struct{}, 1)}
}

// Apply implements netplugin.Network.
func (n *network) Apply(ctx context.Context, c netplugin.Config) error {
	delay := n.delay
	if n.delayOf != nil {
		delay = n.delayOf(c)
	}
	if !sleep(ctx, delay) {
		return ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.applies++
	if n.fail != nil {
		return n.fail
	}
	n.applied = c
	clear(n.links)
	seen, on := map[netip.Addr]string{}, map[string]string{}
	for _, o := range c.Overlays {
		for _, v := range o.VIPs {
			on[o.ID+" "+v.Address.String()] = "a service"
		}
	}
	for _, t := range c.Tasks {
		if other := seen[t.Address]; other != "" {
			panic(fmt.Sprintf("%s and %s have one address, %s", other, t.ID, t.Address))
		}
		seen[t.Address] = t.ID
		for _, at := range t.Networks {
			for _, addr := range at.Addresses {
				if other := on[at.Overlay+" "+addr.String()]; other != "" {
					panic(fmt.Sprintf("%s and %s have one address, %s, on network %s", other, t.ID, addr, at.Overlay))
				}
				on[at.Overlay+" "+addr.String()] = t.ID
			}
		}
		n.links[t.ID] = t.Address
		if t.Guest != "" {
			if err := os.Link(t.Guest, n.Namespace(t.ID)); err != nil && !errors.Is(err, os.ErrExist) {
				return &netplugin.TaskError{Task: t.ID, Err: fmt.Errorf("%s %w: %w", t.Guest, netplugin.ErrNoGuest, err)}
			}
		}
	}
	return nil
}

// Resync implements netplugin.Network.
func (n *network) Resync() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.resyncs++
}

// Disturbed implements netplugin.Network.
func (n *network) Disturbed() <-chan struct{} { return n.disturbed }

// Namespace implements netplugin.Network.
func (n *network) Namespace(task string) string {
	if n.spaces != "" {
		return filepath.Join(n.spaces, task)
	}
	return "/netns/" + task
}

// Dial implements netplugin.Network: it connects as the test says.
func (n *network) Dial(ctx context.Context, task, network, address string) (net.Conn, error) {
	n.mu.Lock()
	dial := n.dial
	n.mu.Unlock()
	if dial == nil {
		return nil, errors.New("dial tcp " + address + ": connect: connection refused")
	}
	return dial(ctx, task, network, address)
}

// Addresses implements netplugin.Network.
func (n *network) Addresses(context.Context) (map[string]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.links), nil
}

// Echo implements netplugin.Network: all answer but those that the test says do not.
func (n *network) Echo(_ context.Context, of []netplugin.Reach) (map[netplugin.Reach]bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	answered := map[netplugin.Reach]bool{}
	for _, r := range of {
		answered[r] = !n.mute[r.Address.String()]
	}
	n.asked++
	return answered, nil
}

// Examine implements netplugin.Network.
func (n *network) Examine(context.Context, string) ([]netplugin.Finding, int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.findings), 7, n.unseen
}

// Listener implements netplugin.Network: at a port that is taken a program listens at the machine's address.
func (n *network) Listener(p netplugin.PublishedPort) (at netip.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	a := netip.MustParseAddr("10.0.0.7")
	if n.listening[p.Port] && (len(p.Places) == 0 || p.Places[0].Prefix.Contains(a)) {
		at = a
	}
	return at, nil
}

// Teardown implements netplugin.Network.
func (n *network) Teardown(context.Context) error { return nil }

func (n *network) config() netplugin.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.applied
}

// names is a resolver in memory.
type names struct {
	mu   sync.Mutex
	now  *dnsplugin.Names
	sets int
}

// Set takes the newest names.
func (n *names) Set(now *dnsplugin.Names) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.now = now
	n.sets++
}

func (n *names) get() *dnsplugin.Names {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.now
}

// plainZone is a zone with maps in the place of tables, to be shown.
type plainZone struct {
	Name    string
	Hosts   map[string][]netip.Addr
	Reverse map[string]string
	Ports   map[string][]dnsplugin.Port
}

func plain(z *dnsplugin.Zone) plainZone {
	ports := make(map[string][]dnsplugin.Port, len(z.Ports))
	for name, of := range z.Ports { // of services with one name, in any order
		ports[name] = slices.SortedFunc(slices.Values(of), func(a, b dnsplugin.Port) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return plainZone{z.Name, maps.Collect(z.Hosts.All()), maps.Collect(z.Reverse.All()), ports}
}

// shown are the newest names, as people read them.
func (n *names) shown(t testing.TB) string {
	t.Helper()
	now := n.get()
	zones := map[string]plainZone{}
	for id, z := range now.Zones {
		zones[id] = plain(z)
	}
	text, err := json.Marshal(struct {
		Askers map[netip.Addr]*dnsplugin.Asker
		Zones  map[string]plainZone
	}{now.Askers, zones})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// lab is a machine with a manager to talk to.
type lab struct {
	t     *testing.T
	swarm *swarm
	fake  *engine.Fake
	net   *network
	names *names
	took  []time.Duration // to apply what was told
	freed []int64         // by the removal of images
	// followed is how long it took since what was told was stamped.
	followed []time.Duration
	dir      string
	boot     string
	agent    *Agent
	stop     func()
	// taken are ports on which programs of the machine listen.
	taken map[uint16]bool
}

// newLab makes one, in a synctest bubble.
func newLab(t *testing.T, o engine.FakeOptions) *lab {
	return &lab{t: t, swarm: newSwarm(), fake: engine.NewFake(o), net: newNetwork(), names: new(names), dir: t.TempDir(), boot: "first"}
}

// start starts an agent on the machine.
func (l *lab) start(hook func(string) bool) {
	l.t.Helper()
	began := time.Now()
	l.agent = New(Options{NodeID: nodeID, Dir: l.dir, Runtime: l.fake, Network: l.net, Manager: l.swarm, Boot: l.boot,
		Log: slog.New(slog.NewTextHandler(testWriter{l.t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Describe: func() v1.NodeDescription {
			return v1.NodeDescription{Hostname: "host7", Platform: v1.Platform{OS: "linux", Architecture: "amd64"}}
		}, ResolvConf: "/nonexistent", Starts: 4, Names: l.names, Underlay: netip.MustParseAddr("192.0.2.7"),
		Spent:      func() time.Duration { return time.Since(began) }, // nothing here waits for another
		PortTaken:  func(_ v1.Protocol, port uint16) bool { return l.taken[port] },
		Collected:  func(bytes int64) { l.freed = append(l.freed, bytes) },
		Applied:    func(d time.Duration) { l.took = append(l.took, d) },
		Programmed: func(d time.Duration) { l.followed = append(l.followed, d) }})
	l.agent.hook = hook
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	agent := l.agent
	go func() { done <- agent.Run(ctx) }()
	l.stop = func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("Run: %v", err)
		}
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// settle lets some time pass.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (l *lab) want(id string, state v1.TaskState) v1.TaskStatus {
	l.t.Helper()
	l.swarm.mu.Lock()
	defer l.swarm.mu.Unlock()
	status, ok := l.swarm.status[id]
	if !ok || status.State != state {
		l.t.Fatalf("task %s is reported %+v, want %s", id, status, state)
	}
	return status
}

func (l *lab) wantHistory(id string, states ...v1.TaskState) {
	l.t.Helper()
	l.swarm.mu.Lock()
	defer l.swarm.mu.Unlock()
	if diff := cmp.Diff(states, l.swarm.history[id]); diff != "" {
		l.t.Errorf("reports of task %s (-want +got):\n%s", id, diff)
	}
	if len(l.swarm.backward) > 0 {
		l.t.Errorf("reports that go back: %v", l.swarm.backward)
	}
}

// wantClean checks that nothing is left on the machine.
func (l *lab) wantClean() {
	l.t.Helper()
	states, _ := l.fake.List(context.Background())
	if len(states) > 0 {
		l.t.Errorf("containers are left: %+v", states)
	}
	if links := l.net.config(); len(links.Tasks)+len(links.Published) > 0 {
		l.t.Errorf("links are left: %+v", links)
	}
}
