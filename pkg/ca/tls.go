package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// protocols are what is spoken inside of TLS.
var protocols = []string{"h2", "http/1.1"}

// ServerTLS is for a manager's port: TLS 1.3 with the identity's certificate. A client may come without a certificate; one that
// it gives must be good, of the same swarm and below a root that is trusted at that time, or the handshake fails. No session
// is ever resumed, so every connection is checked anew.
func (i *Identity) ServerTLS() *tls.Config {
	c := i.serve()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return i.serve(), nil }
	return c
}

func (i *Identity) serve() *tls.Config {
	now := i.now.Load()
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{now.cert},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: now.pool,
		VerifyConnection: now.checkClient,
	}
}

// checkClient is asked after the certificate, if there is one, was verified.
func (c *credentials) checkClient(s tls.ConnectionState) error {
	if len(s.PeerCertificates) == 0 {
		return nil
	}
	subject, err := subjectOf(s.PeerCertificates[0])
	if err != nil {
		return fmt.Errorf("ca: the client's certificate %w", err)
	}
	return sameCluster(subject, c.subject.Cluster)
}

func sameCluster(s Subject, want string) error {
	if s.Cluster != want {
		return fmt.Errorf("ca: the certificate of %s is of another swarm (%s, want %s)", s.ID, s.Cluster, want)
	}
	return nil
}

// ClientTLS is for calls to managers: TLS 1.3 with the identity's certificate. The server must be a manager of the same swarm,
// with a certificate below a root that is trusted at that time; at which address it was found does not matter.
func (i *Identity) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // its check is of host names, which change; VerifyConnection has ours
		VerifyConnection: func(s tls.ConnectionState) error {
			now := i.now.Load()
			return checkServer(s, now.pool, now.subject.Cluster)
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &i.now.Load().cert, nil },
	}
}

// ExternalTLS is for calls to servers outside of the swarm, such as an external CA: the usual check of host names below the
// system's roots or the swarm's, which are taken once, and the identity's certificate where the server asks for one.
func (i *Identity) ExternalTLS() *tls.Config {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any: the swarm's are enough
	}
	for _, root := range i.now.Load().roots {
		pool.AddCert(root)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &i.now.Load().cert, nil },
	}
}

// UserTLS is for people's calls to managers: as ClientTLS with roots, certificate and key that do not change. Those who have a
// token instead of a certificate leave chain and key nil.
func UserTLS(chainPEM, keyPEM, rootsPEM []byte) (*tls.Config, error) {
	roots, err := parseRoots(rootsPEM)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} // as in ClientTLS
	pool, cluster := newPool(roots), ""
	if len(chainPEM) > 0 || len(keyPEM) > 0 {
		cert, chain, err := parsePair(chainPEM, keyPEM)
		if err != nil {
			return nil, err
		}
		subject, err := subjectOf(chain[0])
		if err != nil {
			return nil, fmt.Errorf("ca: the certificate %w", err)
		}
		cluster = subject.Cluster
		// Not one of config.Certificates: those are kept back where the server names other roots.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	config.VerifyConnection = func(s tls.ConnectionState) error { return checkServer(s, pool, cluster) }
	return config, nil
}

// checkServer tells whether a server is a manager: of the cluster, or of any with these roots where that is "".
func checkServer(s tls.ConnectionState, roots *x509.CertPool, cluster string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("ca: the server has no certificate")
	}
	if err := verify(s.PeerCertificates, roots, time.Now(), x509.ExtKeyUsageServerAuth); err != nil {
		return fmt.Errorf("ca: the server's certificate %w", err)
	}
	subject, err := subjectOf(s.PeerCertificates[0])
	if err != nil {
		return fmt.Errorf("ca: the server's certificate %w", err)
	}
	if subject.Role != RoleManager {
		return fmt.Errorf("ca: the server %s is no manager: its certificate is for %s", subject.ID, subject.Role)
	}
	if cluster == "" {
		return nil
	}
	return sameCluster(subject, cluster)
}

// PeerSubject is who the other side of a connection proved to be by a certificate that was verified in the handshake and is
// still good; false where it gave none, or one that has expired since.
func PeerSubject(s *tls.ConnectionState) (Subject, bool) {
	if s == nil || !s.HandshakeComplete || len(s.VerifiedChains) == 0 || len(s.PeerCertificates) == 0 {
		return Subject{}, false
	}
	leaf, now := s.PeerCertificates[0], time.Now()
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return Subject{}, false
	}
	subject, err := subjectOf(leaf)
	return subject, err == nil
}

// Below tells whether a manager's certificates, the first its own, lead to the root, at this time.
func Below(chain []*x509.Certificate, rootPEM []byte) bool {
	root, err := parseOne(rootPEM)
	return err == nil && checkServer(tls.ConnectionState{PeerCertificates: chain}, newPool([]*x509.Certificate{root}), "") == nil
}

// verify checks that the first of a chain is good at the time, for the usage, and leads over the others to a root.
func verify(chain []*x509.Certificate, roots *x509.CertPool, at time.Time, usage x509.ExtKeyUsage) error {
	between := x509.NewCertPool()
	for _, cert := range chain[1:min(len(chain), maxCertificates)] {
		between.AddCert(cert)
	}
	leaf := chain[0]
	if leaf.IsCA {
		return errors.New("is a CA's, not one of a node or user")
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return outOfTime(invalid.Cert, at)
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Errorf("is signed by no root that is trusted here: %w", err)
	case err != nil:
		return fmt.Errorf("is not good: %w", err)
	}
	return nil
}

// subjectOf reads whose a certificate is.
func subjectOf(cert *x509.Certificate) (Subject, error) {
	name := cert.Subject
	if len(name.OrganizationalUnit) != 1 || len(name.Organization) != 1 {
		return Subject{}, errors.New("does not name one role and one swarm")
	}
	s := Subject{ID: name.CommonName, Role: Role(name.OrganizationalUnit[0]), Cluster: name.Organization[0]}
	if err := s.check(); err != nil {
		return Subject{}, fmt.Errorf("is not one of a swarm: %w", err)
	}
	return s, nil
}
