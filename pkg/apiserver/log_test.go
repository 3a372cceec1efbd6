package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
)

// output is what a fake agent sends for a task.
type output func(ctx context.Context, r v1.StreamRequest) iter.Seq2[v1.LogRecord, error]

// hello says who it is, and what it was asked for.
func hello(_ context.Context, r v1.StreamRequest) iter.Seq2[v1.LogRecord, error] {
	return func(yield func(v1.LogRecord, error) bool) {
		for i := range 3 {
			line := fmt.Sprintf("%s line %d tail %d follow %v", r.Task, i, r.Logs.Tail, r.Logs.Follow)
			if !yield(v1.LogRecord{Time: time.Unix(int64(i), 0), Stream: "stdout", Line: []byte(line)}, nil) {
				return
			}
		}
	}
}

// answerLogs lets a fake agent answer the streams that its session asks for, until the test ends. It tells the tasks whose
// streams have ended.
func (a *agent) answerLogs(say output) <-chan string {
	ctx, cancel := context.WithCancel(a.ctx)
	ended := make(chan string, 100)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			m, err, ok := a.next()
			if err != nil || !ok {
				return
			}
			for _, r := range m.Streams {
				all.Go(func() {
					ctx, cancel := context.WithCancel(ctx)
					defer cancel()
					a.client.Node(a.name).Stream(ctx, r.ID, say(ctx, r))
					ended <- r.Task
				})
			}
		}
	})
	a.Cleanup(func() { // before that of connect
		cancel()
		a.hangUp()
		all.Wait()
	})
	return ended
}

func (f *fixture) logs(kind, ref string, o v1.LogOptions) (lines []string, failures []string) {
	f.Helper()
	for record, err := range f.client.Logs(f.ctx, kind, ref, o) {
		switch {
		case err != nil:
			f.Fatalf("logs of %s: %v", ref, err)
		case record.Error != "":
			failures = append(failures, record.Task+": "+record.Error)
		default:
			lines = append(lines, fmt.Sprintf("%s@%s %s: %s", record.Name, record.Node, record.Stream, record.Line))
		}
	}
	slices.Sort(lines)
	return lines, failures
}

func TestLogs(t *testing.T) {
	f := serve(t)
	web := f.create(web("web"))
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), taskOp("a", web.Meta.ID, "node1", "r", 1), taskOp("b", web.Meta.ID, "node1", "r", 2),
		taskOp("c", web.Meta.ID, "node2", "r", 3), taskOp("d", web.Meta.ID, "", "r", 4))
	f.sessionAgent(hello)
	lines, failures := f.logs("services", "web", v1.LogOptions{Stdout: true, Tail: 7})
	want := []string{
		"web.1@node1 stdout: a line 0 tail 7 follow false", "web.1@node1 stdout: a line 1 tail 7 follow false", "web.1@node1 stdout: a line 2 tail 7 follow false",
		"web.2@node1 stdout: b line 0 tail 7 follow false", "web.2@node1 stdout: b line 1 tail 7 follow false", "web.2@node1 stdout: b line 2 tail 7 follow false",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got %s\nwant %s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if want := []string{"c: node node2 is not available"}; !slices.Equal(failures, want) {
		t.Errorf("failures %q, want %q", failures, want)
	}
	if lines, failures := f.logs("tasks", "b", v1.LogOptions{Stderr: true, Tail: -1}); len(lines) != 3 || failures != nil {
		t.Errorf("of a task: %q, %q", lines, failures)
	}
	if lines, failures := f.logs("tasks", "d", v1.LogOptions{Stdout: true, Tail: -1}); lines != nil || failures != nil {
		t.Errorf("of a task without a node: %q, %q", lines, failures)
	}
	for _, err := range f.client.Logs(f.ctx, "services", "none", v1.LogOptions{Stdout: true}) {
		f.refused(err, http.StatusNotFound, "service none not found")
	}
}

// sessionAgent is an agent of node1 that answers streams.
func (f *fixture) sessionAgent(say output) {
	a := f.connect("node1")
	a.answerLogs(say)
}

