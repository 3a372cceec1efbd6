package apiserver

import (
	"context"
	"net/http"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// peerPaths are what the members of the managers' etcd ask each other for. What ends in a slash stands for all below it.
var peerPaths = []string{"/raft", "/raft/", "/members", "/members/", "/leases", "/leases/", "/version", "/downgrade/"}

// peerTime is how long a member waits to learn whether another is still a manager, and peerTrust for how long it goes on without.
const (
	peerTime  = time.Second
	peerTrust = 2 * time.Second
	// maxPeerConfirms is how many may wait for that at a time.
	maxPeerConfirms = 8
)

// asRoot is the handler for whoever can open the socket.
func (s *Server) asRoot(next http.Handler) http.Handler {
	root := &caller{kind: callerRoot}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(withCaller(r.Context(), root)))
	})
}

// asCaller is the handler for whoever comes over TLS.
func (s *Server) asCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(withCaller(r.Context(), s.identify(r))))
	})
}

// withPeers gives the members of etcd what is theirs, as it came: raft's streams are long, and count on the bare connection.
func (s *Server) withPeers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isPeerPath(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		lent := s.lent.Load()
		if p := s.refusePeer(r, lent); p != nil {
			w.Header().Set("Connection", "close")
			writeProblem(w, p)
			return
		}
		lent.Members.PeerHandler().ServeHTTP(w, r)
	})
}

func isPeerPath(path string) bool {
	for _, p := range peerPaths {
		if path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// refusePeer says why a request is not another manager's, or nil where it is.
func (s *Server) refusePeer(r *http.Request, lent *Backing) *v1.Problem {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return new(caller).refusal(rightsManager)
	}
	if lent == nil || lent.Members == nil || lent.Identity == nil {
		return problemOf(s.unattached())
	}
	subject, p := subjectOf(r, lent.Identity)
	if p != nil {
		return p
	}
	c := &caller{kind: callerNode, node: subject.ID, role: v1.RoleWorker}
	if subject.Role != ca.RoleManager {
		return c.refusal(rightsManager)
	}
	b := s.current.Load()
	if b == nil {
		return nil // a new member has no state to look it up in: its state is what comes this way
	}
	is, err := b.isManager(r.Context(), subject)
	if err != nil {
		return problemOf(err)
	}
	if !is {
		return c.refusal(rightsManager)
	}
	return nil
}

// isManager tells whether a node with a manager's certificate still is one. A member that was cut off, or has just begun, does not
// know yet who became one meanwhile, and learns it from nobody else: while it cannot tell what is current, every manager's
// certificate counts for raft, which has its own list of members.
func (b *backend) isManager(ctx context.Context, subject ca.Subject) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, peerTime)
	defer cancel()
	is := func(s *store.Snapshot) bool {
		c := nodeCaller(s, subject)
		return c != nil && c.manager()
	}
	s, err := b.store.Snapshot(ctx, 0)
	if err != nil || is(s) || b.behind.Load() > time.Now().UnixNano() {
		return true, nil
	}
	leave, err := b.server.peerConfirms.enter()
	if err != nil {
		return false, err
	}
	defer leave()
	if s, err = b.newest(ctx); err != nil {
		b.behind.Store(time.Now().Add(peerTrust).UnixNano())
		return true, nil
	}
	return is(s), nil
}
