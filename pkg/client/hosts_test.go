package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

// swarm is a root that tests have certificates of.
type swarm struct {
	t         testing.TB
	cert, key []byte
}

func newSwarm(t testing.TB) *swarm {
	t.Helper()
	cert, key, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &swarm{t, cert, key}
}

// issue signs a certificate of a new key, as if it were then.
func (s *swarm) issue(id string, role ca.Role, then time.Time) (chain, key []byte) {
	s.t.Helper()
	signer, err := ca.NewSigner(s.cert, s.key, nil, func() time.Time { return then })
	if err != nil {
		s.t.Fatal(err)
	}
	if key, err = ca.NewKey(); err != nil {
		s.t.Fatal(err)
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		s.t.Fatal(err)
	}
	if chain, err = signer.Sign(s.t.Context(), csr, ca.Subject{ID: id, Role: role, Cluster: "c1"}, 2*time.Hour); err != nil {
		s.t.Fatal(err)
	}
	return chain, key
}

func (s *swarm) identity(id string, role ca.Role) *ca.Identity {
	return s.identityAt(id, role, time.Now())
}

func (s *swarm) identityAt(id string, role ca.Role, then time.Time) *ca.Identity {
	s.t.Helper()
	chain, key := s.issue(id, role, then)
	i, err := ca.NewIdentity(chain, key, s.cert)
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// manager is a server with a manager's certificate. Its address is host:port.
func (s *swarm) manager(h http.HandlerFunc) (server *httptest.Server, addr string) {
	return s.serve(s.identity("m1", ca.RoleManager).ServerTLS(), h)
}

func (s *swarm) serve(config *tls.Config, h http.HandlerFunc) (server *httptest.Server, addr string) {
	server = httptest.NewUnstartedServer(h)
	server.TLS, server.EnableHTTP2 = config, true
	server.Config.ErrorLog = quiet
	server.StartTLS()
	s.t.Cleanup(server.Close)
	return server, server.Listener.Addr().String()
}

// client is a worker's client of the hosts.
func (s *swarm) client(hosts ...string) *Client {
	s.t.Helper()
	c, err := Dial(Options{Hosts: hosts, TLS: s.identity("w1", ca.RoleWorker).ClientTLS()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// nobody is an address on loopback where nobody listens.
func nobody(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func refused(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestDial(t *testing.T) {
	config := new(tls.Config)
	for _, c := range []struct {
		host, address, want string
	}{
		{"10.0.0.1:2377", "10.0.0.1:2377", ""}, {"10.0.0.1", "10.0.0.1:2377", ""}, {"[fd00::1]:1", "[fd00::1]:1", ""}, {"[fd00::1]", "[fd00::1]:2377", ""},
		{"https://m.example.com:1", "m.example.com:1", ""}, {"m.example.com", "m.example.com:2377", ""}, {"unix:///run/x.sock", "/run/x.sock", ""}, {"", "/run/swarmd/swarmd.sock", ""},
		{"10.0.0.1:x", "", "invalid port"}, {"https://", "", "host:port"}, {"10.0.0.1:1/path", "", "host:port"}, {"user@10.0.0.1:1", "", "host:port"},
		{"tcp://10.0.0.1:1", "", "host:port"}, {"http://10.0.0.1:1", "", "loopback"}, {"10.0.0.1:1?x=y", "", "host:port"}, {"/run/x.sock", "", "host:port"},
	} {
		got, err := Dial(Options{Hosts: []string{c.host}, TLS: config})
		switch {
		case c.want != "":
			refused(t, err, c.want)
		case err != nil:
			t.Errorf("%s: %v", c.host, err)
		case got.at().address != c.address:
			t.Errorf("%s is %s, want %s", c.host, got.at().address, c.address)
		}
	}
	_, err := Dial(Options{Hosts: []string{"10.0.0.1:2377"}})
	refused(t, err, "root certificate")
	c, err := Dial(Options{})
	if err != nil || c.Host() != DefaultHost {
		t.Errorf("%v %v", c, err)
	}
}

// TestSwitches: whoever works is stayed with, and every other one is tried before a request fails.
func TestSwitches(t *testing.T) {
	s := newSwarm(t)
	var calls, refusals atomic.Int32
	_, good := s.manager(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if r.ProtoMajor != 2 || r.TLS.PeerCertificates[0].Subject.CommonName != "w1" {
			t.Errorf("%s of %v", r.Proto, r.TLS.PeerCertificates)
		}
		fmt.Fprint(w, `{}`)
	})
	_, notManager := s.manager(func(w http.ResponseWriter, _ *http.Request) {
		refusals.Add(1)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"type":%q,"title":"no","detail":"This node is not a swarm manager."}`, v1.ProblemNotManager)
	})
	foreign := newSwarm(t)
	_, other := foreign.manager(func(http.ResponseWriter, *http.Request) { t.Error("a foreign manager was asked") })
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, bad := range []string{nobody(t), notManager, other} {
			c := s.client(bad, good)
			for range 3 {
				var out struct{}
				if err := c.Do(t.Context(), method, "/v1/info", nil, &out); err != nil {
					t.Errorf("%s: %v", method, err)
				}
			}
			if c.Host() != good {
				t.Errorf("stays with %s, want %s", c.Host(), good)
			}
		}
	}
	if calls.Load() != 18 || refusals.Load() != 2 {
		t.Errorf("%d answers and %d refusals, want 18 and 2: one try of the bad host for each client", calls.Load(), refusals.Load())
	}
}

// TestNobodyLeft: where no host does it, the error is the one that says most.
func TestNobodyLeft(t *testing.T) {
	s, foreign := newSwarm(t), newSwarm(t)
	_, notManager := s.manager(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"type":%q,"title":"no","detail":"locked"}`, v1.ProblemNotManager)
	})
	_, other := foreign.manager(func(http.ResponseWriter, *http.Request) {})
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	old, oldAddr := s.serve(&tls.Config{MaxVersion: tls.VersionTLS12}, func(http.ResponseWriter, *http.Request) {})
	old.Config.ErrorLog = quiet
	a, b := nobody(t), nobody(t)
	for _, c := range []struct {
		hosts []string
		want  string
	}{
		{[]string{a, notManager}, "locked"}, {[]string{a, other, b}, "signed by no root"}, {[]string{other}, "cannot connect to the swarm manager at " + other},
		{[]string{a, b}, "Cannot connect to the swarmd daemon at " + a + " (connection refused), " + b + " (connection refused). Is the swarmd daemon running?"},
		{[]string{a}, "Cannot connect to the swarmd daemon at " + a + " (connection refused). Is"},
		{[]string{plain.Listener.Addr().String()}, "it does not speak TLS"}, {[]string{oldAddr}, "it does not speak TLS 1.3"},
	} {
		err := s.client(c.hosts...).Do(t.Context(), http.MethodGet, "/", nil, nil)
		refused(t, err, c.want)
		if away := new(ConnectError); c.want != "locked" && !errors.As(err, &away) {
			t.Errorf("%T, want a ConnectError", err)
		}
	}
}

// TestRefusedCertificates: what the manager has against this side's certificate is told in words.
func TestRefusedCertificates(t *testing.T) {
	s, foreign := newSwarm(t), newSwarm(t)
	_, addr := s.manager(func(http.ResponseWriter, *http.Request) { t.Error("a request was let in") })
	early := s.identityAt("w1", ca.RoleWorker, time.Now().Add(3*time.Hour))
	chain, key := foreign.issue("w1", ca.RoleWorker, time.Now())
	both, err := ca.NewIdentity(chain, key, append(append([]byte{}, s.cert...), foreign.cert...))
	if err != nil {
		t.Fatal(err)
	}
	for want, i := range map[string]*ca.Identity{"are the clocks of both machines right?": early, "of another swarm or was replaced": both} {
		c, err := Dial(Options{Hosts: []string{addr}, TLS: i.ClientTLS()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 10 { // what the manager says may get lost on its way, together with the connection
			refused(t, c.Do(t.Context(), http.MethodPost, "/", map[string]int{"a": 1}, nil), want)
		}
	}
}

// TestWritesAreNotRepeated: a connection that breaks takes a write with it, whose answer is lost, and only reads go elsewhere.
func TestWritesAreNotRepeated(t *testing.T) {
	s := newSwarm(t)
	var broken, answered atomic.Int32
	breaks := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		broken.Add(1)
		panic(http.ErrAbortHandler)
	}
	unavailable := func(w http.ResponseWriter, r *http.Request) {
		broken.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, "what was asked may or may not have happened")
	}
	cuts := func(w http.ResponseWriter, r *http.Request) {
		broken.Add(1)
		fmt.Fprint(w, `{"a":`)
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	_, good := s.manager(func(w http.ResponseWriter, r *http.Request) {
		answered.Add(1)
		fmt.Fprint(w, `{"a":1}`)
	})
	for name, bad := range map[string]http.HandlerFunc{"breaks": breaks, "unavailable": unavailable, "cuts": cuts} {
		for method, want := range map[string]int32{http.MethodGet: 1, http.MethodPost: 0, http.MethodPut: 0, http.MethodDelete: 0} {
			broken.Store(0)
			answered.Store(0)
			_, first := s.manager(bad)
			c := s.client(first, good)
			var out map[string]int
			err := c.Do(t.Context(), method, "/", nil, &out)
			if broken.Load() != 1 || answered.Load() != want || (err == nil) != (want == 1) {
				t.Errorf("%s that %s: asked %d and %d times, %v", method, name, broken.Load(), answered.Load(), err)
			}
			if away := new(ConnectError); errors.As(err, &away) {
				t.Errorf("%s that %s: %v says that nothing was done", method, name, err)
			}
			if c.Host() != good {
				t.Errorf("%s that %s: the next request goes to the same host", method, name)
			}
		}
	}
}

// TestRefusalsEndIt: what a manager decided, no other is asked.
func TestRefusalsEndIt(t *testing.T) {
	s := newSwarm(t)
	_, first := s.manager(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) })
	_, second := s.manager(func(http.ResponseWriter, *http.Request) { t.Error("asked another one") })
	c := s.client(first, second)
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		if err := c.Do(t.Context(), method, "/", nil, nil); Status(err) != http.StatusConflict || c.Host() != first {
			t.Errorf("%v, then %s", err, c.Host())
		}
	}
}

func TestSetHosts(t *testing.T) {
	s := newSwarm(t)
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) }
	_, a := s.manager(ok)
	_, b := s.manager(ok)
	c := s.client(nobody(t), a)
	if err := c.Do(t.Context(), http.MethodGet, "/", nil, nil); err != nil || c.Host() != a {
		t.Fatalf("%v, then %s", err, c.Host())
	}
	for _, step := range []struct {
		hosts []string
		want  string
	}{
		{[]string{b, a}, a}, {nil, a}, {[]string{"tcp://x", ""}[:1], a}, {[]string{b, b, "%zz"}, b}, {[]string{a, b}, b},
	} {
		c.SetHosts(step.hosts)
		if err := c.Do(t.Context(), http.MethodGet, "/", nil, nil); err != nil || c.Host() != step.want {
			t.Errorf("%v: %v, then %s, want %s", step.hosts, err, c.Host(), step.want)
		}
	}
	if c.SetHosts([]string{a, a, b}); len(c.order()) != 2 {
		t.Errorf("%d hosts, want 2", len(c.order()))
	}
}

