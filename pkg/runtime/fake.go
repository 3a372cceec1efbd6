package runtime

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// FakeOp names a call of a Fake, for its injected delays and failures.
type FakeOp string

// The calls that a Fake can delay or fail. The ID that goes with FakePull is the image's reference, and else the
// container's.
const (
	FakePull   FakeOp = "pull"
	FakeCreate FakeOp = "create"
	FakeStart  FakeOp = "start"
	FakeSignal FakeOp = "signal"
	FakeExec   FakeOp = "exec"
	FakeAttach FakeOp = "attach"
	FakeCopy   FakeOp = "copy"
	FakeRemove FakeOp = "remove"
	FakeList   FakeOp = "list"
	FakeKeep   FakeOp = "keep"
	FakeDrop   FakeOp = "drop"
)

// FakeOptions say how a Fake behaves. The zero value runs everything at once and for ever.
type FakeOptions struct {
	// Now is the clock that containers are stamped with; default time.Now.
	Now func() time.Time
	// Delay is how long a call takes before it does anything; nil for no time. A call whose context ends while it waits
	// does nothing.
	Delay func(op FakeOp, id string) time.Duration
	// Fail is the error of a call, which then does nothing; nil for none. It is called without locks.
	Fail func(op FakeOp, id string) error
	// Process says how a container's process behaves once started; nil for one that runs until it is stopped.
	Process func(c Container) FakeProcess
	// Exec is what comes of a command in a container; nil for success without a word. It is called without locks.
	Exec func(ctx context.Context, c Container, command []string) (ExecResult, error)
	// Denied tells whether a registry refuses a login; nil for never. It is called with locks.
	Denied func(ref string, login v1.RegistryLogin) bool
	// DiskSize is the size of the disk that images are on, of which each that was pulled takes ImageSize, in bytes.
	DiskSize, ImageSize int64
	// Images are here from the beginning, as if they had been loaded. Any other reference is there to be pulled.
	Images []Image
}

// FakeProcess is how a fake container's process behaves.
type FakeProcess struct {
	// RunFor is when it ends by itself; 0 is never.
	RunFor time.Duration
	// ExitCode and OOMKilled are of a process that ended by itself.
	ExitCode  int
	OOMKilled bool
	// Output is written when it starts.
	Output []v1.LogRecord
	// Deaf processes ignore all signals but SIGKILL.
	Deaf bool
}

// Fake is a Runtime in memory, cheap enough for a thousand in one process: a container costs an entry in a map, and one
// timer serves all that are to end by themselves. It outlives whoever uses it, as a real runtime outlives the agent, so a
// second agent finds the containers of the first.
type Fake struct {
	o FakeOptions

	mu         sync.Mutex
	containers map[string]*fakeContainer
	logs       map[string]*fakeLog
	images     map[string]Image
	files      map[string][]File
	volumes    map[string]Volume
	pid        uint32
	lost       error
	changed    chan struct{} // closed at the next change that somebody may wait for; nil while nobody does
	ends       []State       // what Events yields; the first is number firstEnd
	firstEnd   int
	due        fakeDue
	timer      *time.Timer
	calls      map[FakeOp]int
}

type fakeContainer struct {
	state     State
	container Container
	process   FakeProcess
	copied    map[string][]byte // by path
}

// fakeEnds bounds the ends that a Fake remembers for Events; a reader further behind is told that the runtime was lost.
const fakeEnds = 512

// NewFake is a runtime without containers.
func NewFake(o FakeOptions) *Fake {
	if o.Now == nil {
		o.Now = time.Now
	}
	f := &Fake{o: o, containers: map[string]*fakeContainer{}, logs: map[string]*fakeLog{}, images: map[string]Image{},
		files: map[string][]File{}, volumes: map[string]Volume{}, calls: map[FakeOp]int{}}
	for _, image := range o.Images {
		image.Loaded = true
		f.images[image.Name] = image
	}
	return f
}

