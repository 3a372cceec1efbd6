package daemon

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
)

// link is the agent's way to the managers, whoever they are just now. It is there before there is any: a session waits then.
type link struct {
	node    string
	startup func() time.Duration
	observe func(error) // told nil when a session was opened, or why there is none

	mu      sync.Mutex
	client  *client.Client
	fixed   bool          // the client's hosts never change
	ready   chan struct{} // closed once there is a client
	end     context.CancelCauseFunc
	session bool // one is open
}

func newLink(node string, startup func() time.Duration, observe func(error)) *link {
	return &link{node: node, startup: startup, observe: observe, ready: make(chan struct{})}
}

// errKicked ends a session for a new one to be opened.
var errKicked = errors.New("the session is opened anew")

// point tells where the managers are, the best first.
func (l *link) point(hosts []string, cert *ca.Identity) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fixed || len(hosts) == 0 || cert == nil {
		return nil
	}
	if l.client != nil {
		l.client.SetHosts(hosts)
		return nil
	}
	c, err := client.Dial(client.Options{Hosts: hosts, TLS: cert.ClientTLS(), Startup: l.startup})
	if err != nil {
		return err
	}
	l.client = c
	close(l.ready)
	return nil
}

// reach is point for a socket that is the only way to the managers.
func (l *link) reach(socket string) error {
	c, err := client.New(socket)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client, l.fixed = c, true
	close(l.ready)
	return nil
}

// refresh has connections made anew, with the certificate as it is now.
func (l *link) refresh() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		l.client.Refresh()
	}
}

// kick ends the session, so that the next one tells everything from the beginning.
func (l *link) kick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end != nil {
		l.end(errKicked)
	}
}

// home tells whether there is a session with the manager on this machine.
func (l *link) home() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session && !l.fixed && l.client.Node(l.node).OnThisMachine()
}

// leaveHome has the session opened anew with a manager on another machine.
func (l *link) leaveHome() {
	l.mu.Lock()
	l.client.Elsewhere()
	l.mu.Unlock()
	l.kick()
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		l.client.Close()
	}
}

// open tells whether there is a session.
func (l *link) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session
}

// known tells whether there is anybody to ask.
func (l *link) known() bool {
	select {
	case <-l.ready:
		return true
	default:
		return false
	}
}

// managers is the node's side of the client, as soon as there is one.
func (l *link) managers(ctx context.Context) (*client.NodeClient, error) {
	select {
	case <-l.ready:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.client.Node(l.node), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Session implements agent.Manager.
func (l *link) Session(ctx context.Context, describe func() v1.NodeDescription) iter.Seq2[v1.Assignment, error] {
	return func(yield func(v1.Assignment, error) bool) {
		c, err := l.managers(ctx)
		if err != nil {
			yield(v1.Assignment{}, err)
			return
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		l.begin(cancel)
		defer l.begin(nil)
		for a, err := range c.Session(ctx, describe) {
			l.mark(err == nil)
			if ctx.Err() == nil {
				l.observe(err)
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

// begin remembers how to end the session; nil when it has ended.
func (l *link) begin(end context.CancelCauseFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = end
	l.session = false
}

func (l *link) mark(open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = open
}

// Report implements agent.Manager.
func (l *link) Report(ctx context.Context, r v1.StatusReport) (v1.StatusResult, error) {
	c, err := l.managers(ctx)
	if err != nil {
		return v1.StatusResult{}, err
	}
	return c.Report(ctx, r)
}

// Followed implements agent.Manager.
func (l *link) Followed(number uint64) {
	if l.known() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.client.Node(l.node).Followed(number)
	}
}

// Stream implements agent.Manager.
func (l *link) Stream(ctx context.Context, id string, records iter.Seq2[v1.LogRecord, error]) error {
	c, err := l.managers(ctx)
	if err != nil {
		return err
	}
	return c.Stream(ctx, id, records)
}

// Tunnel implements agent.Manager.
func (l *link) Tunnel(ctx context.Context, id string) (v1.Tunnel, error) {
	c, err := l.managers(ctx)
	if err != nil {
		return nil, err
	}
	return c.Tunnel(ctx, id)
}

// Image implements agent.Manager.
func (l *link) Image(ctx context.Context, image, digest string, again int) (v1.Tunnel, error) {
	c, err := l.managers(ctx)
	if err != nil {
		return nil, err
	}
	return c.Image(ctx, image, digest, again)
}
