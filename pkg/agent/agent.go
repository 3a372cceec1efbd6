// Package agent makes this machine match what a manager assigned to it, and reports what it sees.
//
// It owns the tasks of one node from assignment to removal: images, links, files, containers, published ports, the status
// of each, and the state file from which it goes on after a restart. It never decides what should run or where, never
// starts a task twice, never talks to a container runtime, a kernel or a manager but through Runtime, Network and Manager,
// and never stops a container because a manager cannot be reached.
//
// One goroutine, the loop in Run, owns all that is remembered; whatever takes time is done by workers, who get copies and
// post what came of it back to the loop. A task that runs costs an entry in a map and no goroutine.
package agent

import (
	"cmp"
	"context"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/dnsplugin"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// Manager is what an agent needs of a manager.
type Manager interface {
	// Session opens the node's session and yields what is assigned to it, the first message Complete, until the
	// connection is lost or ctx ends. What describe says goes up at the beginning, and again with the heartbeat after it
	// changed: it is asked before each, so it must be cheap.
	Session(ctx context.Context, describe func() v1.NodeDescription) iter.Seq2[v1.Assignment, error]
	// Followed tells that the network and the names follow the message of Peers with the number, and all before it. It does not block,
	// and may be lost with the session.
	Followed(number uint64)
	// Report tells what was observed. Reporting the same again does nothing.
	Report(ctx context.Context, r v1.StatusReport) (v1.StatusResult, error)
	// Stream sends the records of a stream that an assignment asked for, and returns when they end or nobody wants them.
	Stream(ctx context.Context, id string, records iter.Seq2[v1.LogRecord, error]) error
	// Tunnel opens this node's end of a tunnel that an assignment asked for.
	Tunnel(ctx context.Context, id string) (v1.Tunnel, error)
	// Image opens a tunnel to another node that runs an image which a task of this one is to run, for the part of it that has the digest.
	Image(ctx context.Context, image, digest string, again int) (v1.Tunnel, error)
}

// Names takes the names that tasks of this machine may ask for.
type Names interface {
	Set(names *dnsplugin.Names)
}

// Options are what an agent is made of.
type Options struct {
	// NodeID is the ID of this node.
	NodeID string
	// Dir is where the agent keeps its state and the tasks' files; it is created. Empty keeps nothing on disk, which is
	// for nodes that exist in memory only.
	Dir string
	// Runtime runs the containers.
	Runtime engine.Runtime
	// Network links the tasks; nil for a node whose tasks have no links.
	Network netplugin.Network
	// Names, unless nil, is given the names that tasks may ask for, whenever they changed and the network leads to what they name.
	// Set does not block. It needs a Network: who asks is known by a task's gateway address.
	Names Names
	// Underlay is this machine's address of the traffic between tasks; one that is not valid reaches no other node.
	Underlay netip.Addr
	// PortTaken tells whether a program of this machine listens on a port; nil is to try it.
	PortTaken func(protocol v1.Protocol, port uint16) bool
	// Applied, unless nil, is given how long it took from when a message about others came until the network and the names followed it;
	// Programmed from when a task of another node became ready, or ceased to be, as its stamp in the store says. The stamp is by the
	// clock of the node or manager that set it.
	Applied, Programmed func(time.Duration)
	// Collected, unless nil, is given how much of the disk the removal of an image that no task needs gave back, in bytes.
	Collected func(bytes int64)
	// Manager is who assigns and is reported to. One whose Session always fails is fine: the agent goes on alone.
	Manager Manager
	// Describe says what this node is. It is asked at the beginning of each session and before each heartbeat, from several
	// goroutines.
	Describe func() v1.NodeDescription
	// Told, unless nil, is given what the managers say of the swarm, whenever they say it. It must not block.
	Told func(v1.SwarmNews)
	// OnNode, unless nil, is given this node's own object as the managers tell of it, whenever it changed. It must not block,
	// nor change the node.
	OnNode func(*v1.Node)
	// Log is where the agent logs; default slog.Default.
	Log *slog.Logger
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Spent is how much of the machine's processors this process has used; default is what the kernel says.
	Spent func() time.Duration
	// Starts is how many containers are created and started at once; default twice the cores, at least 4.
	Starts int
	// Stops is how many are signalled and removed at once; default 32.
	Stops int
	// Boot names the machine's boot: a container that did not end before the machine restarted is not started again.
	// Default is the kernel's boot ID.
	Boot string
	// ResolvConf is the machine's resolver configuration, that tasks get; default /etc/resolv.conf.
	ResolvConf string
}

// Limits of an agent.
const (
	batchDelay = 100 * time.Millisecond // how long a status waits for others, and how long a state must last to be told
	soonDelay  = 10 * time.Millisecond  // how long one waits that others go by: the whole swarm's names and ports follow it
	// othersDelay is how long others may take to leave a task alone where nobody confirms that they do; namesDelay where its name leads to
	// it without a virtual address, so that they may have remembered the answer. It is how long names are good for. drainDelay is how long
	// a task goes on with what it has, where its spec does not say.
	othersDelay = 300 * time.Millisecond
	namesDelay  = 2 * time.Second
	drainDelay  = 300 * time.Millisecond
	batchTasks  = 2000                   // statuses in one report
	maxStreams  = 64                     // log streams at once
	maxError    = 1024                   // bytes of an error told to the user
	maxAttempts = 5                      // at one step that may yet succeed
	retryDelay  = 500 * time.Millisecond // doubled with each attempt
	retryMost   = 30 * time.Second
	// aloneMost is the same where single tasks, ports or networks cannot be made: nobody tells when what is in their way has gone.
	aloneMost = 3 * time.Second
	killWait  = 10 * time.Second // for a killed process to end before it is removed all the same
	stopGrace = 10 * time.Second // where the spec does not say
)

// Agent is one node's. Make it with New, and run it once.
type Agent struct {
	o   Options
	log *slog.Logger

	inbox   chan func() // to be run by the loop
	quit    chan struct{}
	workers sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc
	crashed atomic.Bool
	volumes atomic.Pointer[[]string]        // their names, sorted
	marks   atomic.Pointer[v1.ImageMarks]   // of the disk of images
	doctor  chan struct{}                   // one examination of the network at a time
	hook    func(point string) (crash bool) // tests only: dies at a point

	// All below belongs to the loop.
	tasks     map[string]*task
	revisions map[string]*v1.ServiceRevision
	data      map[dataKey]data
	logins    []v1.RegistryLogin
	refused   map[string]string // images that could not be had for good, and why
	// crowded is how many revisions are too many to keep without a look at which are still needed.
	crowded  int
	node     *v1.Node
	pool     string
	prefix6  string
	revision int64 // of the newest assignment
	complete bool  // a Complete assignment came since this process began
	session  bool  // there is one
	adopted  bool  // the runtime's containers are known
	engineUp bool
	// aloneSince is since when there is no session.
	aloneSince time.Time
	lookout    lookout
	strays     map[string]engine.State // containers of which no assignment told, until a complete one comes
	timers     timers
	starts     queue
	stops      queue
	checks     queue // of health
	pulls      map[string]*pull
	removing   bool // an image
	giving     int  // parts of images to other nodes
	links      links
	peers      *peers
	peersFile  peersFile
	state      stateFile
	reports    reporter
	streams    map[string]context.CancelFunc
	early      map[string][]chan struct{} // by task: closed when the streams that wait for it begin
}

// New makes an agent; it does nothing until Run.
func New(o Options) *Agent {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Spent == nil {
		o.Spent = processorTime
	}
	if o.PortTaken == nil {
		o.PortTaken = portTaken
	}
	if o.Describe == nil {
		o.Describe = func() v1.NodeDescription { return v1.NodeDescription{} }
	}
	if o.Boot == "" {
		boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // without one, a restart of the machine is not noticed
		o.Boot = strings.TrimSpace(string(boot))
	}
	o.Starts = cmp.Or(o.Starts, max(4, 2*runtime.NumCPU()))
	o.Stops = cmp.Or(o.Stops, 32)
	o.ResolvConf = cmp.Or(o.ResolvConf, "/etc/resolv.conf")
	return &Agent{
		o: o, log: o.Log.With("node.id", o.NodeID),
		inbox: make(chan func(), 16), quit: make(chan struct{}), doctor: make(chan struct{}, 1),
		tasks: map[string]*task{}, revisions: map[string]*v1.ServiceRevision{}, data: map[dataKey]data{}, strays: map[string]engine.State{},
		starts: queue{limit: o.Starts}, stops: queue{limit: o.Stops}, checks: queue{limit: maxChecks},
		refused: map[string]string{}, pulls: map[string]*pull{}, links: links{used: map[netip.Addr]string{}}, peers: newPeers(o.NodeID),
		reports: reporter{pending: map[string]*task{}, size: batchTasks},
		streams: map[string]context.CancelFunc{}, early: map[string][]chan struct{}{},
	}
}

// Run works until ctx ends, and then leaves everything running. It returns an error only if it could not begin.
func (a *Agent) Run(ctx context.Context) error {
	a.ctx, a.cancel = context.WithCancel(ctx)
	defer a.cancel()
	if err := a.load(); err != nil {
		return err
	}
	a.aloneSince = a.o.Now()
	a.workers.Go(func() { a.watchEngine(a.ctx) })
	a.workers.Go(func() { a.keepSession(a.ctx) })
	a.workers.Go(a.watchNetwork)
	a.workers.Go(a.collectImages)
	a.loop()
	close(a.quit)
	a.cancel()
	a.workers.Wait()
	if !a.crashed.Load() {
		a.saveLast()
	}
	return nil
}

func (a *Agent) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case do := <-a.inbox:
			do()
			a.drain()
		case <-timer.C:
		case <-a.ctx.Done():
			return
		}
		if at := a.pump(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(0, at.Sub(a.o.Now())))
		}
	}
}

