package daemon

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// stopWithin is how long a daemon that is told to stop lets requests come to their end.
const stopWithin = 5 * time.Second

// shutdown lets requests come to their end, for a while.
func shutdown(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		s.Close()
	}
}

// unasked are the connections of a server on which nothing was asked yet. A client may keep one in hand for later, or look whether the
// port answers. The server waits for the first request on each of them for up to five seconds when it shuts down, as if one were under
// way; and a daemon that stops has only so long to be back.
type unasked struct {
	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]struct{}
}

// closeUnasked has a server close such connections as soon as it shuts down. The server's ConnState is set before.
func closeUnasked(s *http.Server) {
	u := &unasked{conns: make(map[net.Conn]struct{})}
	next := s.ConnState
	s.ConnState = func(c net.Conn, state http.ConnState) {
		u.watch(c, state)
		if next != nil {
			next(c, state)
		}
	}
	s.RegisterOnShutdown(u.close)
}

// watch is a http.Server's ConnState.
func (u *unasked) watch(c net.Conn, state http.ConnState) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(u.conns, c)
	case u.shut:
		_ = c.Close() // whoever it is finds the port closed next
	default:
		u.conns[c] = struct{}{}
	}
}

func (u *unasked) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.shut = true
	for c := range u.conns {
		_ = c.Close() // which ends the handshake of one that is at it, too
	}
	clear(u.conns)
}
