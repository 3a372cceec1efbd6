package ca

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

var curve = elliptic.P256()

// from lets a root begin earlier.
func from(then time.Time) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore = then }
}

// met is what came of a connection.
type met struct {
	client, server error
	peer           Subject // whom the server takes the client for
	proven         bool
	state          tls.ConnectionState // the client's
}

func (m met) ok() bool { return m.client == nil && m.server == nil }

// meet makes a real connection on loopback, over which the server says one word after the handshake.
func meet(t testing.TB, server, client *tls.Config) (m met) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.server = func() error {
			conn, err := listener.Accept()
			if err != nil {
				return err
			}
			defer conn.Close()
			secure := tls.Server(conn, server)
			if err := secure.HandshakeContext(t.Context()); err != nil {
				return err
			}
			state := secure.ConnectionState()
			m.peer, m.proven = PeerSubject(&state)
			if _, err := secure.Write([]byte("hi")); err != nil {
				return err
			}
			return secure.Close()
		}()
	}()
	m.state, m.client = func() (tls.ConnectionState, error) {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		secure := tls.Client(conn, client)
		word, err := io.ReadAll(secure)
		if err == nil && string(word) != "hi" {
			err = fmt.Errorf("the server said %q", word)
		}
		return secure.ConnectionState(), err
	}()
	<-done
	return m
}

func TestMeeting(t *testing.T) {
	r := newRoot(t)
	m := r.identity(t, manager("m1"), r.cert)
	for _, c := range []*Identity{r.identity(t, worker("w1"), r.cert), r.identity(t, manager("m2"), r.cert)} {
		got := meet(t, m.ServerTLS(), c.ClientTLS())
		if !got.ok() || !got.proven || got.peer != c.Subject() || got.state.Version != tls.VersionTLS13 {
			t.Errorf("%+v", got)
		}
	}
	user, key := r.sign(t, Subject{"ann", RoleUser, "c1"}, time.Now(), time.Hour)
	config, err := UserTLS(user, key, r.cert)
	if err != nil {
		t.Fatal(err)
	}
	if got := meet(t, m.ServerTLS(), config); !got.ok() || !got.proven || got.peer != (Subject{"ann", RoleUser, "c1"}) {
		t.Errorf("user: %+v", got)
	}
	config, err = UserTLS(nil, nil, r.cert)
	if err != nil {
		t.Fatal(err)
	}
	if got := meet(t, m.ServerTLS(), config); !got.ok() || got.proven || got.peer != (Subject{}) {
		t.Errorf("nobody: %+v", got)
	}
}

// TestServersThatAreRefused: a client goes on with nobody but a manager of its swarm.
func TestServersThatAreRefused(t *testing.T) {
	now, r, foreign := time.Now(), newRoot(t), newRoot(t)
	long := custom(t, ecKey(t, curve), from(now.Add(-minRootLife)))
	roots := join(r.cert, long.cert)
	of := func(r root, s Subject, then time.Time) *tls.Config {
		chain, key := r.sign(t, s, then, 2*time.Hour)
		return identity(t, chain, key, r.cert).ServerTLS()
	}
	old := of(r, manager("m1"), now)
	old.GetConfigForClient, old.MinVersion, old.MaxVersion = nil, 0, tls.VersionTLS12
	client := r.identity(t, worker("w1"), roots)
	userConfig, err := UserTLS(nil, nil, roots)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		server *tls.Config
		want   string
	}{
		"expired":      {of(long, manager("m1"), now.Add(-4*time.Hour)), "was valid until"},
		"early":        {of(r, manager("m1"), now.Add(3*time.Hour)), "is not valid until"},
		"foreign root": {of(foreign, manager("m1"), now), "signed by no root"},
		"worker":       {of(r, worker("w2"), now), "is no manager"},
		"user":         {of(r, Subject{"ann", RoleUser, "c1"}, now), "is no manager"},
		"TLS 1.2":      {old, "protocol version"},
		"root itself":  {bare(t, r.cert, r.key), "is a CA's"},
		"nobody's":     {bare(t, sign(t, r, &x509.Certificate{Subject: pkix.Name{CommonName: "m1"}}), r.key), "does not name one role"},
		"for clients":  {bare(t, sign(t, r, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}), r.key), "is not good"},
	} {
		for _, config := range []*tls.Config{client.ClientTLS(), userConfig} {
			got := meet(t, c.server, config)
			refused(t, got.client, c.want)
			if late := name == "expired" || name == "early"; late != errors.As(got.client, new(*TimeError)) {
				t.Errorf("%s: %T", name, got.client)
			}
		}
	}
	elsewhere := of(r, Subject{"m1", RoleManager, "c2"}, now)
	refused(t, meet(t, elsewhere, client.ClientTLS()).client, "another swarm")
}

