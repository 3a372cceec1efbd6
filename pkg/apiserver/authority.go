package apiserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// authorityOf is the swarm's authority.
func authorityOf(s *store.Snapshot) (*v1.Authority, error) {
	a, ok := store.Get(s, v1.Authorities, v1.AuthorityName)
	if !ok || a.Spec == nil {
		return nil, problemf(http.StatusServiceUnavailable, "this swarm has no certificate authority yet: a manager makes it when it takes the lead, try again in a moment")
	}
	return a, nil
}

// authority is the swarm's authority as it is now, whichever manager wrote it last.
func (b *backend) authority(ctx context.Context) (*v1.Authority, *store.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	s, err := b.newest(ctx)
	if err != nil {
		return nil, nil, err
	}
	a, err := authorityOf(s)
	return a, s, err
}

// authorityOp writes the authority's spec on the condition that it is still what it was.
func authorityOp(a *v1.Authority, spec v1.AuthoritySpec, now time.Time) store.Op {
	meta := a.Meta
	meta.UpdatedAt, meta.Revisions = now.UTC(), v1.Revisions{}
	meta.Generation++
	return store.Op{Kind: v1.KindAuthority, ID: v1.AuthorityName, Value: &spec, Meta: &meta, If: store.AtRevision(a.Meta.Revisions[v1.SectionSpec])}
}

// changeAuthority decides on a copy of the authority's spec, and writes it together with what else belongs to the change.
func (s *Server) changeAuthority(ctx context.Context, b *backend, decide func(snapshot *store.Snapshot, a *v1.Authority, spec *v1.AuthoritySpec) ([]store.Op, error)) (*v1.Authority, error) {
	made, _, err := b.write(ctx, v1.KindAuthority, false, func(snapshot *store.Snapshot) (change, error) {
		a, err := authorityOf(snapshot)
		if err != nil {
			return change{}, err
		}
		spec := *a.Spec
		more, err := decide(snapshot, a, &spec)
		if err != nil {
			return change{}, err
		}
		return change{id: v1.AuthorityName, alone: true, ops: append([]store.Op{authorityOp(a, spec, s.now())}, more...)}, nil
	})
	if err != nil {
		return nil, err
	}
	a, ok := made.(*v1.Authority)
	if !ok {
		return nil, problemf(http.StatusConflict, "the swarm's authority was removed meanwhile")
	}
	return a, nil
}

// maxAdmissions is how many certificates may be in the making at a time.
const maxAdmissions = 128

// signTime is how long a signer may take.
const signTime = 15 * time.Second