// TestRefresh: requests go over connections of the identity as it is, though a session still uses one of the older identity.
// TestSocketComesLast: the socket of this machine is used where there is nothing else, for whoever is behind it is lost with the machine.
func TestSocketComesLast(t *testing.T) {
	const socket = "unix:///run/nobody.sock"
	config := newSwarm(t).identity("n1", ca.RoleWorker).ClientTLS()
	for range 50 {
		c, err := Dial(Options{Hosts: []string{"10.0.0.1:2377", socket, "10.0.0.2:2377", "10.0.0.3:2377"}, TLS: config})
		if err != nil {
			t.Fatal(err)
		}
		if order := c.order(); order[0].name != "10.0.0.1:2377" || order[3].name != socket {
			t.Fatalf("they are tried in the order %s, %s, %s, %s", order[0].name, order[1].name, order[2].name, order[3].name)
		}
		if c.leave(c.at(), true); c.Host() == socket {
			t.Fatal("after one manager was lost, the socket comes before the others")
		}
		c.SetHosts([]string{"10.0.0.1:2377", socket})
		c.use(c.hosts[0])
		if c.leave(c.at(), true); c.Host() != socket {
			t.Fatalf("after all others were lost, %s is next, not the socket", c.Host())
		}
		if order := c.order(); order[0].name != socket {
			t.Fatal("the host that was lost is tried before the socket")
		}
		if c.Elsewhere(); c.Host() != "10.0.0.1:2377" {
			t.Fatalf("the next request goes to %s", c.Host())
		}
		c.SetHosts([]string{socket})
		if c.Elsewhere(); c.Host() != socket {
			t.Fatalf("with nobody else, the next request goes to %s", c.Host())
		}
	}
}

