package etcd_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// patience bounds what would otherwise wait for ever. No test passes by its running out.
const patience = 5 * time.Minute

// lab is some managers in this process, each behind a door of its own on loopback.
type lab struct {
	*testing.T
	ctx    context.Context
	root   []byte
	signer ca.Signer
	hosts  []*host

	mu  sync.Mutex
	cut map[[2]string]bool // which of two hosts do not reach each other
}

func newLab(t *testing.T) *lab {
	t.Parallel() // most of their time they wait for elections and disks
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	root, key, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ca.NewSigner(root, key, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &lab{T: t, ctx: ctx, root: root, signer: signer, cut: make(map[[2]string]bool)}
}

// identity makes a certificate of the lab's swarm.
func (l *lab) identity(name string, role ca.Role) *ca.Identity {
	l.Helper()
	key, err := ca.NewKey()
	if err != nil {
		l.Fatal(err)
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		l.Fatal(err)
	}
	chain, err := l.signer.Sign(l.ctx, csr, ca.Subject{ID: name, Role: role, Cluster: "lab"}, time.Hour)
	if err != nil {
		l.Fatal(err)
	}
	id, err := ca.NewIdentity(chain, key, l.root)
	if err != nil {
		l.Fatal(err)
	}
	return id
}

// host is a machine with a door, which is open as long as the test runs, and a store that comes and goes.
type host struct {
	*lab
	name, url, dir string
	identity       *ca.Identity
	handler        atomic.Pointer[http.Handler]
	server         *http.Server
	store          *etcd.Store

	conns  map[net.Conn]string // by peer, under lab.mu
	wires  []*wire             // all that were accepted, under lab.mu
	silent atomic.Bool         // answers nothing
}

func (l *lab) host(name string) *host {
	l.Helper()
	h := &host{lab: l, name: name, dir: l.TempDir(), identity: l.identity(name, ca.RoleManager), conns: make(map[net.Conn]string)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.Fatal(err)
	}
	h.url = "https://" + listener.Addr().String()
	h.listen(listener)
	l.hosts = append(l.hosts, h)
	l.Cleanup(func() {
		h.kill()
		h.server.Close()
	})
	return h
}

func (h *host) listen(listener net.Listener) {
	h.server = &http.Server{
		Handler: http.HandlerFunc(h.serve), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return etcd.PeerContext(context.WithValue(ctx, h, c), c)
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				h.mu.Lock()
				defer h.mu.Unlock()
				delete(h.conns, c)
			}
		},
	}
	go h.server.Serve(tls.NewListener(&wired{listener, h}, h.identity.ServerTLS()))
}

// wired is a listener whose connections can stand still.
type wired struct {
	net.Listener
	h *host
}

// Accept implements net.Listener.
func (l *wired) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: c}
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	l.h.wires = append(l.h.wires, w)
	return w, nil
}

// wire is a connection as it is while TCP waits to try once more: it is open at both ends, takes what is written, and brings nothing.
type wire struct {
	net.Conn
	still atomic.Bool
}