func TestLogsFail(t *testing.T) {
	f := serve(t, func(o *apiserver.Options) { o.Limits.StreamWait = 20 * time.Millisecond })
	f.commit(nodeOp("node1", 1), taskOp("a", "s", "node1", "r", 1))
	f.connect("node1") // hears, and says nothing
	if _, failures := f.logs("tasks", "a", v1.LogOptions{Stdout: true}); len(failures) != 1 || !strings.Contains(failures[0], "did not answer within 20ms") {
		t.Errorf("%q", failures)
	}
	f = serve(t)
	f.commit(nodeOp("node1", 1), taskOp("a", "s", "node1", "r", 1))
	f.sessionAgent(func(ctx context.Context, r v1.StreamRequest) iter.Seq2[v1.LogRecord, error] {
		return func(yield func(v1.LogRecord, error) bool) {
			_ = yield(v1.LogRecord{Stream: "stdout", Line: []byte("one")}, nil) && yield(v1.LogRecord{}, errors.New("the log is damaged"))
		}
	})
	lines, failures := f.logs("tasks", "a", v1.LogOptions{Stdout: true})
	if len(lines) != 1 || len(failures) != 1 || failures[0] != "a: the log is damaged" {
		t.Errorf("%q %q", lines, failures)
	}
}

// TestLogsFollow follows a service to which a task comes later, and stops the agent's records when nobody listens.
func TestLogsFollow(t *testing.T) {
	f := serve(t, quick)
	web := f.create(web("web"))
	f.commit(nodeOp("node1", 1), taskOp("a", web.Meta.ID, "node1", "r", 1))
	ended := f.connect("node1").answerLogs(func(ctx context.Context, r v1.StreamRequest) iter.Seq2[v1.LogRecord, error] {
		return func(yield func(v1.LogRecord, error) bool) {
			for yield(v1.LogRecord{Stream: "stdout", Line: []byte(r.Task)}, nil) {
				select {
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
					return
				}
			}
		}
	})
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	seen := make(map[string]bool)
	for record, err := range f.client.Logs(ctx, "services", "web", v1.LogOptions{Stdout: true, Follow: true}) {
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !seen[record.Task] {
			seen[record.Task] = true
			if record.Task == "a" {
				f.commit(taskOp("b", web.Meta.ID, "node1", "r", 2))
			}
		}
		if len(seen) == 2 {
			cancel()
		}
	}
	for range 2 {
		select {
		case <-ended:
		case <-f.ctx.Done():
			t.Fatal("an agent goes on sending what nobody reads")
		}
	}
}

// TestForeignStream: a node can neither open another's stream nor one twice.
func TestForeignStream(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), taskOp("a", "s", "node1", "r", 1))
	a := f.connect("node1")
	read := make(chan []string)
	go func() {
		var lines []string
		for record, err := range f.client.Logs(f.ctx, "tasks", "a", v1.LogOptions{Stdout: true}) {
			if err == nil {
				lines = append(lines, string(record.Line)+record.Error)
			}
		}
		read <- lines
	}()
	a.until(func() bool { return len(a.last.Streams) == 1 })
	id := a.last.Streams[0].ID
	forged := func(yield func(v1.LogRecord, error) bool) { yield(v1.LogRecord{Line: []byte("forged")}, nil) }
	f.refused(f.client.Node("node2").Stream(f.ctx, id, forged), http.StatusNotFound)
	real := func(yield func(v1.LogRecord, error) bool) { yield(v1.LogRecord{Line: []byte("real")}, nil) }
	if err := f.client.Node("node1").Stream(f.ctx, id, real); err != nil {
		t.Error(err)
	}
	if lines := <-read; !slices.Equal(lines, []string{"real"}) {
		t.Errorf("%q", lines)
	}
	f.refused(f.client.Node("node1").Stream(f.ctx, id, forged), http.StatusNotFound)
}

