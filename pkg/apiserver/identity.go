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
	// maxConfirms is how many requests may wait for that at a time.
	maxConfirms = 64
	// backdating is how long before it was made a certificate may say that it began, and how far the managers' clocks may differ.
	backdating = time.Hour + 5*time.Minute
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
	switch {
	case p != nil:
		return &caller{refused: p}
	case subject.Role == ca.RoleUser:
		return b.userOf(r, subject.ID)
	}
	return b.nodeOf(r.Context(), subject)
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

// nodeOf is the node of a certificate. It counts only while the node is there, and as a manager only while its spec says so. A
// certificate may be newer than what this server has seen, so that what looks wrong is looked at again.
func (b *backend) nodeOf(ctx context.Context, subject ca.Subject) *caller {
	snapshot, err := b.store.Snapshot(ctx, 0)
	if err != nil {
		return &caller{refused: problemOf(err)}
	}
	c := nodeCaller(snapshot, subject)
	if c != nil && (c.manager() || subject.Role != ca.RoleManager) {
		return c
	}
	newest, err := b.confirmed(ctx)
	switch {
	case err == nil:
		c = nodeCaller(newest, subject)
	case c == nil:
		return &caller{refused: problemOf(err)}
	}
	if c == nil {
		return &caller{refused: problemf(http.StatusForbidden, "node %s was removed from the swarm: leave it and join again", clip(subject.ID))}
	}
	return c
}

// nodeCaller is a node with the lesser of its two roles, or nil where there is none.
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

// userOf is the user of a certificate that is not older than the user.
func (b *backend) userOf(r *http.Request, name string) *caller {
	began := r.TLS.PeerCertificates[0].NotBefore.Add(backdating)
	find := func(u *v1.User) (bool, *v1.Problem) {
		return u.Meta.Name == name && !began.Before(u.Meta.CreatedAt), nil
	}
	return b.user(r.Context(), find, b.confirmed,
		problemf(http.StatusForbidden, "user %s was removed from the swarm, or made again since the certificate was", clip(name)))
}

// tokened is the caller with a user's token. An unknown one may be newer than what this server has seen; how often somebody may
// have that looked up is bounded.
func (b *backend) tokened(r *http.Request, token string) *caller {
	wrong := problemf(http.StatusUnauthorized, "the token is wrong, or was removed")
	id, hash, err := ca.ParseUserToken(token)
	if err != nil {
		return &caller{refused: wrong}
	}
	find := func(u *v1.User) (bool, *v1.Problem) {
		at := slices.IndexFunc(u.Spec.Tokens, func(t v1.UserToken) bool { return t.ID == id })
		switch {
		case at < 0:
			return false, nil
		case subtle.ConstantTimeCompare([]byte(u.Spec.Tokens[at].Hash), []byte(hash)) != 1:
			return false, wrong
		}
		ends := u.Spec.Tokens[at].Expires
		if !ends.IsZero() && !b.server.now().Before(ends) {
			return false, problemf(http.StatusUnauthorized, "the token ended at %s", ends.UTC().Format(time.RFC3339))
		}
		return true, nil
	}
	return b.user(r.Context(), find, func(ctx context.Context) (*store.Snapshot, error) {
		from := remoteAddr(r)
		if err := b.server.attempts.allow(from); err != nil {
			return nil, err
		}
		b.server.attempts.failed(from)
		return b.confirmed(ctx)
	}, wrong)
}

// user is the user that is found in what this server has seen, or else in what is current. find says of a user whether it is the
// one, or why the search is over.
func (b *backend) user(ctx context.Context, find func(*v1.User) (bool, *v1.Problem), confirm func(context.Context) (*store.Snapshot, error), otherwise *v1.Problem) *caller {
	snapshot, err := b.store.Snapshot(ctx, 0)
	if err == nil {
		if c := userCaller(snapshot, find); c != nil {
			return c
		}
		snapshot, err = confirm(ctx)
	}
	if err != nil {
		return &caller{refused: problemOf(err)}
	}
	if c := userCaller(snapshot, find); c != nil {
		return c
	}
	return &caller{refused: otherwise}
}

// userCaller is the user that is found among those of a snapshot, with the role that it has now.
func userCaller(s *store.Snapshot, find func(*v1.User) (bool, *v1.Problem)) *caller {
	for u := range store.All(s, v1.Users) {
		if !there(u) {
			continue
		}
		found, p := find(u)
		if p != nil {
			return &caller{refused: p}
		}
		if found {
			return &caller{kind: callerUser, user: u.Meta.Name, rank: cmp.Or(u.Spec.Role, v1.UserView)}
		}
	}
	return nil
}

// confirmed is a snapshot that shows all that was written before it was asked for.
func (b *backend) confirmed(ctx context.Context) (*store.Snapshot, error) {
	leave, err := b.server.confirms.enter()
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
