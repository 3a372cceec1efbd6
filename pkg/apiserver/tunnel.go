package apiserver

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// A user's tunnel to a task is two requests that meet here: the user's, and one that the task's node opens when its session asks for it.
// What comes in the body of one goes out in the answer of the other, as it comes. Where the node is connected to another manager, that
// one's answer and body are the second request.

// maxTunnels is how many tunnels one server has at a time; a user may have userShare-th of them.
const maxTunnels = 512

// hangUp is how long a user may take to close their side once the far one has no more.
const hangUp = 5 * time.Second

// hearing is how long a user who is refused may take to say what they want.
const hearing = time.Second

// tunnelRoutes are the doors of tunnels to tasks.
func (s *Server) tunnelRoutes() []route {
	return []route{
		{method: http.MethodPost, path: "/v1/tasks/{ref}/tunnel", resource: "tunnels", stream: true, may: rightsOperate,
			summary: "Run a command in a task's container, or connect to a port of it: frames, both ways.", handle: s.tunnel},
		{method: http.MethodPost, path: "/v1/nodes/{ref}/tunnel", resource: "tunnels", stream: true, may: rightsOperate,
			query:   []string{"volume"},
			summary: "Have a node examine its part of the swarm's network, or tell of a volume or remove it: frames, both ways.", handle: s.tunnelToNode},
		{method: http.MethodPost, path: "/v1/nodes/{ref}/tasks/{task}/tunnel", resource: "tunnels", stream: true, may: rightsManager, audit: auditNever, query: []string{"image", "volume"},
			summary: "The same for a task whose node is connected to this manager, as another manager.", handle: s.relayTunnel},
		{method: http.MethodPost, path: "/v1/nodes/{ref}/image", resource: "tunnels", stream: true, may: rightsSelf, audit: auditNever, query: []string{"image", "again"},
			summary: "Read a part of the image of a task of this node from another node that runs it, or ran it: frames, both ways.", handle: s.imageTunnel},
		{method: http.MethodPost, path: "/v1/nodes/{ref}/tunnels/{stream}", resource: "tunnels", stream: true, may: rightsSelf, audit: auditNever,
			summary: "Open the node's end of a tunnel that a session asked for.", handle: s.meetTunnel},
	}
}

// tunnelEnd is one side of a tunnel: what comes from there is the request's body, and what goes there its answer.
type tunnelEnd struct {
	body    io.Reader
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// tunnelEnd is the side of whoever made a request. It is to be woken, or over, before the request is answered for.
func (s *Server) tunnelEnd(w http.ResponseWriter, r *http.Request) (*tunnelEnd, *backend, error) {
	e := &tunnelEnd{body: r.Body, w: w, control: http.NewResponseController(w)}
	if err := e.control.EnableFullDuplex(); err != nil {
		return nil, nil, fmt.Errorf("apiserver: a tunnel is not possible over this connection: %w", err)
	}
	if rec, ok := w.(*recorder); ok {
		rec.streamed = true
	}
	closeAfter(w, r)
	_ = e.control.SetReadDeadline(time.Time{})
	b, err := s.attached()
	return e, b, err
}

// begin sends the headers, which say that the tunnel is through.
func (e *tunnelEnd) begin() error {
	e.begun = true
	e.w.Header().Set("Content-Type", v1.TunnelType)
	e.w.Header().Set("Cache-Control", "no-store")
	e.w.WriteHeader(http.StatusOK)
	_ = e.control.SetWriteDeadline(time.Time{}) // which came with the header: it may be silent for as long as it likes
	return e.control.Flush()
}

// Read implements io.Reader.
func (e *tunnelEnd) Read(p []byte) (int, error) { return e.body.Read(p) }

// Write implements io.Writer. What is written is sent at once.
func (e *tunnelEnd) Write(p []byte) (int, error) {
	n, err := e.w.Write(p)
	if err == nil {
		err = e.control.Flush()
	}
	return n, err
}

// wake ends a Read that waits.
func (e *tunnelEnd) wake() { _ = e.control.SetReadDeadline(longAgo) }

// over wakes the side of a user, who begins by saying what they want. Who is refused is heard first: on a connection that is closed while they
// say it they may find that it was lost, and not the answer.
func (e *tunnelEnd) over(err error) {
	if err != nil && !e.begun {
		_ = e.control.SetReadDeadline(time.Now().Add(hearing))
		_, _, _ = v1.ReadFrame(e.body)
	}
	e.wake()
}

// carry passes on both ways until the far side has no more, or the user is gone, or ctx ends. wake ends a Read of the far side.
//
// A user who still sends when the far side ends is listened to until they have read that and hang up: on a connection that is closed over
// what they send they would not find the end, but only that it was lost.
func carry(ctx context.Context, user *tunnelEnd, far io.ReadWriter, wake func()) {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		user.wake()
		wake()
	})
	up := make(chan struct{})
	go func() {
		defer close(up)
		_, _ = io.Copy(onlyWriter{far}, onlyReader{user})
		wake() // whoever does not listen any more needs no answer
	}()
	if _, err := io.Copy(onlyWriter{user}, onlyReader{far}); err == nil {
		patience := time.NewTimer(hangUp)
		defer patience.Stop()
		select {
		case <-up:
		case <-patience.C:
		}
	}
	user.wake()
	<-up
	if !stop() {
		<-woken // the connections are not these requests' any more once they are answered
	}
}

