package apiserver

import (
	"cmp"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// Limits of finding out who calls.
const (
	// confirmTime is how long the store may take to tell what is current.
	confirmTime = 5 * time.Second
	// maxConfirms is how many requests may wait for that at a time, confirmsEach how many of one certificate or address.
	maxConfirms, confirmsEach = 64, 4
)

// identify tells who makes a request over TLS: by its certificate, or where it has none by its token.
func (s *Server) identify(r *http.Request) *caller {
	if r.TLS == nil || r.TLS.Version < tls.VersionTLS13 {
		return &caller{refused: problemf(http.StatusForbidden, "this door speaks TLS 1.3 only")}
	}
	token, bearer, p := bearerOf(r)
	if p != nil {
		return &caller{refused: p}
	}
	certified := len(r.TLS.PeerCertificates) > 0
	if !certified && !bearer {
		return new(caller)
	}
	b, err := s.attached()
	if err != nil {
		return &caller{refused: problemOf(err)}
	}
	if certified {
		return b.certified(r)
	}
	return b.tokened(r, token)
}

// bearerOf is the token of a request, if it has one.
func bearerOf(r *http.Request) (token string, ok bool, p *v1.Problem) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", false, nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false, problemf(http.StatusUnauthorized, "header Authorization: want Bearer and a user's token")
	}
	return strings.TrimSpace(token), true, nil
}

// certified is the caller with a certificate that the listener has verified.
func (b *backend) certified(r *http.Request) *caller {
	subject, p := subjectOf(r, b.backing.Identity)
	if p != nil {
		return &caller{refused: p}
	}
	find := func(s *store.Snapshot) *caller { return nodeCaller(s, subject) }
	removed := problemf(http.StatusForbidden, "node %s was removed from the swarm: leave it and join again", clip(subject.ID))
	if subject.Role == ca.RoleUser {
		find = func(s *store.Snapshot) *caller { return userCaller(s, subject.ID) }
		removed = problemf(http.StatusForbidden, "the user of this certificate (ID %s) was removed from the swarm", clip(subject.ID))
	}
	c := b.find(r.Context(), find, func(c *caller) bool {
		return c != nil && (c.kind == callerUser || c.manager() || subject.Role != ca.RoleManager)
	}, removed, subject.ID)
	c.ends = r.TLS.PeerCertificates[0].NotAfter
	c.again = func(s *store.Snapshot) *caller {
		if _, p := subjectOf(r, b.backing.Identity); p != nil {
			return &caller{refused: p}
		}
		if now := find(s); now != nil {
			return now
		}
		return &caller{refused: removed}
	}
	return c
}

// find is the caller that is found in what this server has seen, or else in what is current: a certificate may be newer than what
// was seen here. enough tells whether what was found is all that the certificate says.
func (b *backend) find(ctx context.Context, find func(*store.Snapshot) *caller, enough func(*caller) bool, removed *v1.Problem, who string) *caller {
	snapshot, err := b.store.Snapshot(ctx, 0)
	if err != nil {
		return &caller{refused: problemOf(err)}
	}
	c := find(snapshot)
	if enough(c) {
		return c
	}
	newest, err := b.confirmed(ctx, who)
	switch {
	case err == nil:
		c = find(newest)
	case c == nil:
		return &caller{refused: problemOf(err)}
	}
	if c == nil {
		return &caller{refused: removed}
	}
	return c
}

// subjectOf is whose certificate a connection has, where it is of the same swarm as our own and in its time.
func subjectOf(r *http.Request, own *ca.Identity) (ca.Subject, *v1.Problem) {
	subject, ok := ca.PeerSubject(r.TLS)
	switch {
	case !ok:
		return subject, problemf(http.StatusUnauthorized, "the certificate has ended, or is none of this swarm")
	case own == nil || own.Subject().Cluster != subject.Cluster:
		return subject, problemf(http.StatusUnauthorized, "the certificate is of another swarm")
	case !stillTrusted(r.TLS.VerifiedChains, own):
		return subject, problemf(http.StatusUnauthorized, "the certificate is of a root that is trusted no more: ask for a new one, and connect again")
	}
	return subject, nil
}

