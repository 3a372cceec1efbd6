package etcd

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// peerConns are the connections on which other members wait for an answer, raft's streams above all.
//
// A cut of the network leaves both ends of a connection open, and nothing passes until TCP tries once more: it doubles the time between
// two tries, so that raft would stay apart for about as long again as the cut was. etcd's reader, which has dialled, is to give up
// after five seconds, but its transport sets that in a field that Go does not look at (Dial, beside DialContext), and lets nobody
// else set it. So this end, which has accepted, breaks the connection once the other member answers again: the reader hears that at
// once, and dials anew. Before, it would not hear of it.
type peerConns struct {
	mu   sync.Mutex
	held map[string]map[*peerConn]struct{} // by the member's name
}

// peerConn is a connection while a request is under way on it.
type peerConn struct {
	conn  net.Conn
	since time.Time
}

func newPeerConns() *peerConns { return &peerConns{held: make(map[string]map[*peerConn]struct{})} }

// connKey is where PeerContext keeps the connection.
type connKey struct{}

// PeerContext is the ConnContext of the http.Server that PeerHandler is mounted at: it tells the handler which connection a request
// came on. Without it, members that were cut off are heard late: see peerConns. To be broken at once, a connection, or what is below
// TLS, needs the SetLinger of net.TCPConn.
func PeerContext(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// hold notes a member's request, until release is called.
func (p *peerConns) hold(name string, r *http.Request) (release func()) {
	c, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return func() {}
	}
	entry := &peerConn{c, time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[name] == nil {
		p.held[name] = make(map[*peerConn]struct{})
	}
	p.held[name][entry] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if delete(p.held[name], entry); len(p.held[name]) == 0 {
			delete(p.held, name)
		}
	}
}

// reset breaks the connections of a member that had been missed, but for those that it made since it is back: they are younger than
// what it takes to miss it.
func (p *peerConns) reset(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.held[name] {
		if time.Since(c.since) > missedAfter {
			sever(c.conn)
		}
	}
}

// sever closes a connection in such a way that the other end hears of it now. An end in order would wait behind what is still to be sent.
func sever(c net.Conn) {
	if secured, ok := c.(*tls.Conn); ok {
		c = secured.NetConn()
	}
	if l, ok := c.(interface{ SetLinger(seconds int) error }); ok {
		_ = l.SetLinger(0) // of a connection that is gone already it says so
	}
	_ = c.Close() // the same
}
