package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestCertificates gives the swarm a root whose key the test has, and knocks at a manager's port by hand with every certificate that must
// not count, and without TLS.
func TestCertificates(t *testing.T) {
	s := form(t, 1, 1)
	manager, worker := s.Hosts[0], s.Hosts[1]
	mine := newAuthority(t)
	manager.Must("swarm", "ca", "--rotate", "--ca-cert", mine.certFile, "--ca-key", mine.keyFile, "--quiet")
	if got := manager.Must("swarm", "ca"); strings.TrimSpace(got) != strings.TrimSpace(string(mine.root)) {
		t.Errorf("swarm ca tells another root than the given one:\n%s", got)
	}
	good, id := s.certificateOf(worker), s.nodes[worker.Name]
	subject := func(id string, role ca.Role) ca.Subject {
		return ca.Subject{ID: id, Role: role, Cluster: good.subject.Cluster}
	}
	stranger := newAuthority(t)
	long, now := time.Now().Add(-48*time.Hour), time.Now()
	own := "/v1/nodes/" + id
	for _, c := range []struct {
		name   string
		tls    *tls.Config
		path   string
		status int // 0: the connection itself is refused
	}{
		{"the worker's own certificate, its own door by a wrong verb", good.config(), own + "/certificate", http.StatusMethodNotAllowed},
		{"the worker's own certificate, all nodes", good.config(), "/v1/nodes", http.StatusForbidden},
		{"one as good as the worker's own, all nodes", mine.sign(subject(id, ca.RoleWorker), now), "/v1/nodes", http.StatusForbidden},
		{"a manager's for a node whose role is worker", mine.sign(subject(id, ca.RoleManager), now), "/v1/nodes", http.StatusForbidden},
		{"a manager's for a node that is not", mine.sign(subject("nosuchnode", ca.RoleManager), now), "/v1/nodes", http.StatusForbidden},
		{"a user's for a user that is not", mine.sign(subject("nosuchuser", ca.RoleUser), now), "/v1/nodes", http.StatusForbidden},
		{"of another swarm of the same CA", mine.sign(ca.Subject{ID: s.nodes[manager.Name], Role: ca.RoleManager, Cluster: "other"}, now), "/v1/nodes", 0},
		{"expired", mine.sign(subject(s.nodes[manager.Name], ca.RoleManager), long), "/v1/nodes", 0},
		{"not good yet", mine.sign(subject(s.nodes[manager.Name], ca.RoleManager), now.Add(48*time.Hour)), "/v1/nodes", 0},
		{"a foreign CA's", stranger.sign(subject(s.nodes[manager.Name], ca.RoleManager), now), "/v1/nodes", 0},
		{"no certificate, the roots", &tls.Config{}, "/v1/swarm/roots", http.StatusOK},
		{"no certificate, all nodes", &tls.Config{}, "/v1/nodes", http.StatusUnauthorized},
		{"the worker's own over TLS 1.2", good.over(tls.VersionTLS12), "/v1/swarm/roots", 0},
		{"none over TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, "/v1/swarm/roots", 0},
		{"none over TLS 1.0", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}, "/v1/swarm/roots", 0},
	} {
		status, err := knock(s.Client, manager, c.tls, c.path)
		if refused := err != nil || c.name == "of another swarm of the same CA" && (status == http.StatusUnauthorized || status == http.StatusForbidden); c.status == 0 && !refused ||
			c.status != 0 && (status != c.status || err != nil) {
			t.Errorf("%s: %s answers %d, %v, want %d", c.name, c.path, status, err, c.status)
		}
	}
	if answer, err := s.Client.Get(fmt.Sprintf("http://%s:2377/v1/swarm/roots", manager.Addr)); err == nil {
		t.Errorf("plain HTTP is answered: %q", answer)
	}
	plain(t, s.Client, manager)

	// A certificate counts only as long as its node does.
	worker.Kill()
	s.Eventually(generous, "the worker is down", func() error {
		if out := manager.Must("node", "ls", "--format", "{{.Hostname}} {{.Status}}"); !strings.Contains(out, "worker1 Down") {
			return fmt.Errorf("node ls:\n%s", out)
		}
		return nil
	})
	manager.Must("node", "rm", "worker1")
	if status, err := knock(s.Client, manager, good.config(), own+"/session"); err == nil && status != http.StatusUnauthorized && status != http.StatusForbidden {
		t.Errorf("the certificate of a node that was removed: %d, %v", status, err)
	}
	if err := worker.Launch(); err != nil {
		t.Fatal(err)
	}
	s.Eventually(generous, "a removed node is told so", func() error {
		if out := worker.Ctl("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.Error}}").Stdout; !strings.Contains(out, "error") || !strings.Contains(out, "removed") {
			return fmt.Errorf("info: %q\n%s", out, tail(worker.Log(), 1000))
		}
		return nil
	})
	if out := manager.Must("node", "ls", "-q"); strings.Count(out, "\n") != 1 {
		t.Errorf("a removed node came back:\n%s", out)
	}
}

// held is the certificate that a node has on its disk, as somebody who stole it would use it.
type held struct {
	certificate tls.Certificate
	subject     ca.Subject
}

