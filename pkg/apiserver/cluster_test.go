package apiserver_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// clusterID is the swarm's in these tests.
const clusterID = "thisswarm0000000000000000"

// What must never be seen from outside, planted where it lies in a real swarm.
const (
	plantedSecret = "planted-secret-data"
	workerSecret  = "0plantedworkersecret00001"
	managerSecret = "0plantedmanagersecret0001"
)

// cluster is a manager's server with a door over TLS, the swarm's authority, nodes and users. The manager itself is m1.
type cluster struct {
	*fixture
	addr     string
	identity *ca.Identity
	members  *members
	cert     []byte // the root
	key      []byte
	unlock   string

	mu    sync.Mutex
	calls []*http.Transport
}

// members are a manager's etcd that does as it is told.
type members struct {
	mu     sync.Mutex
	voters []apiserver.Voter
	stuck  error // why nobody knows the voters
	added  map[string]string
	backup func(w io.Writer) error
}

func (m *members) AddMember(_ context.Context, name, url string) (v1.Membership, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if strings.Contains(url, "unready") {
		return v1.Membership{}, errors.New("another member is still learning")
	}
	m.added[name] = url
	return v1.Membership{MemberID: "1", Peers: map[string]string{name: url}, ActiveKey: "k"}, nil
}

func (m *members) Voters(context.Context) ([]apiserver.Voter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.voters, m.stuck
}

// vote makes m1 and m2 the voters, each of which can be reached or not.
func (m *members) vote(m1, m2 bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.voters = []apiserver.Voter{{Node: "m1", Reachable: m1}, {Node: "m2", Reachable: m2}}
}

func (m *members) Backup(_ context.Context, w io.Writer) error { return m.backup(w) }

func (m *members) stick(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stuck = err
}

// idleHost is a Host that refuses to do anything.
type idleHost struct{ info v1.SwarmInfo }

var errIdle = &v1.Problem{Title: "Not now", Status: http.StatusConflict, Detail: "this host does nothing"}

func (h *idleHost) Info(context.Context) (v1.Info, error) {
	return v1.Info{Name: "host1", Swarm: h.info}, nil
}
func (h *idleHost) Version(context.Context) (v1.VersionInfo, error) { return v1.VersionInfo{}, nil }
func (h *idleHost) Init(context.Context, v1.InitRequest) (string, error) {
	return "", errIdle
}
func (h *idleHost) Leave(context.Context, bool) error          { return errIdle }
func (h *idleHost) Images(context.Context) ([]v1.Image, error) { return nil, nil }
func (h *idleHost) LoadImages(context.Context, io.Reader) ([]v1.Image, error) {
	return nil, errIdle
}
func (h *idleHost) Join(context.Context, v1.JoinRequest) (v1.JoinResult, error) {
	return v1.JoinResult{}, errIdle
}
func (h *idleHost) Unlock(context.Context, string) error { return errIdle }
func (h *idleHost) Restore(context.Context, v1.InitRequest, io.Reader) (string, error) {
	return "", errIdle
}

// form makes a swarm and its first manager's server.
func form(t *testing.T, change ...func(*apiserver.Options)) *cluster {
	t.Helper()
	c := &cluster{members: &members{added: make(map[string]string)}, unlock: ca.NewUnlockKey()}
	host := &idleHost{v1.SwarmInfo{LocalNodeState: v1.LocalNodeActive, ControlAvailable: true, NodeID: "m1"}}
	c.fixture = serve(t, append([]func(*apiserver.Options){func(o *apiserver.Options) { o.Host, o.Store = host, nil }}, change...)...)
	var err error
	if c.cert, c.key, err = ca.NewRoot(time.Now().Add(-24 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	meta := &v1.Meta{Name: v1.ClusterName, Generation: 1}
	c.commit(
		store.Op{Kind: v1.KindCluster, ID: v1.ClusterName, Value: &v1.ClusterSpec{}, Meta: meta, If: store.Absent()},
		store.Op{Kind: v1.KindAuthority, ID: v1.AuthorityName, Meta: &v1.Meta{Generation: 1}, If: store.Absent(), Value: &v1.AuthoritySpec{
			ClusterID: clusterID, CA: v1.CertificateAuthority{Cert: c.cert, Key: c.key},
			JoinSecrets: v1.JoinSecrets{Worker: workerSecret, Manager: managerSecret}}},
		store.Op{Kind: v1.KindSecret, ID: "secret1", Value: &v1.SecretSpec{Data: []byte(plantedSecret)}, Meta: &v1.Meta{Name: "planted", Generation: 1}, If: store.Absent()},
		c.managerOp("m1", 1), c.managerOp("m2", 2), nodeOp("w1", 3), nodeOp("w2", 4), nodeOp("demoted", 5),
	)
	chain, key := c.certify("m1", ca.RoleManager)
	if c.identity, err = ca.NewIdentity(chain, key, c.cert); err != nil {
		t.Fatal(err)
	}
	c.server.Attach(c.store, apiserver.Backing{Node: "m1", Identity: c.identity, Members: c.members})
	c.listen()
	return c
}

func (c *cluster) managerOp(id string, index uint32) store.Op {
	return store.Op{Kind: v1.KindNode, ID: id, Value: &v1.NodeSpec{Role: v1.RoleManager, Availability: v1.AvailabilityActive, Index: index},
		Meta: &v1.Meta{Generation: 1}, If: store.Absent()}
}

// listen opens the door on a port of this machine's own.
func (c *cluster) listen() {
	c.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.Fatal(err)
	}
	c.addr = listener.Addr().String()
	server := apiserver.NewHTTPServer(c.server.Door(), slog.New(slog.DiscardHandler))
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(tls.NewListener(listener, c.identity.ServerTLS()))
	}()
	c.Cleanup(func() {
		c.mu.Lock()
		for _, t := range c.calls {
			t.CloseIdleConnections()
		}
		c.mu.Unlock()
		server.Close()
		<-served
	})
}

