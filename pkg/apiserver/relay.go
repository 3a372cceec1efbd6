package apiserver

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// A node streams its logs to the manager that holds its session. Where a user asks another manager, that one asks the first:
// relaying is one step, never more.

const (
	// maxRelays is how many streams one server relays, and how many it gives to others to relay.
	maxRelays = 1024
	// relayDial bounds how long it takes to reach another manager.
	relayDial = 3 * time.Second
	// relayPing is after how much silence a connection to another manager is asked whether it is still there, and how long that may take:
	// one that stood through a cut of the network would fail every stream that is put on it.
	relayPing = 3 * time.Second
	// maxRelayProblem bounds what is read of a refusal, in bytes.
	maxRelayProblem = 64 << 10
)

// relays are the streams of nodes that are connected to other managers.
type relays struct {
	given, taken gate
	client       *http.Client // nil for a server that has no identity
}

func newRelays(backing Backing) *relays {
	r := &relays{given: newGate(maxRelays, "log streams for other managers"), taken: newGate(maxRelays, "log streams of other managers")}
	if backing.Identity != nil {
		r.client = &http.Client{Transport: &http.Transport{
			TLSClientConfig:     backing.Identity.ClientTLS(),
			DialContext:         (&net.Dialer{Timeout: relayDial}).DialContext,
			TLSHandshakeTimeout: relayDial,
			IdleConnTimeout:     30 * time.Second,
			ForceAttemptHTTP2:   true, // the streams of many tasks share a connection
			DisableCompression:  true,
			HTTP2:               &http.HTTP2Config{SendPingTimeout: relayPing, PingTimeout: relayPing, WriteByteTimeout: 2 * relayPing},
		}}
	}
	return r
}

func (r *relays) close() {
	if r.client != nil {
		r.client.CloseIdleConnections()
	}
}

// relayed gives another manager the output of a task of a node that is connected here.
func (s *Server) relayed(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	options, err := logOptions(r)
	if err != nil {
		return err
	}
	leave, err := b.relays.given.enter()
	if err != nil {
		return err
	}
	defer leave()
	from := v1.TaskLogRecord{Task: r.PathValue("task"), Node: r.PathValue("ref")}
	se := b.sessions.of(from.Node)
	if se == nil {
		return problemf(http.StatusNotFound, "node %s is not connected to this manager", clip(from.Node))
	}
	reading, done := s.reading(w, r, b, v1.KindTask, from.Task, options)
	defer done()
	reading.known[from.Task] = &logAsked{options: options}
	if why := reading.ask(se, from, options); why != "" {
		return problemf(http.StatusTooManyRequests, "%s", why)
	}
	if err := reading.out.write(nil); err != nil {
		return err
	}
	return reading.pass(nil)
}

// relay asks the manager that holds a node's session for a task's output, or tells why that is not possible.
func (l *logReading) relay(from v1.TaskLogRecord, o v1.LogOptions) (why string) {
	snapshot, err := l.backend.store.Snapshot(l.ctx, 0)
	if err != nil {
		return "node " + from.Node + " is not available"
	}
	p, ok := store.Get(snapshot, v1.Presences, from.Node)
	if !ok || p.Status.Manager == "" || p.Status.Manager == l.backend.backing.Node {
		return "node " + from.Node + " is not available"
	}
	manager := p.Status.Manager
	addr := managerAddr(snapshot, manager)
	r := l.backend.relays
	if addr == "" || r.client == nil {
		return "node " + from.Node + " is connected to manager " + manager + ", which this server cannot ask"
	}
	leave, err := r.taken.enter()
	if err != nil {
		return err.Error()
	}
	stream := &logStream{id: v1.NewID(), from: from, ctx: l.ctx, to: l.events}
	l.open[from.Task] = stream
	l.work.Go(func() {
		defer leave()
		about := "manager " + manager + ", which node " + from.Node + " is connected to, "
		why, began := l.fetch(stream, about, relayURL(addr, from, o))
		stream.send(logEvent{end: true, why: why, unanswered: !began})
	})
	return ""
}

func relayURL(addr string, from v1.TaskLogRecord, o v1.LogOptions) string {
	query := url.Values{"tail": {strconv.Itoa(o.Tail)}, "stdout": {strconv.FormatBool(o.Stdout)}, "stderr": {strconv.FormatBool(o.Stderr)},
		"follow": {strconv.FormatBool(o.Follow)}}
	if !o.Since.IsZero() {
		query.Set("since", o.Since.Format(time.RFC3339Nano))
	}
	u := url.URL{Scheme: "https", Host: addr, Path: "/v1/nodes/" + from.Node + "/tasks/" + from.Task + "/logs", RawQuery: query.Encode()}
	return u.String()
}

// fetch passes on what another manager sends, and tells why there is no more where that is not as it should be, and whether it began.
func (l *logReading) fetch(stream *logStream, about, url string) (why string, began bool) {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return about + "cannot be asked: " + err.Error(), false
	}
	// It says that it is alive as often as this server does.
	silence := time.AfterFunc(3*l.every+relayDial, cancel)
	defer silence.Stop()
	resp, err := l.backend.relays.client.Do(req)
	if err != nil {
		return about + "cannot be reached", false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return about + "says: " + refusalOf(resp), false
	}
	why, err = l.backend.server.receive(stream, &livelyReader{resp.Body, func() { silence.Reset(3 * l.every) }})
	if err != nil && l.ctx.Err() == nil {
		return about + "was lost", true
	}
	return why, true
}

// refusalOf is what another manager answers in place of a stream.
func refusalOf(resp *http.Response) string {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRelayProblem))
	var p v1.Problem
	if json.Unmarshal(body, &p) == nil && p.Detail != "" {
		return cut(p.Detail)
	}
	return resp.Status
}

// livelyReader tells of every read that brought something.
type livelyReader struct {
	io.Reader
	alive func()
}

// Read implements io.Reader.
func (l *livelyReader) Read(b []byte) (int, error) {
	n, err := l.Reader.Read(b)
	if n > 0 {
		l.alive()
	}
	return n, err
}
