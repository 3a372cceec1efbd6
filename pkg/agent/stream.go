package agent

import (
	"context"
	"errors"
	"iter"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// errStreams is what a stream ends with that is one too many.
var errStreams = errors.New("agent: too many log streams at once on this node")

// stream begins a stream that the manager asked for. One that follows a task which has not started yet waits for that.
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
	if len(a.streams) < maxStreams && t != nil && s.Logs.Follow && t.phase < phaseStarted {
		a.streams[s.ID] = func() {}
		t.streams = append(t.streams, s)
		return
	}
	a.beginStream(s, len(a.streams) >= maxStreams)
}

// beginStreams begins the streams that waited for a task to start, or to turn out never to.
func (a *Agent) beginStreams(t *task) {
	for _, s := range t.streams {
		a.beginStream(s, false)
	}
	t.streams = nil
}

// beginStream copies a task's output to the manager, or tells that there are too many streams already.
func (a *Agent) beginStream(s v1.StreamRequest, refuse bool) {
	ctx, cancel := context.WithCancel(a.ctx)
	a.streams[s.ID] = cancel
	a.workers.Go(func() {
		defer cancel()
		records := written(a.o.Runtime.Logs(ctx, s.Task, s.Logs))
		if refuse {
			records = refused
		}
		if err := a.o.Manager.Stream(ctx, s.ID, records); err != nil && ctx.Err() == nil {
			a.log.Debug("log stream ended", "task.id", s.Task, "err", err)
		}
		a.post(func() { delete(a.streams, s.ID) })
	})
}

// written are the records without the news that there are none: a task that never ran has printed nothing.
func written(records iter.Seq2[v1.LogRecord, error]) iter.Seq2[v1.LogRecord, error] {
	return func(yield func(v1.LogRecord, error) bool) {
		for record, err := range records {
			if errors.Is(err, engine.ErrNotFound) || !yield(record, err) {
				return
			}
		}
	}
}

// refused is a stream that has nothing but the reason why.
var refused iter.Seq2[v1.LogRecord, error] = func(yield func(v1.LogRecord, error) bool) {
	yield(v1.LogRecord{}, errStreams)
}