// onlyReader and onlyWriter have io.Copy take no short cut, such as one that does not flush.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// meeting is where the two requests of a tunnel meet.
type meeting struct {
	id, node string
	far      chan *tunnelEnd // the node's end, handed over once
	over     chan struct{}   // closed when nothing is carried any more
}

// meetings are those that users wait at, by the ID that the nodes are told.
type meetings struct {
	mu  sync.Mutex
	all map[string]*meeting
}

func newMeetings() *meetings { return &meetings{all: make(map[string]*meeting)} }

func (m *meetings) open(node string) *meeting {
	one := &meeting{v1.NewID(), node, make(chan *tunnelEnd, 1), make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[one.id] = one
	return one
}

// claim takes a meeting for the node that was asked to come, once.
func (m *meetings) claim(id, node string) *meeting {
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.all[id]
	if one == nil || one.node != node {
		return nil
	}
	delete(m.all, id)
	return one
}

// close ends a meeting that is over.
func (m *meetings) close(one *meeting) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, one.id)
	close(one.over)
}

// tunnel leads a user to a task, wherever its node is connected.
func (s *Server) tunnel(w http.ResponseWriter, r *http.Request) error {
	return s.leadUser(w, r, func(b *backend) (node string, to v1.StreamRequest, err error) {
		target, err := b.resolve(r.Context(), v1.KindTask, r.PathValue("ref"))
		if err != nil {
			return "", to, err
		}
		t := target.(*v1.Task)
		noteWrite(r.Context(), v1.KindTask, t.Meta.ID, v1.TaskName(t.Desired), 0)
		if v1.Observed(t) != v1.TaskRunning && v1.Observed(t) != v1.TaskStarting {
			return "", to, problemf(http.StatusConflict, "task %s is not running: it is %s", v1.TaskName(t.Desired), v1.Observed(t))
		}
		return v1.TaskNode(t), v1.StreamRequest{Task: t.Meta.ID}, nil
	})
}

// tunnelToNode leads a user to a node itself, wherever it is connected.
func (s *Server) tunnelToNode(w http.ResponseWriter, r *http.Request) error {
	return s.leadUser(w, r, func(b *backend) (node string, to v1.StreamRequest, err error) {
		target, err := b.resolve(r.Context(), v1.KindNode, r.PathValue("ref"))
		if err != nil {
			return "", to, err
		}
		n := target.(*v1.Node)
		noteWrite(r.Context(), v1.KindNode, n.Meta.ID, nameOf(n), 0)
		volume := r.URL.Query().Get("volume")
		if volume != "" {
			s, err := b.store.Snapshot(r.Context(), 0)
			if err != nil {
				return "", to, err
			}
			if err := volumeUnused(s, volume); err != nil {
				return "", to, err
			}
		}
		return n.Meta.ID, v1.StreamRequest{Task: v1.NodeItself, Volume: volume}, nil
	})
}

// leadUser leads a user to what is found.
func (s *Server) leadUser(w http.ResponseWriter, r *http.Request, find func(*backend) (node string, to v1.StreamRequest, err error)) (err error) {
	user, b, err := s.tunnelEnd(w, r)
	if err != nil {
		return err
	}
	defer func() { user.over(err) }()
	of, who := s.placesOf(r)
	out, err := of.tunnels.enterAs(who)
	if err != nil {
		return err
	}
	defer out()
	node, to, err := find(b)
	if err != nil {
		return err
	}
	ctx, cancel := b.bind(r.Context())
	defer cancel(nil)
	to.Tunnel = true
	if se := b.sessions.of(node); se != nil {
		return b.lead(ctx, user, se, to)
	}
	return b.leadOn(ctx, user, node, to)
}