// drain does what else has come, so that what comes together is acted upon together.
func (a *Agent) drain() {
	for range cap(a.inbox) * 4 {
		select {
		case do := <-a.inbox:
			do()
		default:
			return
		}
	}
}

// pump begins whatever can begin now, and says when there is more to do though nothing happens; zero for never.
func (a *Agent) pump() time.Time {
	now := a.o.Now()
	for len(a.timers) > 0 && !a.timers[0].at.After(now) {
		if t := a.tasks[a.timers.pop().id]; t != nil {
			a.advance(t)
		}
	}
	a.dispatch(&a.starts)
	a.dispatch(&a.stops)
	a.dispatchChecks()
	at := earliest(a.pumpSave(now), a.pumpPeers(now), a.pumpLinks(now), a.pumpReports(now), a.pumpLookout(now))
	if len(a.timers) > 0 {
		at = earliest(at, a.timers[0].at)
	}
	return at
}

func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if first.IsZero() || !t.IsZero() && t.Before(first) {
			first = t
		}
	}
	return first
}

// post has the loop do something; it tells whether the loop still runs.
func (a *Agent) post(do func()) bool {
	select {
	case a.inbox <- do:
		return true
	case <-a.quit:
		return false
	}
}

// at is where a test can have the agent die; it tells whether it is dead.
func (a *Agent) at(point string) bool {
	if a.hook != nil && !a.crashed.Load() && a.hook(point) {
		a.crashed.Store(true)
		a.cancel()
	}
	return a.crashed.Load()
}
