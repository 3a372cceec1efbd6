package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/store"
)

// authority is the swarm's, as a manager has it.
func (h *host) authority() *v1.Authority {
	h.t.Helper()
	s, err := h.daemon.inside.Load().manager.opened().Snapshot(h.t.Context(), 0)
	if err != nil {
		h.t.Fatal(err)
	}
	a, ok := store.Get(s, v1.Authorities, v1.AuthorityName)
	if !ok {
		h.t.Fatal("there is no authority")
	}
	return a
}

// age gives a stopped host a certificate that was made so long ago, for so long.
func (h *host) age(a *v1.Authority, id string, role ca.Role, ago, life time.Duration) {
	h.t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		h.t.Fatal(err)
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		h.t.Fatal(err)
	}
	signer, err := ca.NewSigner(a.Spec.CA.Cert, a.Spec.CA.Key, nil, func() time.Time { return time.Now().Add(-ago) })
	if err != nil {
		h.t.Fatal(err)
	}
	chain, err := signer.Sign(h.t.Context(), csr, ca.Subject{ID: id, Role: role, Cluster: a.Spec.ClusterID}, life)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := (certificates{h.daemon.disk()}).save(chain, key, a.Spec.CA.Cert, nil); err != nil {
		h.t.Fatal(err)
	}
}

func TestExpiredCertificateOfAWorker(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	a.init()
	ib := b.join(a.tokens().Worker, a)
	b.stop()
	b.age(a.authority(), ib, ca.RoleWorker, 30*time.Minute, 20*time.Minute)
	b.start()
	b.is(v1.LocalNodeError, false)
	if text := b.info().Swarm.Error; !strings.Contains(text, "was valid until") || !strings.Contains(text, "join again") {
		t.Errorf("it says %q", text)
	}
	if err := b.client.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	b.join(a.tokens().Worker, a)
}

// TestExpiredCertificateOfAManager: a manager that was off for long makes itself a new one, where it is the only one.
func TestExpiredCertificateOfAManager(t *testing.T) {
	a := newHost(t, "a")
	id := a.init()
	authority := a.authority()
	a.stop()
	a.age(authority, id, ca.RoleManager, 30*time.Minute, 20*time.Minute)
	a.start()
	a.is(v1.LocalNodeActive, true)
	eventually(t, "a new certificate", func() error { return a.daemon.inside.Load().certificate().CheckTime(time.Now()) })
	newHost(t, "b").join(a.tokens().Worker, a)
}

// TestRenewal: a certificate that has served most of its time is replaced while the node works.
func TestRenewal(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	a.init()
	ib := b.join(a.tokens().Worker, a)
	b.stop()
	b.age(a.authority(), ib, ca.RoleWorker, 55*time.Minute, time.Hour)
	b.start()
	b.is(v1.LocalNodeActive, false)
	eventually(t, "a new certificate", func() error {
		if left := time.Until(b.daemon.inside.Load().certificate().Expires()); left < time.Hour {
			return context.DeadlineExceeded
		}
		return nil
	})
	if _, err := (certificates{b.daemon.disk()}).load(nil); err != nil {
		t.Errorf("what is on disk: %v", err)
	}
	a.ready(ib)
}

// TestClockFarOff has a manager whose clock is a year ahead of the machine that joins, by the certificate that it shows.
func TestClockFarOff(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	ia := a.init()
	token, authority := a.tokens().Worker, a.authority()
	a.stop()
	a.age(authority, ia, ca.RoleManager, -365*24*time.Hour, time.Hour)
	a.start()
	_, err := b.tryJoin(token, a)
	refused(t, err, http.StatusBadRequest, "clock")
	if left := b.files(); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// TestLoneAgent joins over TLS, and works on after a restart without the token.
func TestLoneAgent(t *testing.T) {
	a := newHost(t, "a")
	a.init()
	root := t.TempDir()
	file := filepath.Join(root, "token")
	run := func(token string) (d *Daemon, stop func(), ended chan error) {
		if token != "" {
			if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d = newDaemon(Options{Root: root, Log: slog.New(slog.DiscardHandler)})
		d.runtime = runtime.NewFake(runtime.FakeOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		ended = make(chan error, 1)
		go func() { ended <- d.runLone(ctx, AgentOptions{Join: a.addr, TokenFile: file}) }()
		return d, cancel, ended
	}
	for token, want := range map[string]string{"SWMTKN-1-no": "invalid join token", a.tokens().Manager: "cannot be a manager"} {
		_, stop, ended := run(token)
		if err := <-ended; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it ended with %v, want an error with %q", err, want)
		}
		stop()
	}
	d, stop, ended := run(a.tokens().Worker)
	var id *identity
	eventually(t, "the agent to join", func() (err error) {
		if id, err = loadIdentity(d.disk()); err == nil && id == nil {
			err = os.ErrNotExist
		}
		return err
	})
	a.ready(id.NodeID)
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	_, stop, ended = run("")
	defer func() { stop(); <-ended }()
	a.ready(id.NodeID)
	if err := a.setRole(id.NodeID, v1.RoleManager); err != nil {
		t.Fatal(err)
	}
	a.ready(id.NodeID) // it stays what it is
}
