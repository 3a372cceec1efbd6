package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// maxLogTasks is how many tasks one log request reads from.
const maxLogTasks = 1000

// logRoutes are the doors to the output of tasks.
func (s *Server) logRoutes() []route {
	query := []string{"stdout", "stderr", "follow", "since", "tail", "timestamps"}
	return []route{
		{method: http.MethodGet, path: "/v1/services/{ref}/logs", resource: "logs", stream: true, may: rightsView, query: query, out: v1.TaskLogRecord{},
			summary: "Read the output of a service's tasks, one JSON object a line.",
			handle:  func(w http.ResponseWriter, r *http.Request) error { return s.logs(w, r, v1.KindService) }},
		{method: http.MethodGet, path: "/v1/tasks/{ref}/logs", resource: "logs", stream: true, may: rightsView, query: query, out: v1.TaskLogRecord{},
			summary: "Read the output of a task, one JSON object a line.",
			handle:  func(w http.ResponseWriter, r *http.Request) error { return s.logs(w, r, v1.KindTask) }},
		{method: http.MethodGet, path: "/v1/nodes/{ref}/tasks/{task}/logs", resource: "logs", stream: true, may: rightsManager, query: query,
			out: v1.TaskLogRecord{}, summary: "Read the output of a task whose node is connected to this manager, as another manager.", handle: s.relayed},
	}
}

// logs streams the output of tasks, as it comes from their nodes.
func (s *Server) logs(w http.ResponseWriter, r *http.Request, k v1.Kind) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	options, err := logOptions(r)
	if err != nil {
		return err
	}
	of, who := s.placesOf(r)
	leave, err := of.logReaders.enterAs(who)
	if err != nil {
		return err
	}
	defer leave()
	target, err := b.resolve(r.Context(), k, r.PathValue("ref"))
	if err != nil {
		return err
	}
	reading, done := s.reading(w, r, b, k, target.GetMeta().ID, options)
	defer done()
	snapshot, err := b.store.Snapshot(reading.ctx, 0)
	if err != nil {
		return err
	}
	return reading.run(snapshot)
}

// reading begins a log request; done ends it.
func (s *Server) reading(w http.ResponseWriter, r *http.Request, b *backend, k v1.Kind, target string, o v1.LogOptions) (l *logReading, done func()) {
	ctx, cancel := b.bind(r.Context())
	l = &logReading{
		backend: b, ctx: ctx, options: o, kind: k, target: target, out: s.newStream(w, r),
		events: make(chan logEvent, 64), open: make(map[string]*logStream), known: make(map[string]*logAsked), every: s.limits.Keepalive,
	}
	l.out.sse = false
	return l, func() {
		cancel(nil)
		for _, stream := range l.open {
			b.streams.drop(stream)
		}
		l.work.Wait()
	}
}

// logOptions reads the query of a log request.
func logOptions(r *http.Request) (v1.LogOptions, error) {
	o := v1.LogOptions{Tail: -1}
	var err error
	for _, p := range []struct {
		name string
		to   *bool
	}{{"stdout", &o.Stdout}, {"stderr", &o.Stderr}, {"follow", &o.Follow}, {"timestamps", new(bool)}} { // records always have their time
		if *p.to, err = boolQuery(r, p.name); err != nil {
			return o, err
		}
	}
	if !o.Stdout && !o.Stderr {
		return o, problemf(http.StatusBadRequest, "Bad parameters: you must choose at least one stream")
	}
	if tail := r.URL.Query().Get("tail"); tail != "" && tail != "all" {
		n, err := intQuery(r, "tail", -1, -1, math.MaxInt32)
		if err != nil {
			return o, err
		}
		o.Tail = int(n)
	}
	o.Since, err = sinceOf(r.URL.Query().Get("since"))
	return o, err
}