// sign signs a certificate, and says which roots its holder is to trust.
func (s *Server) sign(ctx context.Context, b *backend, a *v1.Authority, snapshot *store.Snapshot, csr []byte, id string, role ca.Role) (v1.Certificate, error) {
	if err := ca.CheckRequest(csr); err != nil {
		return v1.Certificate{}, v1.FieldErrors{{Field: "csr", Message: err.Error()}}
	}
	leave, err := s.admissions.enter()
	if err != nil {
		return v1.Certificate{}, err
	}
	defer leave()
	signer, err := s.signer(b, a)
	if err != nil {
		return v1.Certificate{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	chain, err := signer.Sign(ctx, csr, ca.Subject{ID: id, Role: role, Cluster: a.Spec.ClusterID}, certExpiry(snapshot))
	if errors.Is(err, context.Canceled) {
		return v1.Certificate{}, err // nobody waits for it any more
	}
	if err != nil {
		s.log.Error("a certificate could not be signed", "subject", clip(id), "error", err)
		return v1.Certificate{}, problemf(http.StatusBadGateway, "the certificate could not be signed: %s", err)
	}
	return v1.Certificate{Chain: chain, Roots: v1.TrustedRoots(a)}, nil
}

// signer signs with the newest root: with its key, or where an external CA has that, by asking.
func (s *Server) signer(b *backend, a *v1.Authority) (ca.Signer, error) {
	c := &a.Spec.CA
	if len(c.External) == 0 {
		if len(c.Key) == 0 {
			return nil, problemf(http.StatusServiceUnavailable, "nobody can sign certificates: the swarm has neither its root's key nor an external CA")
		}
		return ca.NewSigner(c.Cert, c.Key, c.Cross, s.now)
	}
	if b.backing.Identity == nil {
		return nil, problemf(http.StatusServiceUnavailable, "certificates are signed by an external CA, which a manager can ask only with a certificate of its own")
	}
	urls := make([]string, len(c.External))
	for i := range c.External {
		urls[i] = c.External[i].URL
	}
	return ca.NewExternal(urls, c.Cert, c.Cross, b.backing.Identity.ExternalTLS()), nil
}

// certExpiry is how long new certificates are good for.
func certExpiry(s *store.Snapshot) time.Duration {
	if c, ok := store.Get(s, v1.Clusters, v1.ClusterName); ok && c.Spec.NodeCertExpiry != nil {
		return max(time.Duration(*c.Spec.NodeCertExpiry), v1.MinNodeCertExpiry)
	}
	return v1.DefaultNodeCertExpiry
}

// swarmRoutes are the doors to what the swarm is held together with.
func (s *Server) swarmRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/swarm/roots", resource: "swarm", may: rightsAnyone, out: v1.Certificate{},
			summary: "Read the roots that are trusted. A join token has the digest of one of them.", handle: s.roots},
		{method: http.MethodGet, path: "/v1/swarm/join-tokens", resource: "swarm", may: rightsAdmin, audit: auditAlways, out: v1.JoinTokens{},
			summary: "Read the join tokens.", handle: s.joinTokens},
		{method: http.MethodPost, path: "/v1/swarm/join-tokens/rotate", resource: "swarm", may: rightsAdmin, query: []string{"role"}, out: v1.JoinTokens{},
			summary: "Make a new join token of a role, or of both. Nodes that joined stay.", handle: s.rotateJoinTokens},
		{method: http.MethodGet, path: "/v1/swarm/unlock-key", resource: "swarm", may: rightsAdmin, audit: auditAlways, out: v1.UnlockKey{},
			summary: "Read the unlock key.", handle: s.unlockKey},
		{method: http.MethodPost, path: "/v1/swarm/unlock-key/rotate", resource: "swarm", may: rightsAdmin, out: v1.UnlockKey{},
			summary: "Make a new unlock key.", handle: s.rotateUnlockKey},
		{method: http.MethodGet, path: "/v1/swarm/ca", resource: "swarm", may: rightsView, out: v1.CAInfo{},
			summary: "Read the root, and how far a rotation is.", handle: s.caInfo},
		{method: http.MethodPost, path: "/v1/swarm/ca/rotate", resource: "swarm", may: rightsAdmin, in: v1.RotateCARequest{}, out: v1.CAInfo{},
			summary: "Move the swarm to another root: the one given, or a new one.", handle: s.rotateCA},
		{method: http.MethodGet, path: "/v1/swarm/backup", resource: "backup", stream: true, may: rightsAdmin, audit: auditAlways,
			summary: "Read the whole state as a tar archive, which holds secrets.", handle: s.backup},
	}
}

// roots tells the trusted roots, the one that join tokens name last.
func (s *Server) roots(w http.ResponseWriter, r *http.Request) error {
	snapshot, err := s.snapshot(r)
	if err != nil {
		return err
	}
	a, err := authorityOf(snapshot)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v1.Certificate{Chain: []byte{}, Roots: v1.TrustedRoots(a)})
}

func tokensOf(a *v1.Authority) v1.JoinTokens {
	digest := ca.Digest(v1.SettledRoot(a))
	return v1.JoinTokens{
		Worker:  ca.Token{Digest: digest, Secret: a.Spec.JoinSecrets.Worker}.String(),
		Manager: ca.Token{Digest: digest, Secret: a.Spec.JoinSecrets.Manager}.String(),
	}
}

func (s *Server) joinTokens(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	a, _, err := b.authority(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, tokensOf(a))
}

func (s *Server) rotateJoinTokens(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	role, err := oneOf(r, "role", "both", string(v1.RoleWorker), string(v1.RoleManager))
	if err != nil {
		return err
	}
	a, err := s.changeAuthority(r.Context(), b, func(_ *store.Snapshot, _ *v1.Authority, spec *v1.AuthoritySpec) ([]store.Op, error) {
		if role != string(v1.RoleManager) {
			spec.JoinSecrets.Worker = ca.NewSecret()
		}
		if role != string(v1.RoleWorker) {
			spec.JoinSecrets.Manager = ca.NewSecret()
		}
		return nil, nil
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, tokensOf(a))
}

func (s *Server) unlockKey(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	a, _, err := b.authority(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v1.UnlockKey{UnlockKey: a.Spec.UnlockKey})
}

// errNotLocking are Docker's words.
var errNotLocking = errors.New("cannot rotate because autolock is not turned on")

func (s *Server) rotateUnlockKey(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	a, err := s.changeAuthority(r.Context(), b, func(_ *store.Snapshot, _ *v1.Authority, spec *v1.AuthoritySpec) ([]store.Op, error) {
		if spec.UnlockKey == "" {
			return nil, problemf(http.StatusBadRequest, "%s", errNotLocking)
		}
		spec.UnlockKey = ca.NewUnlockKey()
		return nil, nil
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v1.UnlockKey{UnlockKey: a.Spec.UnlockKey})
}
