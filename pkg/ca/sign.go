package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// Role is what a certificate is for; it is the certificate's OU.
type Role string

// The roles of certificates.
const (
	RoleWorker  Role = "swarm-worker"
	RoleManager Role = "swarm-manager"
	RoleUser    Role = "swarm-user"
)

// maxSubject is how long the parts of a Subject may be, which is X.509's.
const maxSubject = 64

// Subject is whose a certificate is.
type Subject struct {
	// ID is the node's or the user's; the certificate's CN.
	ID   string
	Role Role
	// Cluster is the swarm's ID, the certificate's O.
	Cluster string
}

// Signer signs certificates. Whether the subject may have one is for its caller to decide.
type Signer interface {
	// Sign returns a certificate for the key of the request, then those that lead from it to roots that may be trusted instead
	// of the signer's own, in PEM. Of the request nothing counts but its key and that it is signed with it. The certificate
	// has the subject given, is good from an hour ago, and for as long as expiry at most.
	Sign(ctx context.Context, csrPEM []byte, s Subject, expiry time.Duration) (chainPEM []byte, err error)
}

type signer struct {
	root  *x509.Certificate
	key   crypto.Signer
	cross []byte
	now   func() time.Time
}

// NewSigner signs with the root's key. Cross is the root's key signed by the root before it, nil for none.
func NewSigner(cert, key, cross []byte, now func() time.Time) (Signer, error) {
	root, err := parseOne(cert)
	if err != nil {
		return nil, fmt.Errorf("ca: the root certificate %w", err)
	}
	if len(key) == 0 {
		return nil, errors.New("ca: the root's key is not the swarm's to use")
	}
	private, err := parseKey(key)
	if err != nil {
		return nil, fmt.Errorf("ca: the root's key %w", err)
	}
	if !samePublic(private.Public(), root.PublicKey) {
		return nil, errors.New("ca: the root's key is not the key of its certificate")
	}
	cross, err = checkCross(cross, root)
	if err != nil {
		return nil, err
	}
	return &signer{root: root, key: private, cross: cross, now: now}, nil
}

// checkCross is the cross-signed root in plain PEM, if it is one of this root.
func checkCross(cross []byte, root *x509.Certificate) ([]byte, error) {
	if len(cross) == 0 {
		return nil, nil
	}
	cert, err := parseOne(cross)
	if err != nil {
		return nil, fmt.Errorf("ca: the cross-signed root %w", err)
	}
	if !samePublic(cert.PublicKey, root.PublicKey) {
		return nil, errors.New("ca: the cross-signed root has another key than the root")
	}
	return encode(typeCertificate, cert.Raw), nil
}

// Sign implements Signer.
func (s *signer) Sign(ctx context.Context, csrPEM []byte, subject Subject, expiry time.Duration) ([]byte, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := subject.check(); err != nil {
		return nil, err
	}
	public, _, err := parseRequest(csrPEM)
	if err != nil {
		return nil, err
	}
	leaf, err := s.issue(public, subject, expiry)
	if err != nil {
		return nil, err
	}
	return append(encode(typeCertificate, leaf.Raw), s.cross...), nil
}

func (s *signer) issue(public crypto.PublicKey, subject Subject, expiry time.Duration) (*x509.Certificate, error) {
	now := s.now()
	if now.Before(s.root.NotBefore) || now.After(s.root.NotAfter) {
		return nil, fmt.Errorf("ca: the root certificate %w", outOfTime(s.root, now))
	}
	if expiry <= 0 {
		return nil, fmt.Errorf("ca: a certificate cannot be good for %s", expiry)
	}
	until := now.Add(expiry)
	if s.root.NotAfter.Before(until) {
		until = s.root.NotAfter
	}
	template := &x509.Certificate{
		Subject: pkix.Name{
			CommonName: subject.ID, OrganizationalUnit: []string{string(subject.Role)}, Organization: []string{subject.Cluster},
		},
		DNSNames:  []string{subject.ID, string(subject.Role)},
		NotBefore: now.Add(-backdate).UTC(), NotAfter: until.UTC(),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.root, public, s.key)
	if err != nil {
		return nil, fmt.Errorf("ca: sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// check tells whether a certificate can name the subject.
func (s Subject) check() error {
	switch s.Role {
	case RoleWorker, RoleManager, RoleUser:
	default:
		return fmt.Errorf("ca: there is no role %q", s.Role)
	}
	if !plain(s.ID) || !plain(s.Cluster) {
		return fmt.Errorf("ca: a certificate cannot name %q of %q: want 1 to %d letters, digits, ., - and _", s.ID, s.Cluster, maxSubject)
	}
	switch Role(s.ID) { // the DNS names hold both: nobody is to be called what only a role is
	case RoleWorker, RoleManager, RoleUser:
		return fmt.Errorf("ca: %q is the name of a role", s.ID)
	}
	return nil
}

func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= maxSubject
}

// CheckRequest says what is wrong with a certificate request, such that no signer would take it.
func CheckRequest(csrPEM []byte) error {
	_, _, err := parseRequest(csrPEM)
	return err
}

// parseRequest is the key of a certificate request whose sender has it, and the request in plain PEM.
func parseRequest(csrPEM []byte) (crypto.PublicKey, []byte, error) {
	if len(csrPEM) > maxRequest {
		return nil, nil, fmt.Errorf("ca: the certificate request has %d bytes, at most %d are allowed", len(csrPEM), maxRequest)
	}
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != typeRequest {
		return nil, nil, errors.New("ca: there is no certificate request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("ca: the certificate request cannot be read: %w", err)
	}
	if err := checkPublic(csr.PublicKey); err != nil { // before its signature is, which takes the longer the larger it is
		return nil, nil, fmt.Errorf("ca: the certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, nil, fmt.Errorf("ca: the certificate request is not signed with its own key: %w", err)
	}
	return csr.PublicKey, encode(typeRequest, csr.Raw), nil
}