func (h held) config() *tls.Config {
	return &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &h.certificate, nil // even where the server names another CA
	}}
}

func (h held) over(version uint16) *tls.Config {
	c := h.config()
	c.MaxVersion = version
	return c
}

// certificateOf takes a node's certificate and key from its disk.
func (s *swarm) certificateOf(h *lab.Host) held {
	s.t.Helper()
	var chain, key []byte
	err := filepath.WalkDir(h.Root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() == "containerd" {
			return filepath.SkipDir
		}
		if d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil // a socket
		}
		if block, _ := pem.Decode(data); block != nil && strings.Contains(block.Type, "PRIVATE KEY") {
			key = data
		} else if block != nil && leaf(block) {
			chain = data
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		s.t.Fatalf("no certificate and key of %s: %v", h.Name, err)
	}
	cert := pair.Leaf
	return held{pair, ca.Subject{ID: cert.Subject.CommonName, Role: ca.Role(cert.Subject.OrganizationalUnit[0]), Cluster: cert.Subject.Organization[0]}}
}

func leaf(block *pem.Block) bool {
	cert, err := x509.ParseCertificate(block.Bytes)
	return err == nil && !cert.IsCA
}

// authority is a CA whose key the test has.
type authority struct {
	t                 *testing.T
	root, key         []byte
	certFile, keyFile string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	root, key, err := ca.NewRoot(time.Now().Add(-72 * time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	a := authority{t, root, key, filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "ca-key.pem")}
	if err := errors.Join(os.WriteFile(a.certFile, root, 0o600), os.WriteFile(a.keyFile, key, 0o600)); err != nil {
		t.Fatal(err)
	}
	return a
}

// sign makes a client with a certificate that was made at a time, for an hour.
func (a authority) sign(subject ca.Subject, at time.Time) *tls.Config {
	a.t.Helper()
	signer, err := ca.NewSigner(a.root, a.key, nil, func() time.Time { return at })
	if err != nil {
		a.t.Fatal(err)
	}
	key, err := ca.NewKey()
	if err != nil {
		a.t.Fatal(err)
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		a.t.Fatal(err)
	}
	chain, err := signer.Sign(a.t.Context(), csr, subject, time.Hour)
	if err != nil {
		a.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		a.t.Fatal(err)
	}
	return held{certificate: pair}.config()
}

// knock asks a manager's port for a path, and believes whatever certificate the manager has.
func knock(from *lab.Namespace, manager *lab.Host, config *tls.Config, path string) (int, error) {
	config = config.Clone()
	config.InsecureSkipVerify = true //nolint:gosec // an attacker does not mind
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return from.DialContext(ctx, network, addr)
		}}}
	answer, err := c.Get(fmt.Sprintf("https://%s:2377%s", manager.Addr, path))
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20))
	return answer.StatusCode, err
}

// plain speaks to the port without TLS: nothing of the API comes back.
func plain(t *testing.T, from *lab.Namespace, manager *lab.Host) {
	t.Helper()
	conn, err := from.DialContext(t.Context(), "tcp", fmt.Sprintf("%s:2377", manager.Addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "GET /v1/swarm/roots HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, _ := io.ReadAll(conn)
	if strings.Contains(string(answer), "200 OK") || strings.Contains(string(answer), "CERTIFICATE") {
		t.Errorf("plain HTTP is answered: %q", answer)
	}
}

// TestRotateCA changes the root while all nodes are connected: each gets a certificate of the new one, and no container, no session and no
// write notices. Old tokens end with the old root.
func TestRotateCA(t *testing.T) {
	s := form(t, 3, 2)
	first := s.Hosts[0]
	s.serve(first, "web", 10)
	before := s.untouched(nil)
	token, addr := first.JoinArguments("worker")
	old := first.Must("swarm", "ca")
	stop := s.keepWriting(first)
	out := first.Must("swarm", "ca", "--rotate")
	stop()
	if !strings.Contains(out, "BEGIN CERTIFICATE") || strings.Contains(out, strings.TrimSpace(old)) {
		t.Errorf("swarm ca --rotate prints\n%s", out)
	}
	s.stillRun("the CA was rotated", before)
	if out := first.Must("node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}"); strings.Count(out, " Ready\n") != 5 {
		t.Errorf("TLS status of the nodes:\n%s", out)
	}
	for _, h := range s.Hosts[:3] {
		if now := h.Must("swarm", "ca"); now == old {
			t.Errorf("%s still tells the old root", h.Name)
		}
	}
	s.Settled(first, 3)
	late, err := s.Add("worker3")
	if err != nil {
		t.Fatal(err)
	}
	late.Start()
	if r := late.Ctl("swarm", "join", "--token", token, addr); r.Code == 0 {
		t.Error("a token of the old root is good")
	}
	if err := late.LoadImages(); err != nil {
		t.Fatal(err)
	}
	late.Join(first, "worker")
	s.learnNodes()
	s.Settled(first, 3)

	// All of them find each other with the new root alone: after a restart, too.
	for _, h := range s.Hosts {
		h.Kill()
	}
	s.StartAll()
	s.Settled(first, 3)
	s.stillRun("all were restarted", before)
	first.Must("service", "scale", "web=12")
	s.settled(first, generous, "web")
}