// relayTunnel leads another manager's user to a task of a node that is connected here.
func (s *Server) relayTunnel(w http.ResponseWriter, r *http.Request) error {
	image, err := boolQuery(r, "image")
	if err != nil {
		return err
	}
	user, b, err := s.tunnelEnd(w, r)
	if err != nil {
		return err
	}
	defer user.wake()
	out, err := b.relays.given.enter()
	if err != nil {
		return err
	}
	defer out()
	ctx, cancel := b.bind(r.Context())
	defer cancel(nil)
	node := r.PathValue("ref")
	se := b.sessions.of(node)
	if se == nil {
		return problemf(http.StatusNotFound, "node %s is not connected to this manager", clip(node))
	}
	return b.lead(ctx, user, se, v1.StreamRequest{Task: r.PathValue("task"), Tunnel: !image, Image: image, Volume: r.URL.Query().Get("volume")})
}

// lead asks a node that is connected here for its end of a tunnel, and carries.
func (b *backend) lead(ctx context.Context, user *tunnelEnd, se *session, to v1.StreamRequest) error {
	m := b.meetings.open(se.node)
	defer b.meetings.close(m)
	to.ID = m.id
	if !se.ask(to) {
		return problemf(http.StatusTooManyRequests, "node %s is asked for too many streams already", se.node)
	}
	wait := time.NewTimer(b.server.limits.StreamWait)
	defer wait.Stop()
	select {
	case far := <-m.far:
		if err := user.begin(); err != nil {
			far.wake()
			return err
		}
		carry(ctx, user, far, far.wake)
		return nil
	case <-wait.C:
		return problemf(http.StatusGatewayTimeout, "node %s did not answer within %s", se.node, b.server.limits.StreamWait)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// meetTunnel is a node that comes to a meeting. It stays until that is over.
func (s *Server) meetTunnel(w http.ResponseWriter, r *http.Request) error {
	far, b, err := s.tunnelEnd(w, r)
	if err != nil {
		return err
	}
	defer far.wake()
	m := b.meetings.claim(r.PathValue("stream"), r.PathValue("ref"))
	if m == nil {
		return problemf(http.StatusNotFound, "nobody waits for this tunnel of this node")
	}
	if err := far.begin(); err != nil {
		return err
	}
	m.far <- far
	woken := make(chan struct{})
	gone := context.AfterFunc(r.Context(), func() { // the node is gone, or has lost the right to it
		defer close(woken)
		far.wake()
	})
	<-m.over
	if !gone() {
		<-woken // the connection is not this request's any more once it is answered
	}
	return nil
}

// leadOn asks the manager that holds a node's session to lead on.
func (b *backend) leadOn(ctx context.Context, user *tunnelEnd, node string, to v1.StreamRequest) error {
	snapshot, err := b.store.Snapshot(ctx, 0)
	if err != nil {
		return err
	}
	p, ok := store.Get(snapshot, v1.Presences, node)
	if !ok || p.Status.Manager == "" || p.Status.Manager == b.backing.Node {
		return problemf(http.StatusServiceUnavailable, "node %s is not available", node)
	}
	addr := managerAddr(snapshot, p.Status.Manager)
	if addr == "" || b.relays.client == nil {
		return problemf(http.StatusServiceUnavailable, "node %s is connected to manager %s, which this server cannot ask", node, p.Status.Manager)
	}
	out, err := b.relays.taken.enter()
	if err != nil {
		return err
	}
	defer out()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, up := io.Pipe()
	defer func() { _ = in.Close() }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+"/v1/nodes/"+node+"/tasks/"+to.Task+"/tunnel?"+
		url.Values{"image": {strconv.FormatBool(to.Image)}, "volume": {to.Volume}}.Encode(), in)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", v1.TunnelType)
	resp, err := b.relays.client.Do(req)
	about := "manager " + p.Status.Manager + ", which node " + node + " is connected to, "
	if err != nil {
		return problemf(http.StatusBadGateway, "%scannot be reached", about)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return problemf(http.StatusBadGateway, "%ssays: %s", about, refusalOf(resp))
	}
	if err := user.begin(); err != nil {
		return err
	}
	far := struct {
		io.Reader
		io.Writer
	}{resp.Body, up}
	carry(ctx, user, far, func() { _ = up.Close(); cancel() })
	return nil
}