// certify signs a certificate. A user may be called by its name.
func (c *cluster) certify(id string, role ca.Role) (chain, key []byte) {
	c.Helper()
	if user, ok := c.snapshot().ByName(v1.KindUser, id); ok && role == ca.RoleUser {
		id = user
	}
	return c.certificate(c.cert, c.key, ca.Subject{ID: id, Role: role, Cluster: clusterID}, time.Now())
}

// certificate is any certificate, good for an hour from then.
func (c *cluster) certificate(root, rootKey []byte, s ca.Subject, from time.Time) (chain, key []byte) {
	c.Helper()
	key, request := c.request()
	signer, err := ca.NewSigner(root, rootKey, nil, func() time.Time { return from })
	if err != nil {
		c.Fatal(err)
	}
	if chain, err = signer.Sign(c.ctx, request, s, time.Hour); err != nil {
		c.Fatal(err)
	}
	return chain, key
}

// request is a new key and a certificate request for it.
func (c *cluster) request() (key, csr []byte) {
	c.Helper()
	key, err := ca.NewKey()
	if err != nil {
		c.Fatal(err)
	}
	if csr, err = ca.NewRequest(key); err != nil {
		c.Fatal(err)
	}
	return key, csr
}

// clock is a time that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

func (c *clock) option(o *apiserver.Options) { o.Clock = c.now }

// recorded is an answer without a connection.
type recorded struct {
	header http.Header
	code   int
	body   string
}

func newRecorded() *recorded { return &recorded{header: make(http.Header)} }

func (r *recorded) Header() http.Header { return r.header }

func (r *recorded) WriteHeader(code int) { r.code = code }

func (r *recorded) Write(b []byte) (int, error) { r.body += string(b); return len(b), nil }

// someone is who asks: with a certificate, a token, or nothing.
type someone struct {
	*cluster
	http  *http.Client
	token string
	base  string
}

// as is somebody with a certificate, where there is one, or a token, where there is one.
func (c *cluster) as(chain, key []byte, token string) *someone {
	c.Helper()
	config, err := ca.UserTLS(chain, key, c.cert)
	if err != nil {
		c.Fatal(err)
	}
	return c.with(config, token)
}

func (c *cluster) with(config *tls.Config, token string) *someone {
	t := &http.Transport{TLSClientConfig: config}
	c.mu.Lock()
	c.calls = append(c.calls, t)
	c.mu.Unlock()
	return &someone{c, &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		token, "https://" + c.addr}
}

// node is somebody with a certificate of a node that it makes.
func (c *cluster) node(id string, role ca.Role) *someone {
	chain, key := c.certify(id, role)
	return c.as(chain, key, "")
}

// local is root of the machine.
func (c *cluster) local() *someone { return &someone{c, c.fixture.http, "", "http://swarmd"} }

// ask makes a request. Of an answer that goes on, only the beginning is read.
func (s *someone) ask(method, path, body string) (answer, error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	if strings.Contains(resp.Header.Get("Content-Type"), "ndjson") {
		return answer{resp.StatusCode, resp.Header, ""}, nil
	}
	data, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(data)}, err
}

// must is ask for what is answered.
func (s *someone) must(method, path, body string) answer {
	s.Helper()
	got, err := s.ask(method, path, body)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	return got
}

// expect asks for what is answered like this.
func (s *someone) expect(code int, method, path, body string, words ...string) answer {
	s.Helper()
	got := s.must(method, path, body)
	if got.code != code {
		s.Errorf("%s %s: %d %s, want %d", method, path, got.code, got.body, code)
	}
	for _, w := range words {
		if !strings.Contains(got.body, w) {
			s.Errorf("%s %s: %s, want %q in it", method, path, got.body, w)
		}
	}
	return got
}
