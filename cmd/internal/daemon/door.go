package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// errInUse is what listenAt fails with where something else listens.
var errInUse = errors.New("is in use already")

// listenAt opens the port for the other nodes.
func listenAt(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen address %s %w: stop what listens there, or choose another with --listen-addr", addr, errInUse)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen address %s is not one of this machine: choose another with --listen-addr", addr)
	case err != nil:
		return nil, fmt.Errorf("listen address %s: %w", addr, err)
	}
	return l, nil
}

// reach finds out whether something listens at host:port.
func reach(ctx context.Context, addr string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// openDoor serves the other nodes over TLS, and returns how to end that. It is open before the member starts, which may need the
// other members for it, and tries for as long as the port cannot be had.
func (m *manager) openDoor(ctx context.Context) (shut func(), err error) {
	l := m.door
	for retry := (backoff{}); l == nil; {
		if l, err = listenAt(m.n.remembers().ListenAddr); err == nil {
			break
		}
		m.stumble(err)
		if !sleep(ctx, retry.pause()) {
			return nil, context.Cause(ctx)
		}
	}
	server := apiserver.NewHTTPServer(m.routes(), m.n.d.log)
	server.TLSConfig = m.n.certificate().ServerTLS()
	guests := newVisitors(l, connectionLimit(m.n.log))
	server.ConnState, server.ConnContext = guests.watch, etcd.PeerContext
	closeUnasked(server)
	go func() {
		if err := server.ServeTLS(guests, "", ""); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			m.n.d.fail(fmt.Errorf("serve %s: %w", l.Addr(), err))
		}
	}()
	return func() {
		l.Close() // which the server does not, where it has not begun yet
		shutdown(server)
	}, nil
}

// routes is what a manager answers to other nodes and to people: the member's own doors, which it guards itself, as soon as there
// is one, and the API.
func (m *manager) routes() http.Handler {
	peers := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := m.peers.Load(); h != nil && *h != nil {
			(*h).ServeHTTP(w, r)
			return
		}
		// Not 403 or 410: to a member they say that it was removed.
		http.Error(w, "this manager's member does not run just now", http.StatusServiceUnavailable)
	})
	api := m.n.d.patient(m.n.d.server.Door())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isPeerPath(r.URL.Path) {
			peers(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// patienceFor is how long a request waits for an API that is closed for a moment only.
const patienceFor = 5 * time.Second

// patient has requests wait while this manager's member starts anew, which takes a second. Nobody need notice.
func (d *Daemon) patient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := d.inside.Load(); n != nil && r.URL.Path != "/v1/info" && r.URL.Path != "/v1/version" {
			n.awaitManager(r.Context())
		}
		next.ServeHTTP(w, r)
	})
}

func (n *node) awaitManager(ctx context.Context) {
	n.mu.Lock()
	m := n.manager
	n.mu.Unlock()
	if m == nil || !m.comesBack() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patienceFor)
	defer cancel()
	_ = n.await(ctx, func() bool { return !m.comesBack() }) // in vain, the API says itself what is wrong
}

// comesBack tells whether the API is closed for a moment only.
func (m *manager) comesBack() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.store == nil && m.resumes && !m.over()
}

func isPeerPath(path string) bool {
	for _, p := range etcd.PeerPaths {
		if path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// hearWithin is how long one look for a leader may take, and cutOffAfter how long there is none before a member that is to go
// counts as cut off.
const (
	hearWithin  = 2 * time.Second
	hearEvery   = time.Second
	cutOffAfter = 10 * time.Second
)

// listen notes when the member last had a leader, while this node is not to be a manager any more.
func (m *manager) listen(ctx context.Context, s *etcd.Store) {
	for sleep(ctx, hearEvery) {
		if !m.n.isUnwanted() {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, hearWithin)
		_, err := s.Sync(asking)
		cancel()
		if err == nil {
			m.mu.Lock()
			m.heard = time.Now()
			m.mu.Unlock()
		}
	}
}

// isUnwanted tells whether the node is not to be a manager.
func (n *node) isUnwanted() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wish == v1.RoleWorker
}

// cutOff tells whether the member has had no leader for a while, all of it since then: until the others had the time to remove it,
// they may need it for that.
func (m *manager) cutOff(since time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.heard) > cutOffAfter && time.Since(since) > cutOffAfter
}