// enter begins a call: it counts it, waits as long as injected, and fails as injected or while the runtime is lost. It
// returns with the lock held if there is no error.
func (f *Fake) enter(ctx context.Context, op FakeOp, id string) error {
	if f.o.Delay != nil {
		if d := f.o.Delay(op, id); d > 0 {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	var injected error
	if f.o.Fail != nil {
		injected = f.o.Fail(op, id)
	}
	f.mu.Lock()
	f.calls[op]++
	if err := cmp.Or(f.lost, injected); err != nil {
		f.mu.Unlock()
		return err
	}
	return nil
}

// Calls counts the calls of an operation so far, failed ones too.
func (f *Fake) Calls(op FakeOp) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Info implements Runtime.
func (f *Fake) Info(context.Context) (Info, error) { return Info{Version: "fake", Cgroup: 2}, nil }

// Create implements Runtime.
func (f *Fake) Create(ctx context.Context, c Container) error {
	if err := f.enter(ctx, FakeCreate, c.ID); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if c.ID == "" {
		return fmt.Errorf("%w: a container without an ID", ErrInvalid)
	}
	if _, ok := f.containers[c.ID]; ok {
		return nil
	}
	if _, ok := f.images[c.Image]; !ok {
		return fmt.Errorf("%w: image %q", ErrNotFound, c.Image)
	}
	labels := make(map[string]string, len(c.Spec.Labels)+len(c.Labels))
	maps.Copy(labels, c.Spec.Labels)
	maps.Copy(labels, c.Labels)
	f.use(c.Image)
	f.makeVolumes(c)
	f.containers[c.ID] = &fakeContainer{state: State{ID: c.ID, Labels: labels, Status: Created, Healthcheck: fakeHealth(c.Spec.Healthcheck)}, container: c}
	return nil
}

// Start implements Runtime.
func (f *Fake) Start(ctx context.Context, id string) (uint32, error) {
	if err := f.enter(ctx, FakeStart, id); err != nil {
		return 0, err
	}
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return 0, fmt.Errorf("%w: container %q", ErrNotFound, id)
	}
	switch c.state.Status {
	case Running:
		return c.state.PID, nil
	case Ended:
		return 0, fmt.Errorf("runtime: container %q has ended and is not started again", id)
	}
	if f.o.Process != nil {
		c.process = f.o.Process(c.container)
	}
	f.pid++
	c.state.Status, c.state.PID, c.state.Started = Running, f.pid, f.o.Now()
	if len(c.process.Output) > 0 {
		f.write(c, c.process.Output...)
	}
	if c.process.RunFor > 0 {
		f.endAt(id, c.process.RunFor)
	}
	return c.state.PID, nil
}

// Signal implements Runtime.
func (f *Fake) Signal(ctx context.Context, id, signal string) error {
	number, ok := fakeSignals[strings.TrimPrefix(strings.ToUpper(signal), "SIG")]
	if !ok {
		return fmt.Errorf("%w: signal %q", ErrInvalid, signal)
	}
	if err := f.enter(ctx, FakeSignal, id); err != nil {
		return err
	}
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return fmt.Errorf("%w: container %q", ErrNotFound, id)
	}
	if c.state.Status == Running && (number == 9 || !c.process.Deaf) {
		f.end(c, 128+number, false)
	}
	return nil
}

// fakeSignals are those that end a process which does not handle them.
var fakeSignals = map[string]int{"": 15, "HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15}

// Remove implements Runtime.
func (f *Fake) Remove(ctx context.Context, id string) error {
	if err := f.enter(ctx, FakeRemove, id); err != nil {
		return err
	}
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return nil
	}
	if c.state.Status == Running {
		f.end(c, 137, false)
	}
	f.use(c.container.Image)
	delete(f.containers, id)
	f.wake()
	return nil
}

// List implements Runtime.
func (f *Fake) List(ctx context.Context) ([]State, error) {
	if err := f.enter(ctx, FakeList, ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	states := make([]State, 0, len(f.containers))
	for _, c := range f.containers {
		states = append(states, c.state)
	}
	slices.SortFunc(states, func(a, b State) int { return cmp.Compare(a.ID, b.ID) })
	return states, nil
}

// State implements Runtime.
func (f *Fake) State(ctx context.Context, id string) (State, error) {
	if err := f.enter(ctx, FakeList, id); err != nil {
		return State{}, err
	}
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return State{}, fmt.Errorf("%w: container %q", ErrNotFound, id)
	}
	return c.state, nil
}

// fakeHealth is a container's health check; images have none of their own.
func fakeHealth(h *v1.Healthcheck) *v1.Healthcheck {
	switch {
	case h == nil, h.HTTP == nil && h.TCP == nil && len(h.Test) < 2:
		return nil
	case len(h.Test) == 2 && h.Test[0] == "CMD-SHELL":
		shell := *h
		shell.Test = []string{"CMD", "/bin/sh", "-c", h.Test[1]}
		return &shell
	}
	return h
}

// Exec implements Runtime.
func (f *Fake) Exec(ctx context.Context, id string, command []string, limit int) (ExecResult, error) {
	if err := f.enter(ctx, FakeExec, id); err != nil {
		return ExecResult{}, err
	}
	c, ok := f.containers[id]
	running := ok && c.state.Status == Running
	f.mu.Unlock()
	if !running {
		return ExecResult{}, fmt.Errorf("%w: running container %q", ErrNotFound, id)
	}
	if f.o.Exec == nil {
		return ExecResult{}, nil
	}
	r, err := f.o.Exec(ctx, c.container, command)
	r.Output = r.Output[:min(len(r.Output), limit)]
	return r, err
}

// Run implements Runtime. The command is what Options.Exec makes of it; without that it writes its input to its output.
func (f *Fake) Run(ctx context.Context, id string, p Process) (int, error) {
	if f.o.Exec != nil {
		r, err := f.Exec(ctx, id, p.Command, math.MaxInt)
		if err == nil {
			_, err = p.Stdout.Write(r.Output)
		}
		return r.ExitCode, err
	}
	if _, err := f.Exec(ctx, id, p.Command, 0); err != nil || p.Stdin == nil {
		return 0, err
	}
	_, err := io.Copy(p.Stdout, p.Stdin)
	return 0, err
}

// Container is what a container was made of.
func (f *Fake) Container(id string) (Container, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok {
		return Container{}, false
	}
	return c.container, true
}

// Close implements Runtime; the containers stay.
func (f *Fake) Close() error { return nil }
