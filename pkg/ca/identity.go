package ca

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Identity is a node's certificate in use, with its key and the roots that are trusted. It is safe for use by many goroutines.
// What Update brings counts for all connections from then on, also for those made with TLS settings taken earlier.
type Identity struct{ now atomic.Pointer[credentials] }

// credentials are what an Identity has at one time. They never change.
type credentials struct {
	chain   []*x509.Certificate
	roots   []*x509.Certificate
	pool    *x509.CertPool // of the roots
	cert    tls.Certificate
	subject Subject
	issuer  string
	digests []string

	chainPEM, keyPEM, rootsPEM []byte
}

// NewIdentity is a certificate in use, of a chain whose first certificate is the node's own, its key, and the roots to trust.
// All three must fit together. A certificate that is not good yet, or not any more, is taken: see CheckTime.
func NewIdentity(chainPEM, keyPEM, rootsPEM []byte) (*Identity, error) {
	c, err := newCredentials(chainPEM, keyPEM, rootsPEM)
	if err != nil {
		return nil, err
	}
	i := new(Identity)
	i.now.Store(c)
	return i, nil
}

// Update replaces certificate, key and roots at once. It changes nothing where they do not fit together, or are not of the
// same node and swarm; the role may be another.
func (i *Identity) Update(chainPEM, keyPEM, rootsPEM []byte) error {
	next, err := newCredentials(chainPEM, keyPEM, rootsPEM)
	if err != nil {
		return err
	}
	for {
		was := i.now.Load()
		if next.subject.ID != was.subject.ID || next.subject.Cluster != was.subject.Cluster {
			return fmt.Errorf("ca: the certificate is of %s in the swarm %s, want %s in %s",
				next.subject.ID, next.subject.Cluster, was.subject.ID, was.subject.Cluster)
		}
		if i.now.CompareAndSwap(was, next) {
			return nil
		}
	}
}

// PEM is what the identity is made of, for keeping. The key is a secret.
func (i *Identity) PEM() (chain, key, roots []byte) {
	c := i.now.Load()
	return bytes.Clone(c.chainPEM), bytes.Clone(c.keyPEM), bytes.Clone(c.rootsPEM)
}

// Subject is whose the certificate is.
func (i *Identity) Subject() Subject { return i.now.Load().subject }

// Issuer is the digest of the root that signed the certificate. Where no root that is trusted here signed it, but one that a
// root here signed in turn, it is that root's.
func (i *Identity) Issuer() string { return i.now.Load().issuer }

// RootDigests are the digests of the roots that are trusted, in their order.
func (i *Identity) RootDigests() []string { return slices.Clone(i.now.Load().digests) }

// Expires is when the certificate ends.
func (i *Identity) Expires() time.Time { return i.now.Load().chain[0].NotAfter }

// RenewAt is when to ask for the next certificate: after 50 to 80 % of this one's life, as random, from 0 to 1, says.
func (i *Identity) RenewAt(random float64) time.Time {
	leaf := i.now.Load().chain[0]
	began := leaf.NotBefore.Add(backdate)
	if !began.Before(leaf.NotAfter) { // somebody else's, who does not backdate
		began = leaf.NotBefore
	}
	life := leaf.NotAfter.Sub(began)
	return began.Add(time.Duration(float64(life) * (0.5 + 0.3*min(max(random, 0), 1))))
}

// CheckTime is a *TimeError where the certificate is not good at this time: it has expired, or a clock is wrong.
func (i *Identity) CheckTime(now time.Time) error {
	if leaf := i.now.Load().chain[0]; now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return fmt.Errorf("the certificate of this node %w", outOfTime(leaf, now))
	}
	return nil
}

func newCredentials(chainPEM, keyPEM, rootsPEM []byte) (*credentials, error) {
	roots, err := parseRoots(rootsPEM)
	if err != nil {
		return nil, err
	}
	cert, chain, err := parsePair(chainPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	subject, err := subjectOf(chain[0])
	if err != nil {
		return nil, fmt.Errorf("ca: the certificate %w", err)
	}
	at := time.Now()
	if at.Before(chain[0].NotBefore) || at.After(chain[0].NotAfter) {
		at = chain[0].NotAfter // what is wrong with its time is not asked here
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := verify(chain, newPool(roots), at, usage); err != nil {
			return nil, fmt.Errorf("ca: the certificate %w", err)
		}
	}
	c := &credentials{
		chain: chain, roots: roots, pool: newPool(roots), cert: cert, subject: subject,
		chainPEM: bytes.Clone(chainPEM), keyPEM: bytes.Clone(keyPEM), rootsPEM: bytes.Clone(rootsPEM),
	}
	for _, root := range roots {
		c.digests = append(c.digests, digestOf(root))
	}
	c.issuer = issuerOf(chain, roots, at)
	return c, nil
}

// parseRoots reads roots to trust.
func parseRoots(rootsPEM []byte) ([]*x509.Certificate, error) {
	roots, err := parseCertificates(rootsPEM)
	if err != nil {
		return nil, fmt.Errorf("ca: the PEM of roots %w", err)
	}
	for _, root := range roots {
		if !root.BasicConstraintsValid || !root.IsCA {
			return nil, fmt.Errorf("ca: the root %q is no CA's certificate", root.Subject)
		}
	}
	return roots, nil
}

// parsePair reads a chain and the key of its first certificate.
func parsePair(chainPEM, keyPEM []byte) (tls.Certificate, []*x509.Certificate, error) {
	chain, err := parseCertificates(chainPEM)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("ca: the PEM of the certificate %w", err)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("ca: the key %w", err)
	}
	if !samePublic(key.Public(), chain[0].PublicKey) {
		return tls.Certificate{}, nil, errors.New("ca: the key is not the key of the certificate")
	}
	cert := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, chain, nil
}

// issuerOf is the digest of the root that signed the chain's first certificate.
func issuerOf(chain, roots []*x509.Certificate, at time.Time) string {
	for _, root := range roots {
		if chain[0].CheckSignatureFrom(root) == nil {
			return digestOf(root)
		}
	}
	for _, root := range roots {
		if verify(chain, newPool([]*x509.Certificate{root}), at, x509.ExtKeyUsageServerAuth) == nil {
			return digestOf(root)
		}
	}
	return ""
}

func newPool(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}