// stillTrusted tells whether one of the roots that a connection's certificate was verified by is trusted now: a connection may be older
// than the end of a rotation.
func stillTrusted(chains [][]*x509.Certificate, own *ca.Identity) bool {
	trusted := own.RootDigests()
	return slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
		root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain[len(chain)-1].Raw})
		return slices.Contains(trusted, ca.Digest(root))
	})
}

// nodeCaller is a node with the lesser of its two roles, or nil where there is none. It counts only while the node is there, and as
// a manager only while its spec says so.
func nodeCaller(s *store.Snapshot, subject ca.Subject) *caller {
	n, ok := store.Get(s, v1.Nodes, subject.ID)
	if !ok || !there(n) {
		return nil
	}
	c := &caller{kind: callerNode, node: n.Meta.ID, role: v1.RoleWorker}
	if subject.Role == ca.RoleManager && n.Spec.Role == v1.RoleManager {
		c.role = v1.RoleManager
	}
	return c
}

// userCaller is the user with the ID and the role that it has now, or nil where there is none. A certificate names the ID, which is
// never given again: somebody who is called the same later on is somebody else.
func userCaller(s *store.Snapshot, id string) *caller {
	u, ok := store.Get(s, v1.Users, id)
	if !ok || !there(u) {
		return nil
	}
	return callerFor(u)
}

func callerFor(u *v1.User) *caller {
	return &caller{kind: callerUser, user: u.Meta.Name, userID: u.Meta.ID, rank: cmp.Or(u.Spec.Role, v1.UserView)}
}

// errWrongToken does not tell what is wrong with it.
var errWrongToken = problemf(http.StatusUnauthorized, "the token is wrong, or was removed")

// tokened is the caller with a user's token. An unknown one may be newer than what this server has seen; how often somebody may
// have that looked up is bounded.
func (b *backend) tokened(r *http.Request, token string) *caller {
	id, hash, err := ca.ParseUserToken(token)
	if err != nil {
		return &caller{refused: errWrongToken}
	}
	snapshot, err := b.store.Snapshot(r.Context(), 0)
	if err != nil {
		return &caller{refused: problemOf(err)}
	}
	c := b.tokenCaller(snapshot, id, hash)
	if c == nil {
		if snapshot, err = b.confirmedToken(r); err != nil {
			return &caller{refused: problemOf(err)}
		}
		if c = b.tokenCaller(snapshot, id, hash); c == nil {
			return &caller{refused: errWrongToken}
		}
	}
	c.again = func(s *store.Snapshot) *caller {
		if now := b.tokenCaller(s, id, hash); now != nil {
			return now
		}
		return &caller{refused: errWrongToken}
	}
	return c
}

// confirmedToken is what is current, for somebody with an unknown token.
func (b *backend) confirmedToken(r *http.Request) (*store.Snapshot, error) {
	from := network(remoteAddr(r))
	if err := b.server.attempts.allow(from); err != nil {
		return nil, err
	}
	b.server.attempts.failed(from)
	return b.confirmed(r.Context(), from)
}

// tokenCaller is the user with the token, or why the token does not count; nil where there is none with that ID.
func (b *backend) tokenCaller(s *store.Snapshot, id, hash string) *caller {
	for u := range store.All(s, v1.Users) {
		at := slices.IndexFunc(u.Spec.Tokens, func(t v1.UserToken) bool { return t.ID == id })
		if at < 0 || !there(u) {
			continue
		}
		token := u.Spec.Tokens[at]
		if subtle.ConstantTimeCompare([]byte(token.Hash), []byte(hash)) != 1 {
			return &caller{refused: errWrongToken}
		}
		if !token.Expires.IsZero() && !b.server.now().Before(token.Expires) {
			return &caller{refused: problemf(http.StatusUnauthorized, "the token ended at %s", token.Expires.UTC().Format(time.RFC3339))}
		}
		c := callerFor(u)
		c.ends = token.Expires
		return c
	}
	return nil
}

// confirmed is a snapshot that shows all that was written before it was asked for.
func (b *backend) confirmed(ctx context.Context, who string) (*store.Snapshot, error) {
	leave, err := b.server.confirms.enterAs(who)
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	return b.newest(ctx)
}

func (b *backend) newest(ctx context.Context) (*store.Snapshot, error) {
	revision, err := b.store.Sync(ctx)
	if err != nil {
		return nil, err
	}
	return b.store.Snapshot(ctx, revision)
}
