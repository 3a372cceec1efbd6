package apiserver

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

func (s *Server) caInfo(w http.ResponseWriter, r *http.Request) error {
	snapshot, err := s.snapshot(r)
	if err != nil {
		return err
	}
	a, err := authorityOf(snapshot)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, caInfoOf(snapshot, a))
}

func caInfoOf(s *store.Snapshot, a *v1.Authority) v1.CAInfo {
	info := v1.CAInfo{TrustRoot: v1.SettledRoot(a), Issuer: ca.Digest(a.Spec.CA.Cert)}
	if v1.Rotating(a) {
		info.NextRoot = a.Spec.CA.Cert
	}
	for n := range store.All(s, v1.Nodes) {
		info.Nodes++
		if n.Status != nil && n.Status.Description.TLS != nil && n.Status.Description.TLS.Issuer == info.Issuer {
			info.Moved++
		}
	}
	return info
}

// rotateCA makes another root the swarm's newest. Where a rotation is under way already, the newest root wins, and the one that every
// node trusts so far stays trusted.
func (s *Server) rotateCA(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	body, err := s.readBody(w, r, maxBody)
	if err != nil {
		return err
	}
	var request v1.RotateCARequest
	if len(body) > 0 {
		if err := v1.DecodeStrict(body, &request); err != nil {
			return err
		}
	}
	next, err := s.nextRoot(&request)
	if err != nil {
		return err
	}
	a, err := s.changeAuthority(r.Context(), b, func(snapshot *store.Snapshot, a *v1.Authority, spec *v1.AuthoritySpec) ([]store.Op, error) {
		return s.rotation(snapshot, a, spec, next)
	})
	if err != nil {
		return err
	}
	snapshot, err := s.snapshot(r)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, caInfoOf(snapshot, a))
}

// nextRoot is the root that a request asks for, checked.
func (s *Server) nextRoot(r *v1.RotateCARequest) (v1.CertificateAuthority, error) {
	next := v1.CertificateAuthority{Cert: r.CACert, Key: r.CAKey, External: r.ExternalCAs}
	if len(next.Cert) == 0 {
		for _, e := range r.ExternalCAs {
			if e.CACert != "" {
				next.Cert = []byte(e.CACert)
			}
		}
	}
	if errs := v1.Validate(&v1.Cluster{Meta: v1.Meta{Name: v1.ClusterName}, Spec: externalOnly(r.ExternalCAs)}); len(errs) > 0 {
		return next, errs
	}
	switch {
	case len(next.Cert) == 0 && len(next.Key) > 0:
		return next, v1.FieldErrors{{Field: "caCert", Message: "is missing: the key alone says nothing of the root"}}
	case len(next.Cert) == 0 && len(next.External) > 0:
		return next, v1.FieldErrors{{Field: "caCert", Message: "is missing: rotating to an external CA takes its root certificate"}}
	case len(next.Cert) > 0 && len(next.Key) == 0 && len(next.External) == 0:
		return next, v1.FieldErrors{{Field: "caKey", Message: "is missing: want the root's key, or an external CA that has it"}}
	case len(next.Cert) == 0:
		var err error
		next.Cert, next.Key, err = ca.NewRoot(s.now())
		return next, err
	}
	if err := ca.CheckRoot(next.Cert, next.Key, s.now()); err != nil {
		return next, v1.FieldErrors{{Field: "caCert", Message: err.Error()}}
	}
	return next, nil
}

// externalOnly is a valid spec but for the external CAs.
func externalOnly(external []v1.ExternalCA) *v1.ClusterSpec {
	c := &v1.Cluster{Spec: &v1.ClusterSpec{ExternalCAs: external}}
	v1.Default(c)
	return c.Spec
}

// rotation writes the next root into the spec, cross-signed by the one that every node trusts, and says what else is to be written.
func (s *Server) rotation(snapshot *store.Snapshot, a *v1.Authority, spec *v1.AuthoritySpec, next v1.CertificateAuthority) ([]store.Op, error) {
	settled := v1.AuthorityDesired{Cert: spec.CA.Cert, Key: spec.CA.Key, Digest: spec.CA.Digest}
	if a.Desired != nil {
		settled = *a.Desired
	}
	// The settled root is the rule's to write. It is written again as it is, so that the rule cannot settle on another one while this is
	// decided; where the rule has not spoken yet, nobody would know any more which root it was once the spec is written.
	ops := []store.Op{{Kind: v1.KindAuthority, ID: v1.AuthorityName, Section: v1.SectionDesired, Value: &settled,
		If: store.AtRevision(a.Meta.Revisions[v1.SectionDesired])}}
	next.Rotation, next.Digest = spec.CA.Rotation+1, ca.Digest(next.Cert)
	switch {
	case sameRoot(next.Cert, spec.CA.Cert):
		return nil, problemf(http.StatusBadRequest, "the swarm's newest root is this one already")
	case sameRoot(next.Cert, settled.Cert): // back to where everybody is
	case sameKey(next.Cert, settled.Cert):
		return nil, v1.FieldErrors{{Field: "caKey", Message: "is that of the present root: want another, or the rotation would change nothing"}}
	case len(settled.Key) == 0:
		return nil, problemf(http.StatusBadRequest, "the present root's key is with an external CA, so that the swarm cannot sign the next root with it. "+
			"Rotating away from an external CA takes that")
	default:
		cross, err := ca.CrossSign(settled.Cert, settled.Key, next.Cert, s.now())
		if err != nil {
			return nil, problemf(http.StatusBadRequest, "the next root could not be signed by the present one: %s", err)
		}
		next.Cross = cross
	}
	spec.CA = next
	if c, ok := store.Get(snapshot, v1.Clusters, v1.ClusterName); ok && len(c.Spec.ExternalCAs)+len(next.External) > 0 {
		ops = append(ops, s.externalOp(c, next.External))
	}
	return ops, nil
}

// externalOp makes the cluster's settings say which external CAs sign.
func (s *Server) externalOp(c *v1.Cluster, external []v1.ExternalCA) store.Op {
	settings, meta := *c.Spec, c.Meta
	settings.ExternalCAs = external
	meta.UpdatedAt, meta.Revisions = s.now().UTC(), v1.Revisions{}
	meta.Generation++
	return store.Op{Kind: v1.KindCluster, ID: c.Meta.ID, Value: &settings, Meta: &meta, If: store.AtRevision(c.Meta.Revisions[v1.SectionSpec])}
}

func sameRoot(a, b []byte) bool { return bytes.Equal(bytes.TrimSpace(a), bytes.TrimSpace(b)) }

// sameKey tells whether two roots have the same key.
func sameKey(a, b []byte) bool {
	x, y := publicKey(a), publicKey(b)
	return x != nil && bytes.Equal(x, y)
}

func publicKey(certPEM []byte) []byte {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert.RawSubjectPublicKeyInfo
}