// sinceOf reads a time as Docker does: RFC 3339, seconds since 1970 with a fraction, or a span before now.
func sinceOf(text string) (time.Time, error) {
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	if span, err := time.ParseDuration(text); err == nil && span > 0 {
		return time.Now().Add(-span), nil
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds > 0 && seconds < 1e11 {
		whole, fraction := math.Modf(seconds)
		return time.Unix(int64(whole), int64(fraction*1e9)), nil
	}
	return time.Time{}, problemf(http.StatusBadRequest, "query parameter since: want a time such as 2026-01-31T15:04:05Z, seconds since 1970 or 10m, found %q", clip(text))
}

// logReading is one log request.
type logReading struct {
	backend *backend
	ctx     context.Context
	options v1.LogOptions
	kind    v1.Kind
	target  string
	out     *lineStream
	every   time.Duration

	work     sync.WaitGroup // of streams that others relay
	events   chan logEvent
	open     map[string]*logStream // by task
	known    map[string]*logAsked  // tasks that were asked for
	failures []v1.TaskLogRecord
}

// logAsked is a task whose output was asked for.
type logAsked struct {
	options v1.LogOptions
	again   bool // nothing came of it, and not for a reason of the task's
}

// run reads until all streams have ended, or with follow until nobody listens.
func (l *logReading) run(s *store.Snapshot) error {
	l.begin(s, l.options)
	if !l.options.Follow && len(l.open) == 0 && len(l.failures) == 0 {
		return l.out.write(nil)
	}
	placed := make(chan *v1.Task)
	if l.options.Follow {
		ctx, stop := context.WithCancel(l.ctx)
		watching := make(chan struct{})
		defer func() { stop(); <-watching }()
		go func() {
			defer close(watching)
			l.watch(ctx, s.Revision(), placed)
		}()
		if err := l.out.write(nil); err != nil {
			return err
		}
	}
	return l.pass(placed)
}

// pass passes on what comes, also of tasks that get a node later on, until all streams have ended.
func (l *logReading) pass(placed <-chan *v1.Task) error {
	keepalive := time.NewTicker(l.every)
	defer keepalive.Stop()
	late := l.options
	late.Tail = -1
	for !l.finished() {
		select {
		case e := <-l.events:
			if err := l.take(e); err != nil {
				return err
			}
		case t := <-placed:
			l.start(t, late)
		case <-keepalive.C:
			if err := l.out.write([]byte{'\n'}); err != nil {
				return err
			}
		case <-l.ctx.Done():
			return l.farewell(context.Cause(l.ctx))
		}
		if l.options.Follow && len(l.failures) > 0 {
			if err := l.tellFailures(); err != nil {
				return err
			}
		}
	}
	return l.tellFailures()
}

// farewell tells whoever may not read on why that is.
func (l *logReading) farewell(cause error) error {
	if p, ok := errors.AsType[*v1.Problem](cause); ok && l.out.begun {
		l.failures = append(l.failures, v1.TaskLogRecord{Task: l.target, Name: strings.ToLower(string(l.kind)), Error: p.Detail})
		_ = l.tellFailures() // it ends either way
	}
	return cause
}

func (l *logReading) finished() bool {
	if len(l.open) > 0 {
		return false
	}
	return !l.options.Follow || l.kind == v1.KindTask && l.known[l.target] != nil
}

// begin starts the streams of all tasks that there are.
func (l *logReading) begin(s *store.Snapshot, o v1.LogOptions) {
	if l.kind == v1.KindTask {
		if t, ok := store.Get(s, v1.Tasks, l.target); ok {
			l.start(t, o)
		}
		return
	}
	for t := range s.TasksOfService(l.target) {
		l.start(t, o)
	}
}

// start asks a task's node for its output, once; where the node was not to be reached or did not answer, again as the task goes on.
func (l *logReading) start(t *v1.Task, o v1.LogOptions) {
	node, asked := v1.TaskNode(t), l.known[t.Meta.ID]
	switch {
	case node == "":
		return
	case asked != nil && (!asked.again || v1.Observed(t).Terminal()):
		return
	case asked != nil:
		o = asked.options
	case len(l.known) >= maxLogTasks:
		return
	}
	from := v1.TaskLogRecord{Task: t.Meta.ID, Name: v1.TaskName(t.Desired), Slot: t.Desired.Slot, Service: t.Desired.Service, Node: node}
	fail := func(why string) {
		from.Error = why
		l.failures = append(l.failures, from)
	}
	l.known[t.Meta.ID] = &logAsked{options: o}
	if len(l.known) == maxLogTasks {
		fail("there are more tasks: only the output of " + strconv.Itoa(maxLogTasks) + " is read")
		return
	}
	var why string
	if se := l.backend.sessions.of(node); se != nil {
		why = l.ask(se, from, o)
	} else {
		why = l.relay(from, o)
	}
	if why != "" {
		l.known[t.Meta.ID].again = true
		fail(why)
	}
}

// ask asks a node that is connected here for a task's output, or tells why that is not possible.
func (l *logReading) ask(se *session, from v1.TaskLogRecord, o v1.LogOptions) (why string) {
	stream := &logStream{id: v1.NewID(), from: from, ctx: l.ctx, to: l.events}
	l.open[from.Task] = stream
	l.backend.streams.open(stream, l.backend.server.limits.StreamWait)
	if !se.ask(v1.StreamRequest{ID: stream.id, Task: from.Task, Logs: o}) {
		l.backend.streams.drop(stream)
		delete(l.open, from.Task)
		return "node " + from.Node + " is asked for too many streams already"
	}
	return ""
}

// take passes one event on, and what else waits with it.
func (l *logReading) take(e logEvent) error {
	buf := takeBuffer()
	defer giveBuffer(buf)
	for {
		if e.end {
			delete(l.open, e.stream.from.Task)
			if asked := l.known[e.stream.from.Task]; asked != nil {
				asked.again = e.unanswered
			}
			if e.why != "" {
				failure := e.stream.from
				failure.Error = e.why
				l.failures = append(l.failures, failure)
			}
		} else {
			record := e.stream.from
			record.LogRecord = e.record
			if err := appendLine(buf, &record); err != nil {
				return err
			}
		}
		if len(*buf) >= flushAt {
			break
		}
		select {
		case e = <-l.events:
			continue
		default:
		}
		break
	}
	if len(*buf) == 0 {
		return nil
	}
	return l.out.write(*buf)
}

func appendLine(buf *[]byte, record *v1.TaskLogRecord) error {
	line, err := json.Marshal(record)
	*buf = append(append(*buf, line...), '\n')
	return err
}

// tellFailures sends why some output is missing.
func (l *logReading) tellFailures() error {
	buf := takeBuffer()
	defer giveBuffer(buf)
	for i := range l.failures {
		if err := appendLine(buf, &l.failures[i]); err != nil {
			return err
		}
	}
	l.failures = nil
	return l.out.write(*buf)
}

// watch finds the tasks that get a node later on.
func (l *logReading) watch(ctx context.Context, after int64, placed chan<- *v1.Task) {
	for {
		for batch, err := range l.backend.store.Watch(ctx, after) {
			if errors.Is(err, store.ErrCompacted) {
				break
			}
			if err != nil {
				return
			}
			after = batch.Revision
			for i := range batch.Changes {
				t, ok := batch.Changes[i].New.(*v1.Task)
				if !ok || t.Meta.ID != l.target && t.Desired.Service != l.target || v1.TaskNode(t) == "" {
					continue
				}
				select {
				case placed <- t:
				case <-ctx.Done():
					return
				}
			}
		}
		s, err := l.backend.store.Snapshot(ctx, after+1) // what was missed has to be looked for
		if err != nil {
			return
		}
		after = s.Revision()
		for t := range s.TasksOfService(l.target) {
			select {
			case placed <- t:
			case <-ctx.Done():
				return
			}
		}
	}
}
