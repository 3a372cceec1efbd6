package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// endWithin is how long a daemon that stops may take for it. What it works with need not come to an end by itself: a kernel that does
// not answer a request about a link, a disk. A process that is killed leaves everything so that the next goes on with it.
const endWithin = 15 * time.Second

// maxStacks bounds what is logged of where a daemon hangs, in bytes.
const maxStacks = 1 << 20

// parts are what a daemon has under way, by name: what keeps it from ending can be told.
type parts struct {
	mu      sync.Mutex
	running map[string]int
	once    sync.Once
	stops   chan struct{} // closed when the daemon begins to stop
}

func newParts() *parts { return &parts{running: make(map[string]int), stops: make(chan struct{})} }

// begin notes that something is under way until what it returns is called.
func (p *parts) begin(name string) (end func()) {
	p.add(name, 1)
	return func() { p.add(name, -1) }
}

func (p *parts) add(name string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running[name] += n; p.running[name] == 0 {
		delete(p.running, name)
	}
}

// names are what is under way.
func (p *parts) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for name := range p.running {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// stop notes that the daemon stops from now on.
func (p *parts) stop() { p.once.Do(func() { close(p.stops) }) }

// errStuck says that a daemon was told to stop and could not.
var errStuck = errors.New("swarmd does not come to its end, and is cut off")

// within runs a daemon's life, and goes without its end where that takes too long after it began to stop. The process has to end then.
func (p *parts) within(ctx context.Context, log *slog.Logger, patience time.Duration, live func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- live() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	case <-p.stops:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-ended:
		return err
	case <-timer.C:
	}
	names := strings.Join(p.names(), ", ")
	log.Error("swarmd does not come to its end, and is cut off; containers go on, and the next start goes on with what is there",
		"waits for", names, "after", patience)
	if log.Enabled(context.Background(), slog.LevelDebug) {
		stacks := make([]byte, maxStacks)
		log.Debug("what swarmd does", "goroutines", string(stacks[:runtime.Stack(stacks, true)]))
	}
	return fmt.Errorf("%w: it waits for %s", errStuck, names)
}
