package etcd

import (
	"crypto/tls"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// pems makes a certificate of a manager.
func pems(t *testing.T, signer ca.Signer, name string) (chain, key []byte) {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err = signer.Sign(t.Context(), csr, ca.Subject{ID: name, Role: ca.RoleManager, Cluster: "c"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return chain, key
}

func testPeer(t *testing.T) (*Peer, func(chain, key []byte), ca.Signer) {
	t.Helper()
	root, rootKey, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ca.NewSigner(root, rootKey, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var now atomic.Pointer[[2][]byte]
	set := func(chain, key []byte) { now.Store(&[2][]byte{chain, key}) }
	set(pems(t, signer, "first"))
	return &Peer{URL: "https://127.0.0.1:1", Certificate: func() (chain, key, roots []byte) {
		pair := now.Load()
		return pair[0], pair[1], root
	}}, set, signer
}

// TestPeerFiles: what etcd reads is the newest certificate and its own key, whenever it reads, and it is on no disk.
func TestPeerFiles(t *testing.T) {
	peer, set, signer := testPeer(t)
	f, err := newPeerFiles(peer)
	if err != nil {
		t.Fatal(err)
	}
	info := f.tlsInfo()
	name := func() string {
		pair, err := tls.LoadX509KeyPair(info.CertFile, info.KeyFile)
		if err != nil { // it reads twice, and another may have come in between, but not again for as long as refreshEvery
			pair, err = tls.LoadX509KeyPair(info.CertFile, info.KeyFile)
		}
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.Subject.CommonName
	}
	if name() != "first" {
		t.Errorf("%s", name())
	}
	if target, err := os.Readlink(info.KeyFile); err != nil || !strings.HasPrefix(target, "/memfd:") {
		t.Errorf("the key is in %s: %v", target, err)
	}
	set(pems(t, signer, "second"))
	for name() != "second" {
		time.Sleep(10 * time.Millisecond)
	}
	chain, _, _ := peer.Certificate()
	third, thirdKey := pems(t, signer, "third")
	set(chain, thirdKey) // no pair: as if it were being written
	time.Sleep(2 * refreshEvery)
	if name() != "second" {
		t.Errorf("%s", name())
	}
	set(third, thirdKey)
	for name() != "third" {
		time.Sleep(10 * time.Millisecond)
	}
	set(chain, thirdKey)
	if _, err := newPeerFiles(peer); err == nil {
		t.Error("starts with a key of another certificate")
	}
	if err := f.close(); err != nil {
		t.Error(err)
	}
}

// TestNothingStaysOfPeers: Close leaves no goroutine behind of a member that others can reach.
func TestNothingStaysOfPeers(t *testing.T) {
	before := goleak.IgnoreCurrent()
	peer, _, _ := testPeer(t)
	s := open(t, Config{Dir: t.TempDir(), Name: "first", Peer: peer})
	if _, err := s.Campaign(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	commit(t, s, secret("a", "", store.Always()))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
	if s.PeerHandler() == nil {
		t.Error("no handler")
	}
}

// TestBadPeer: an address or a certificate that cannot work is refused at the start.
func TestBadPeer(t *testing.T) {
	peer, _, _ := testPeer(t)
	for name, bad := range map[string]Peer{
		"no TLS":         {URL: "http://127.0.0.1:1", Certificate: peer.Certificate},
		"no port":        {URL: "https://127.0.0.1", Certificate: peer.Certificate},
		"no address":     {URL: ":", Certificate: peer.Certificate},
		"no certificate": {URL: peer.URL, Certificate: func() (a, b, c []byte) { return }},
	} {
		dir := t.TempDir()
		if s, err := Start(t.Context(), Config{Dir: dir, Peer: &bad, Log: slog.New(slog.DiscardHandler)}); err == nil {
			s.Close()
			t.Errorf("%s: starts", name)
		}
		open(t, Config{Dir: dir}).Close() // nothing holds the directory
	}
}

// TestFatal: what etcd ends the process for is an error while it starts, and says why.
func TestFatal(t *testing.T) {
	state := new(logging)
	state.starting.Store(true)
	log := newLogger(slog.New(slog.DiscardHandler), state)
	for _, call := range []func(){
		func() { log.Fatal("cannot go on", zap.Error(os.ErrInvalid)) }, func() { log.Panic("cannot go on", zap.Error(os.ErrInvalid)) },
	} {
		func() {
			defer func() {
				if r, ok := recover().(string); !ok || r != "cannot go on: invalid argument" {
					t.Errorf("panics with %v", r)
				}
			}()
			call()
		}()
	}
}