// sign has the root's own key certified: for certificates that no signer of ours makes.
func sign(t testing.TB, r root, template *x509.Certificate) []byte {
	t.Helper()
	key, err := parseKey(r.key)
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parse(t, r.cert), key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return encode(typeCertificate, der)
}

// bare is a server, or client, with any certificate.
func bare(t testing.TB, chain, key []byte) *tls.Config {
	t.Helper()
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
	}
}

// TestClientsThatAreRefused: a certificate that is not good ends the connection. It is not taken for none.
func TestClientsThatAreRefused(t *testing.T) {
	now, r, foreign := time.Now(), newRoot(t), newRoot(t)
	long := custom(t, ecKey(t, curve), from(now.Add(-minRootLife)))
	server := r.identity(t, manager("m1"), join(r.cert, long.cert)).ServerTLS()
	of := func(r root, s Subject, then time.Time) *tls.Config {
		chain, key := r.sign(t, s, then, 2*time.Hour)
		return bare(t, chain, key)
	}
	old := of(r, worker("w1"), now)
	old.MaxVersion = tls.VersionTLS12
	for name, c := range map[string]struct {
		client *tls.Config
		want   string // what the client learns
	}{
		"expired":       {of(long, worker("w1"), now.Add(-4*time.Hour)), "expired certificate"},
		"early":         {of(r, worker("w1"), now.Add(3*time.Hour)), "expired certificate"},
		"foreign root":  {of(foreign, worker("w1"), now), "unknown certificate authority"},
		"other cluster": {of(r, Subject{"w1", RoleWorker, "c2"}, now), "bad certificate"},
		"TLS 1.2":       {old, "protocol version"},
		"nobody's":      {bare(t, sign(t, r, &x509.Certificate{Subject: pkix.Name{CommonName: "m1"}}), r.key), "bad certificate"},
		"for servers":   {bare(t, sign(t, r, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}), r.key), "bad certificate"},
	} {
		got := meet(t, server, c.client)
		refused(t, got.client, c.want)
		if got.server == nil || got.proven {
			t.Errorf("%s: the server took %+v", name, got.peer)
		}
	}
	if got := meet(t, server, &tls.Config{InsecureSkipVerify: true}); !got.ok() || got.proven {
		t.Errorf("without a certificate: %+v", got)
	}
}

// TestRotation: each side in every state that a rotation brings it to, against each other one.
func TestRotation(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	cross := crossSign(t, a, b)
	type side struct {
		name                         string
		ofNew, cross, trustA, trustB bool
		i                            *Identity
	}
	var sides []side
	for _, cert := range []string{"A", "B", "B+cross"} {
		for _, trust := range []string{"A", "B", "AB"} {
			s := side{cert + "/" + trust, cert != "A", cert == "B+cross", strings.Contains(trust, "A"), strings.Contains(trust, "B"), nil}
			signer, with := a, []byte(nil)
			if s.ofNew {
				signer = b
			}
			if s.cross {
				with = cross
			}
			chain, key := signer.sign(t, manager("m"), time.Now(), time.Hour, with...)
			var roots []byte
			if s.trustB {
				roots = join(roots, b.cert)
			}
			if s.trustA {
				roots = join(roots, a.cert)
			}
			var err error
			s.i, err = NewIdentity(chain, key, roots)
			if own := trusts(s.trustA, s.trustB, s.ofNew, s.cross); own != (err == nil) {
				t.Errorf("%s: %v", s.name, err)
			}
			if err == nil {
				sides = append(sides, s)
			}
		}
	}
	if len(sides) != 7 {
		t.Fatalf("%d states, want 7", len(sides))
	}
	for _, server := range sides {
		for _, client := range sides {
			want := trusts(client.trustA, client.trustB, server.ofNew, server.cross) && trusts(server.trustA, server.trustB, client.ofNew, client.cross)
			if got := meet(t, server.i.ServerTLS(), client.i.ClientTLS()); got.ok() != want || got.proven != want {
				t.Errorf("server %s, client %s: %+v, want %v", server.name, client.name, got, want)
			}
		}
	}
}