func TestRefresh(t *testing.T) {
	s := newSwarm(t)
	hold := make(chan struct{})
	_, addr := s.manager(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hold" {
			http.NewResponseController(w).Flush()
			<-hold
		}
		fmt.Fprintf(w, `{"serial":%q}`, r.TLS.PeerCertificates[0].SerialNumber.String())
	})
	i := s.identity("w1", ca.RoleWorker)
	c, err := Dial(Options{Hosts: []string{addr}, TLS: i.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	serial := func() string {
		var out struct{ Serial string }
		if err := c.Do(t.Context(), http.MethodGet, "/", nil, &out); err != nil {
			t.Fatal(err)
		}
		return out.Serial
	}
	resp, _, err := c.send(t.Context(), request{method: http.MethodGet, path: "/hold"})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	was := serial()
	chain, key := s.issue("w1", ca.RoleWorker, time.Now())
	if err := i.Update(chain, key, s.cert); err != nil {
		t.Fatal(err)
	}
	if serial() != was {
		t.Error("the connection was not used again, so this test shows nothing")
	}
	c.Refresh()
	if serial() == was {
		t.Error("a request went over a connection of the older identity")
	}
	close(hold)
	if rest, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(rest), was) {
		t.Errorf("the request that was under way: %v %s", err, rest)
	}
}

