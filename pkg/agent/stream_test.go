package agent

import (
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// readers are those that wait at a manager for what an agent streams.
type readers struct {
	mu     sync.Mutex
	opened []string // the streams that the agent opened, in order
	lines  map[string][]string
	leave  map[string]chan struct{} // closed when who reads a stream goes
}

// streamed is Manager.Stream as the real one does it: it returns when the records end, or at once when nobody reads them.
func (r *readers) streamed(id string, records iter.Seq2[v1.LogRecord, error]) error {
	r.mu.Lock()
	r.opened = append(r.opened, id)
	left := r.leave[id]
	r.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for record, err := range records {
			line := string(record.Line)
			if err != nil {
				line = "error: " + err.Error()
			}
			r.mu.Lock()
			r.lines[id] = append(r.lines[id], line)
			r.mu.Unlock()
		}
	}()
	select {
	case <-ended:
		return nil
	case <-left:
		return &v1.Problem{Status: 410, Title: "Gone"}
	}
}

// following is a request to follow a task.
func following(id, task string) v1.StreamRequest {
	return v1.StreamRequest{ID: id, Task: task, Logs: v1.LogOptions{Stdout: true, Follow: true, Tail: -1}}
}

// followed has an agent asked to follow tasks whose containers take a minute to start, and print a line then.
func followed(t *testing.T, test func(t *testing.T, l *lab, r *readers)) {
	t.Helper()
	o := engine.FakeOptions{
		Process: func(engine.Container) engine.FakeProcess {
			return engine.FakeProcess{Output: []v1.LogRecord{{Stream: "stdout", Line: []byte("hello")}}}
		},
		Delay: func(op engine.FakeOp, _ string) time.Duration {
			if op == engine.FakeStart {
				return time.Minute
			}
			return 0
		},
	}
	bubble(t, o, func(t *testing.T, l *lab) {
		r := &readers{lines: make(map[string][]string), leave: make(map[string]chan struct{})}
		l.swarm.streamed = r.streamed
		l.start(nil)
		settle(time.Second)
		test(t, l, r)
	})
}

// want tells which streams should be open by now, and what should have come.
func (r *readers) want(t *testing.T, l *lab, opened []string, lines map[string][]string, left int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if diff := cmp.Diff(opened, r.opened); diff != "" {
		t.Errorf("streams that were opened (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(lines, r.lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if n := l.streams(); n != left {
		t.Errorf("%d streams are open, want %d", n, left)
	}
	early := make(chan int)
	l.agent.post(func() { early <- len(l.agent.early) })
	if n := <-early; n > left {
		t.Errorf("%d tasks are waited for by %d streams", n, left)
	}
}

// TestFollowOpensAtOnce: the manager gives a node that does not answer up long before a task may have started.
func TestFollowOpensAtOnce(t *testing.T) {
	followed(t, func(t *testing.T, l *lab, r *readers) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		settle(time.Second)
		l.swarm.send(v1.Assignment{Streams: []v1.StreamRequest{following("s", "t1")}})
		settle(time.Second)
		r.want(t, l, []string{"s"}, map[string][]string{}, 1)
		settle(2 * time.Minute)
		r.want(t, l, []string{"s"}, map[string][]string{"s": {"hello"}}, 1)
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(time.Minute)
		r.want(t, l, []string{"s"}, map[string][]string{"s": {"hello"}}, 0)
	})
}

// TestFollowComesBeforeTheTask: a manager asks for a task's output as soon as it knows where the task goes, in the message that assigns
// it or in one before.
func TestFollowComesBeforeTheTask(t *testing.T) {
	followed(t, func(t *testing.T, l *lab, r *readers) {
		l.swarm.send(v1.Assignment{Streams: []v1.StreamRequest{following("before", "t1")}})
		settle(earlyWait / 2)
		l.swarm.service("web", nil)
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.swarm.mu.Lock()
		last := &l.swarm.messages[len(l.swarm.messages)-1]
		last.Streams = []v1.StreamRequest{following("with", "t1")}
		l.swarm.mu.Unlock()
		settle(10 * time.Second)
		if _, ok := l.agent.tasks["t1"]; !ok {
			t.Fatal("the task did not come")
		}
		settle(2*earlyWait + 2*time.Minute)
		r.want(t, l, []string{"before", "with"}, map[string][]string{"before": {"hello"}, "with": {"hello"}}, 2)
	})
}

// TestFollowEndsBeforeTheStart: a stream ends with the wait for a task that never comes, when its task goes before it started,
// and when its reader does.
func TestFollowEndsBeforeTheStart(t *testing.T) {
	followed(t, func(t *testing.T, l *lab, r *readers) {
		gone := make(chan struct{})
		r.leave["left"] = gone
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskReady) // which is not to start
		l.swarm.assign("t2", l.swarm.service("web", nil), v1.TaskReady)
		l.swarm.send(v1.Assignment{Streams: []v1.StreamRequest{following("never", "t9"), following("ended", "t1"), following("removed", "t2"), following("left", "t1")}})
		settle(time.Second)
		opened := []string{"never", "ended", "removed", "left"}
		r.mu.Lock()
		n := len(r.opened)
		r.opened = opened // they come in any order
		r.mu.Unlock()
		if n != 4 {
			t.Errorf("%d streams were opened", n)
		}
		close(gone)
		settle(time.Second)
		r.want(t, l, opened, map[string][]string{}, 3)
		settle(2 * earlyWait)
		r.want(t, l, opened, map[string][]string{}, 2)
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(time.Second)
		r.want(t, l, opened, map[string][]string{}, 1)
		l.swarm.remove("t2")
		settle(time.Second)
		r.want(t, l, opened, map[string][]string{}, 0)
	})
}