// TestLogNonsense lets an agent send what are no records.
func TestLogNonsense(t *testing.T) {
	for _, body := range []string{"nonsense\n", `{"line":5}`, `{"line":"` + strings.Repeat("A", 2<<20) + `"}`} {
		f := serve(t)
		f.commit(nodeOp("node1", 1), taskOp("a", "s", "node1", "r", 1))
		a := f.connect("node1")
		read := make(chan string)
		go func() {
			text := ""
			for record, err := range f.client.Logs(f.ctx, "tasks", "a", v1.LogOptions{Stdout: true}) {
				if err == nil {
					text += string(record.Line) + record.Error
				}
			}
			read <- text
		}()
		a.until(func() bool { return len(a.last.Streams) == 1 })
		req, err := http.NewRequestWithContext(f.ctx, "POST", "http://swarmd/v1/nodes/node1/streams/"+a.last.Streams[0].ID, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := f.http.Do(req); err == nil {
			if resp.StatusCode/100 != 4 {
				t.Errorf("%.20s: %s", body, resp.Status)
			}
			resp.Body.Close()
		}
		if got := <-read; !strings.HasPrefix(got, "node node1 sent ") {
			t.Errorf("%.20s: %q", body, got)
		}
	}
}

// TestUploadEndsItsConnection: what ends a stream is a deadline on the connection's reads. A later request on the same
// connection would be cancelled before it began, and the agent's reports with it.
func TestUploadEndsItsConnection(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1), taskOp("a", "s", "node1", "r", 1))
	a := f.connect("node1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range f.client.Logs(f.ctx, "tasks", "a", v1.LogOptions{Stdout: true}) {
			continue
		}
	}()
	a.until(func() bool { return len(a.last.Streams) == 1 })
	req, err := http.NewRequestWithContext(f.ctx, "POST", "http://swarmd/v1/nodes/node1/streams/"+a.last.Streams[0].ID,
		strings.NewReader(`{"stream":"stdout","line":"aGk="}`+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	<-done
	if resp.StatusCode != http.StatusNoContent || !resp.Close {
		t.Errorf("the upload was answered with %s, and the connection stays open: %v", resp.Status, !resp.Close)
	}
}

// TestLogsFollowSilence: a task that prints nothing for longer than its node may take to answer is followed all the same.
func TestLogsFollowSilence(t *testing.T) {
	f := serve(t, quick, func(o *apiserver.Options) { o.Limits.StreamWait = 500 * time.Millisecond })
	f.commit(nodeOp("node1", 1), taskOp("a", "s", "node1", "r", 1))
	f.sessionAgent(func(ctx context.Context, _ v1.StreamRequest) iter.Seq2[v1.LogRecord, error] {
		return func(yield func(v1.LogRecord, error) bool) {
			select {
			case <-time.After(time.Second): // twice what the node has to answer
				yield(v1.LogRecord{Stream: "stdout", Line: []byte("at last")}, nil)
			case <-ctx.Done():
			}
		}
	})
	lines, failures := f.logs("tasks", "a", v1.LogOptions{Stdout: true, Follow: true})
	if want := []string{"web.1@node1 stdout: at last"}; !slices.Equal(lines, want) || failures != nil {
		t.Errorf("%q %q, want %q", lines, failures, want)
	}
}

// TestLogsFollowAsksAgain: a task whose node is not connected when it comes there is followed from when it is, with what was asked for.
func TestLogsFollowAsksAgain(t *testing.T) {
	f := serve(t, quick)
	web := f.create(web("web"))
	f.commit(nodeOp("node1", 1), taskOp("a", web.Meta.ID, "node1", "r", 1))
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	var got []string
	for record, err := range f.client.Logs(ctx, "services", "web", v1.LogOptions{Stdout: true, Follow: true, Tail: 5}) {
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(record.Line)+record.Error)
		switch len(got) {
		case 1:
			f.sessionAgent(hello)
			f.commit(statusOp("a", v1.TaskRunning, ""))
		case 4:
			f.commit(statusOp("a", v1.TaskFailed, "")) // asks for nothing
			cancel()
		}
	}
	want := []string{"node node1 is not available", "a line 0 tail 5 follow true", "a line 1 tail 5 follow true", "a line 2 tail 5 follow true"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