func TestToken(t *testing.T) {
	s := newSwarm(t)
	_, addr := s.manager(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"got":%q}`, r.Header.Get("Authorization"))
	})
	config, err := ca.UserTLS(nil, nil, s.cert)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]string{"": "", "SWMUSR-1-a-b": "Bearer SWMUSR-1-a-b"} {
		c, err := Dial(Options{Hosts: []string{addr}, TLS: config, Token: token})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var out struct{ Got string }
		if err := c.Do(t.Context(), http.MethodGet, "/", nil, &out); err != nil || out.Got != want {
			t.Errorf("%v: %q, want %q", err, out.Got, want)
		}
	}
}

// TestStreamsGoOnElsewhere: a watch whose manager is lost goes on at another.
func TestStreamsGoOnElsewhere(t *testing.T) {
	s := newSwarm(t)
	line := func(w io.Writer, revision int) {
		fmt.Fprintf(w, `{"type":"put","revision":%d,"object":{"metadata":{"name":"r%d"}}}`+"\n", revision, revision)
	}
	first, a := s.manager(func(w http.ResponseWriter, r *http.Request) {
		line(w, 5)
		fmt.Fprintln(w, `{"type":"bookmark","revision":5}`)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	_, b := s.manager(func(w http.ResponseWriter, r *http.Request) {
		if after := r.URL.Query().Get("after"); after != "5" {
			t.Errorf("after %q, want 5", after)
		}
		line(w, 6)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got []string
	for e, err := range Watch(ctx, s.client(a, b), v1.Services, nil, 4) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Object.Meta.Name)
		if len(got) == 1 {
			go first.CloseClientConnections()
			continue
		}
		break
	}
	if strings.Join(got, " ") != "r5 r6" {
		t.Errorf("%v", got)
	}
}

// TestRedirectsAreNotFollowed: no server of ours sends one, and a token must not go elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
	})
	if err := c.Do(t.Context(), http.MethodGet, "/", nil, nil); Status(err) != http.StatusTemporaryRedirect {
		t.Error(err)
	}
}