// trusts tells whether one who trusts A, B or both takes a certificate of B (else of A), with the cross-signed root or without.
func trusts(a, b, ofNew, cross bool) bool {
	if !ofNew {
		return a
	}
	return b || a && cross
}

// TestUpdateCounts: settings that were taken before an update follow it, and nobody who is no longer trusted comes back by
// resuming an earlier session.
func TestUpdateCounts(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	server, client := a.identity(t, manager("m1"), a.cert), a.identity(t, worker("w1"), a.cert)
	serve, call := server.ServerTLS(), client.ClientTLS()
	call.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 2 {
		if got := meet(t, serve, call); !got.ok() || got.state.DidResume || got.state.PeerCertificates[0].Subject.CommonName != "m1" {
			t.Fatalf("%+v", got)
		}
	}
	chain, key := b.sign(t, manager("m1"), time.Now(), time.Hour)
	if err := server.Update(chain, key, b.cert); err != nil {
		t.Fatal(err)
	}
	got := meet(t, serve, call)
	refused(t, got.client, "signed by no root")
	keepRoots, keepKey := b.sign(t, worker("w1"), time.Now(), time.Hour)
	if err := client.Update(keepRoots, keepKey, b.cert); err != nil {
		t.Fatal(err)
	}
	if got := meet(t, serve, call); !got.ok() || got.state.DidResume || !got.proven {
		t.Errorf("after both have come to the new root: %+v", got)
	}
	oldChain, oldKey := a.sign(t, worker("w1"), time.Now(), time.Hour)
	refused(t, meet(t, serve, bare(t, oldChain, oldKey)).client, "unknown certificate authority")
}

func TestUserTLSOfNothing(t *testing.T) {
	r := newRoot(t)
	chain, key := r.sign(t, Subject{"ann", RoleUser, "c1"}, time.Now(), time.Hour)
	for want, c := range map[string][3][]byte{
		"roots holds no": {chain, key, nil}, "key holds no": {chain, nil, r.cert}, "certificate holds no": {nil, key, r.cert},
		"not the key": {chain, newKey(t), r.cert}, "does not name": {r.cert, r.key, r.cert},
	} {
		_, err := UserTLS(c[0], c[1], c[2])
		refused(t, err, want)
	}
}

// TestPeerSubject: a certificate that was good when the connection was made counts only as long as it lasts.
func TestPeerSubject(t *testing.T) {
	now, r := time.Now(), newRoot(t)
	long := custom(t, ecKey(t, curve), from(now.Add(-minRootLife)))
	state := func(r root, then time.Time) *tls.ConnectionState {
		chain, _ := r.sign(t, worker("w1"), then, 2*time.Hour)
		leaf := parse(t, chain)
		return &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
	}
	if got, ok := PeerSubject(state(r, now)); !ok || got != worker("w1") {
		t.Errorf("%+v %v", got, ok)
	}
	unverified, unfinished := state(r, now), state(r, now)
	unverified.VerifiedChains, unfinished.HandshakeComplete = nil, false
	for name, s := range map[string]*tls.ConnectionState{
		"none": nil, "empty": {HandshakeComplete: true}, "unverified": unverified, "unfinished": unfinished,
		"expired": state(long, now.Add(-3*time.Hour)), "early": state(r, now.Add(3*time.Hour)),
	} {
		if got, ok := PeerSubject(s); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestBelow(t *testing.T) {
	a, b := newRoot(t), newRoot(t)
	m, _ := a.sign(t, manager("m1"), time.Now(), time.Hour)
	w, _ := a.sign(t, worker("w1"), time.Now(), time.Hour)
	for _, c := range []struct {
		chain, root []byte
		want        bool
	}{{m, a.cert, true}, {m, b.cert, false}, {w, a.cert, false}, {m, nil, false}} {
		if got := Below([]*x509.Certificate{parse(t, c.chain)}, c.root); got != c.want {
			t.Errorf("%v, want %v", got, c.want)
		}
	}
	if Below(nil, a.cert) {
		t.Error("nobody is below a root")
	}
}