// Read implements net.Conn.
func (w *wire) Read(b []byte) (int, error) {
	for {
		n, err := w.Conn.Read(b)
		if err != nil || !w.still.Load() {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (w *wire) Write(b []byte) (int, error) {
	if w.still.Load() {
		return len(b), nil
	}
	return w.Conn.Write(b)
}

// cutOff has a host hear nobody that it has accepted, nor answer anybody, and those connections stand still from then on.
func (h *host) cutOff() {
	h.silent.Store(true)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.wires {
		w.still.Store(true)
	}
}

// serve is what a daemon's door does below etcd.PeerPaths.
func (h *host) serve(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 {
		http.Error(w, "who?", http.StatusUnauthorized)
		return
	}
	peer := r.TLS.PeerCertificates[0].Subject.CommonName
	h.mu.Lock()
	cut := h.cut[pair(h.name, peer)]
	if c, ok := r.Context().Value(h).(net.Conn); ok {
		h.conns[c] = peer
	}
	h.mu.Unlock()
	next := h.handler.Load()
	switch {
	case h.silent.Load():
		<-r.Context().Done()
	case cut:
		panic(http.ErrAbortHandler)
	case next == nil:
		http.Error(w, "not yet", http.StatusServiceUnavailable)
	default:
		(*next).ServeHTTP(w, r)
	}
}

func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// partition keeps a host from all others, or lets it back.
func (h *host) partition(cut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, other := range h.hosts {
		if other == h {
			continue
		}
		h.cut[pair(h.name, other.name)] = cut
		for c, peer := range other.conns {
			if cut && peer == h.name {
				c.Close()
			}
		}
	}
	for c := range h.conns {
		if cut {
			c.Close()
		}
	}
}

func (h *host) config() etcd.Config {
	return etcd.Config{Dir: h.dir, Name: h.name, Log: slog.New(slog.DiscardHandler), Peer: &etcd.Peer{
		URL: h.url, Certificate: h.identity.PEM, Serve: func(next http.Handler) { h.handler.Store(&next) },
	}}
}

// begin starts the store, and wants no error.
func (h *host) begin(change ...func(*etcd.Config)) *etcd.Store {
	h.Helper()
	if err := h.try(change...); err != nil {
		h.Fatalf("start of %s: %v", h.name, err)
	}
	return h.store
}

func (h *host) try(change ...func(*etcd.Config)) error {
	c := h.config()
	for _, f := range change {
		f(&c)
	}
	s, err := etcd.Start(h.ctx, c)
	if err == nil {
		h.store = s
	}
	return err
}

// kill closes the store without the goodbyes that a living process would say: nobody reaches it any more by then.
func (h *host) kill() {
	if h.store == nil {
		return
	}
	h.partition(true)
	h.handler.Store(nil)
	if err := h.store.Kill(); err != nil {
		h.Errorf("kill %s: %v", h.name, err)
	}
	h.store = nil
	h.partition(false)
}

// join makes the host a voter.
func (h *host) join(by *host) *etcd.Store {
	h.Helper()
	h.learn(by)
	h.promote(by)
	return h.store
}

func (h *host) learn(by *host) *etcd.Store {
	h.Helper()
	m, err := by.store.AddMember(h.ctx, h.name, h.url)
	if err != nil {
		h.Fatalf("add %s: %v", h.name, err)
	}
	return h.begin(func(c *etcd.Config) { c.Join = &m })
}

func (h *host) promote(by *host) {
	h.Helper()
	h.until("promoted", func() bool {
		err := by.store.PromoteMember(h.ctx, h.name)
		if err != nil && !errors.Is(err, etcd.ErrNotReady) {
			h.Fatalf("promote %s: %v", h.name, err)
		}
		return err == nil
	})
}

// until waits for something that will be.
func (l *lab) until(what string, is func() bool) {
	l.Helper()
	for !is() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-l.ctx.Done():
			l.Fatalf("waited too long until %s", what)
		}
	}
}

// three is a cluster of three voters; the first leads.
func three(t *testing.T) (l *lab, a, b, c *host) {
	t.Helper()
	l = newLab(t)
	a, b, c = l.host("a"), l.host("b"), l.host("c")
	a.begin()
	b.join(a)
	c.join(a)
	return l, a, b, c
}

// put commits a secret, and wants no error.
func (h *host) put(id, data string) int64 {
	h.Helper()
	revision, err := h.tryPut(id, data)
	if err != nil {
		h.Fatalf("%s commits %s: %v", h.name, id, err)
	}
	return revision
}

func (h *host) tryPut(id, data string) (int64, error) {
	return h.store.Commit(h.ctx, store.Commit{Ops: []store.Op{{Kind: v1.KindSecret, ID: id, Section: v1.SectionSpec, If: store.Always(),
		Value: &v1.SecretSpec{Data: []byte(data)}, Meta: &v1.Meta{Name: id}}}})
}

// has tells what a secret holds, as a snapshot shows that is not stale.
func (h *host) has(id string) string {
	h.Helper()
	revision, err := h.store.Sync(h.ctx)
	if err != nil {
		h.Fatalf("%s syncs: %v", h.name, err)
	}
	snapshot, err := h.store.Snapshot(h.ctx, revision)
	if err != nil {
		h.Fatalf("%s at %d: %v", h.name, revision, err)
	}
	if secret, ok := store.Get(snapshot, v1.Secrets, id); ok {
		return string(secret.Spec.Data)
	}
	return ""
}

// members is what a host knows of the members, in one line.
func (h *host) members() string {
	h.Helper()
	list, err := h.store.Members(h.ctx)
	if err != nil {
		h.Fatal(err)
	}
	text := ""
	for _, m := range list {
		text += m.Name
		for mark, is := range map[string]bool{"?": !m.Voter} {
			if is {
				text += mark
			}
		}
		if m.Leader {
			text += "*"
		}
		if !m.Reachable {
			text += "-"
		}
		text += " "
	}
	return text
}

func (h *host) sees(members string) {
	h.Helper()
	last := ""
	defer func() {
		if h.Failed() {
			h.Logf("%s saw %q last", h.name, last)
		}
	}()
	h.until(fmt.Sprintf("%s sees %q", h.name, members), func() bool {
		last = h.members()
		return last == members+" "
	})
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(to, "lock")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}
