package agent

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// errStreams is what a stream ends with that is one too many.
var errStreams = errors.New("agent: too many log streams at once on this node")

// earlyWait is how long a stream waits for its task to be assigned at all: a manager that follows a service asks for a task's output as
// soon as it knows where the task goes, which may be before the node's session does.
const earlyWait = 10 * time.Second

// records are what goes down a stream.
type records = iter.Seq2[v1.LogRecord, error]

// stream begins a stream that the manager asked for.
func (a *Agent) stream(s v1.StreamRequest) {
	if _, known := a.streams[s.ID]; known || s.ID == "" {
		return
	}
	if len(a.streams) >= 2*maxStreams {
		a.log.Warn("log stream refused", "task.id", s.Task, "streams", len(a.streams))
		return
	}
	if s.Image {
		a.giveImage(s)
		return
	}
	if s.Tunnel {
		a.beginTunnel(s)
		return
	}
	t := a.tasks[s.Task]
	switch {
	case len(a.streams) >= maxStreams:
		a.openStream(s, func(context.Context) records { return refused }, nil)
	case s.Logs.Follow && (t == nil || t.phase < phaseStarted):
		a.openEarly(s)
	default:
		a.openStream(s, func(ctx context.Context) records { return a.output(ctx, s) }, nil)
	}
}

// openStream opens a stream to the manager and sends the records down it. After runs in the loop once that is over.
func (a *Agent) openStream(s v1.StreamRequest, of func(context.Context) records, after func()) {
	ctx, cancel := context.WithCancel(a.ctx)
	a.streams[s.ID] = cancel
	a.workers.Go(func() {
		defer cancel()
		if err := a.o.Manager.Stream(ctx, s.ID, of(ctx)); err != nil && ctx.Err() == nil {
			a.log.Debug("log stream ended", "task.id", s.Task, "err", err)
		}
		a.post(func() {
			delete(a.streams, s.ID)
			if after != nil {
				after()
			}
		})
	})
}

// openEarly opens a stream that follows a task which has not started yet. It is opened at once: the manager gives up a node that does
// not answer, and a task's start may take as long as a pull. It begins when the task has started, or turns out never to.
func (a *Agent) openEarly(s v1.StreamRequest) {
	begin := make(chan struct{})
	a.early[s.Task] = append(a.early[s.Task], begin)
	unknown := time.AfterFunc(earlyWait, func() {
		a.post(func() {
			if a.tasks[s.Task] == nil {
				a.beginStreams(s.Task)
			}
		})
	})
	a.openStream(s, func(ctx context.Context) records {
		return func(yield func(v1.LogRecord, error) bool) {
			select {
			case <-begin:
				a.output(ctx, s)(yield)
			case <-ctx.Done(): // nobody reads it any more
			}
		}
	}, func() {
		unknown.Stop()
		a.leaveEarly(s.Task, begin)
	})
}

// leaveEarly forgets a stream that waits no more.
func (a *Agent) leaveEarly(task string, begin chan struct{}) {
	left := slices.DeleteFunc(a.early[task], func(c chan struct{}) bool { return c == begin })
	if a.early[task] = left; len(left) == 0 {
		delete(a.early, task)
	}
}

// beginStreams begins the streams that waited for a task to start, or to turn out never to.
func (a *Agent) beginStreams(task string) {
	for _, begin := range a.early[task] {
		close(begin)
	}
	delete(a.early, task)
}

// output is what a task prints. That there is nothing to read from is no news: a task that never ran has printed nothing.
func (a *Agent) output(ctx context.Context, s v1.StreamRequest) records {
	return func(yield func(v1.LogRecord, error) bool) {
		for record, err := range a.o.Runtime.Logs(ctx, s.Task, s.Logs) {
			if errors.Is(err, engine.ErrNotFound) || !yield(record, err) {
				return
			}
		}
	}
}

// refused is a stream that has nothing but the reason why.
var refused records = func(yield func(v1.LogRecord, error) bool) {
	yield(v1.LogRecord{}, errStreams)
}
