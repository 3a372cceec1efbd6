package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"
)

const (
	rootName = "swarm-ca"
	rootLife = 20 * 365 * 24 * time.Hour
	// minRootLife is how long a root that is given must be good for.
	minRootLife = 365 * 24 * time.Hour
)

// NewRoot is a new root certificate, good for 20 years, and its key, both in PEM.
func NewRoot(now time.Time) (certPEM, keyPEM []byte, err error) {
	keyPEM, err = NewKey()
	if err != nil {
		return nil, nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, nil, err
	}
	template := caTemplate(pkix.Name{CommonName: rootName}, now.Add(-backdate), now.Add(rootLife))
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("ca: make a root certificate: %w", err)
	}
	return encode(typeCertificate, der), keyPEM, nil
}

func caTemplate(subject pkix.Name, from, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject: subject, NotBefore: from.UTC(), NotAfter: until.UTC(),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// CheckRoot tells what speaks against a root that is given: certPEM must hold one CA certificate that is good now and for a
// year, keyPEM its key, and what is signed with it must be good under it. An empty keyPEM is for roots whose key somebody else has.
func CheckRoot(certPEM, keyPEM []byte, now time.Time) error {
	cert, err := parseOne(certPEM)
	if err != nil {
		return fmt.Errorf("the CA certificate %w", err)
	}
	if err := checkCA(cert, now); err != nil {
		return fmt.Errorf("the CA certificate %w", err)
	}
	if len(keyPEM) == 0 {
		return nil
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return fmt.Errorf("the CA key %w", err)
	}
	if !samePublic(key.Public(), cert.PublicKey) {
		return errors.New("the CA key is not the key of the CA certificate")
	}
	return tryRoot(cert, key, now)
}

func checkCA(cert *x509.Certificate, now time.Time) error {
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return errors.New("is no CA's: its basic constraints do not say that it may sign certificates")
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("may not sign certificates: its key usage does not say so")
	case cert.MaxPathLenZero: // the chain of a rotation has a cross-signed root between
		return errors.New("may sign no other CA (path length 0): the swarm could never rotate away from it")
	case now.Before(cert.NotBefore), now.After(cert.NotAfter):
		return outOfTime(cert, now)
	case now.Add(minRootLife).After(cert.NotAfter):
		return fmt.Errorf("is good until %s only: want a year or more", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return checkPublic(cert.PublicKey)
}

// tryRoot signs a certificate and verifies it: roots have constraints that only a try tells of.
func tryRoot(cert *x509.Certificate, key crypto.Signer, now time.Time) error {
	s := &signer{root: cert, key: key, now: func() time.Time { return now }}
	leaf, err := s.issue(key.Public(), Subject{ID: "node", Role: RoleManager, Cluster: "cluster"}, time.Hour)
	if err != nil {
		return err
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := verify([]*x509.Certificate{leaf}, newPool([]*x509.Certificate{cert}), now, usage); err != nil {
			return fmt.Errorf("what the CA certificate signs %w", err)
		}
	}
	return nil
}

// CrossSign is the new root's key and name, signed by the old root: whoever trusts only the old one trusts through it what the
// new one signs. It ends when the first of the two does.
func CrossSign(oldCert, oldKey, newCert []byte, now time.Time) (crossPEM []byte, err error) {
	parent, err := parseOne(oldCert)
	if err != nil {
		return nil, fmt.Errorf("ca: cross-sign: the old root %w", err)
	}
	if len(oldKey) == 0 {
		return nil, errors.New("ca: cross-sign: the old root's key is not the swarm's to use")
	}
	key, err := parseKey(oldKey)
	if err != nil {
		return nil, fmt.Errorf("ca: cross-sign: the old root's key %w", err)
	}
	if !samePublic(key.Public(), parent.PublicKey) {
		return nil, errors.New("ca: cross-sign: the old root's key is not the key of its certificate")
	}
	next, err := parseOne(newCert)
	if err != nil {
		return nil, fmt.Errorf("ca: cross-sign: the new root %w", err)
	}
	if samePublic(next.PublicKey, parent.PublicKey) {
		return nil, errors.New("ca: cross-sign: the new root has the key of the old one")
	}
	until := next.NotAfter
	if parent.NotAfter.Before(until) {
		until = parent.NotAfter
	}
	template := caTemplate(pkix.Name{}, now.Add(-backdate), until)
	template.RawSubject, template.SubjectKeyId = next.RawSubject, next.SubjectKeyId // what its certificates call their issuer
	der, err := x509.CreateCertificate(rand.Reader, template, parent, next.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("ca: cross-sign: %w", err)
	}
	return encode(typeCertificate, der), nil
}

// outOfTime says that a certificate is not good at this time, and that a clock may be the reason.
func outOfTime(cert *x509.Certificate, now time.Time) error {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	if now.Before(cert.NotBefore) {
		return &TimeError{cert, fmt.Sprintf("is not valid until %s: is this machine's clock right? It says %s", at(cert.NotBefore), at(now))}
	}
	return &TimeError{cert, fmt.Sprintf("was valid until %s: is this machine's clock right? It says %s", at(cert.NotAfter), at(now))}
}

// TimeError says that a certificate is not good yet, or not any more, by this machine's clock.
type TimeError struct {
	cert *x509.Certificate
	what string
}

// Error implements error.
func (e *TimeError) Error() string { return e.what }

// Unwrap is what crypto/x509 calls it.
func (e *TimeError) Unwrap() error {
	return x509.CertificateInvalidError{Cert: e.cert, Reason: x509.Expired, Detail: e.what}
}
