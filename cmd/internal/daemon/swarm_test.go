package daemon

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func TestInitAndLeave(t *testing.T) {
	h := newHost(t, "a")
	h.is(v1.LocalNodeInactive, false)
	id := h.init()
	h.is(v1.LocalNodeActive, true)
	h.ready(id)
	h.writes()
	if got := h.info(); got.Swarm.NodeID != id || got.ID != id || got.Swarm.NodeAddr != "127.0.0.1" {
		t.Errorf("info: %+v", got.Swarm)
	}
	_, err := h.client.Init(t.Context(), h.initRequest())
	refused(t, err, http.StatusServiceUnavailable, "This node is already part of a swarm", "swarmctl swarm leave")
	h.restart()
	h.is(v1.LocalNodeActive, true)
	h.ready(id)
	h.writes()
	refused(t, h.client.Leave(t.Context(), false), http.StatusServiceUnavailable, "participating as a manager", "Removing the last manager erases")
	if err := h.client.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	h.is(v1.LocalNodeInactive, false)
	if left := h.files(); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	refused(t, h.client.Leave(t.Context(), true), http.StatusServiceUnavailable, "This node is not part of a swarm")
	h.init()
	h.is(v1.LocalNodeActive, true)
}

func TestInitRefused(t *testing.T) {
	h := newHost(t, "a")
	l, err := net.Listen("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = h.client.Init(t.Context(), h.initRequest())
	refused(t, err, http.StatusBadRequest, "in use already", "--listen-addr")
	_, err = h.client.Init(t.Context(), v1.InitRequest{ListenAddr: "192.0.2.1:2377", AdvertiseAddr: h.addr})
	refused(t, err, http.StatusBadRequest, "not one of this machine")
	if left := h.files(); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	h.is(v1.LocalNodeInactive, false)
}

func TestJoinAsWorker(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	first := a.init()
	token := a.tokens()
	if !strings.HasPrefix(token.Worker, "SWMTKN-1-") || token.Worker == token.Manager {
		t.Fatalf("tokens %+v", token)
	}
	id := b.join(token.Worker, a)
	b.is(v1.LocalNodeActive, false)
	a.ready(first, id)
	if n := a.node(id); n.Spec.Role != v1.RoleWorker || n.Spec.Index != 2 || n.Status.Description.TLS == nil {
		t.Errorf("the node is %+v, %+v", n.Spec, n.Status)
	}
	_, err := b.tryJoin(token.Worker, a)
	refused(t, err, http.StatusServiceUnavailable, "already part of a swarm")
	b.restart()
	b.is(v1.LocalNodeActive, false)
	a.ready(id)
	a.restart()
	a.ready(id)
	if err := b.client.Leave(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	b.is(v1.LocalNodeInactive, false)
	if left := b.files(); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// TestPortInUse: a worker listens on nothing, so that whoever has its port is in nobody's way; a manager's join is refused, and leaves nothing there.
func TestPortInUse(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	first := a.init()
	token := a.tokens()
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = b.tryJoin(token.Manager, a)
	refused(t, err, http.StatusBadRequest, "in use already", "--listen-addr")
	b.is(v1.LocalNodeInactive, false)
	if left := b.files(); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	id := b.join(token.Worker, a)
	b.is(v1.LocalNodeActive, false)
	a.ready(first, id)
}

func TestJoinRefused(t *testing.T) {
	a, b, other := newHost(t, "a"), newHost(t, "b"), newHost(t, "other")
	a.init()
	other.init()
	token := a.tokens().Worker
	parts := strings.Split(token, "-")
	wrong := strings.Join(append(parts[:3:3], strings.Repeat("0", len(parts[3]))), "-")
	for name, c := range map[string]struct {
		token  string
		at     *host
		status int
		words  string
	}{
		"no token":         {"", a, http.StatusBadRequest, "token"},
		"a torn token":     {token[:len(token)-3], a, http.StatusBadRequest, "token"},
		"a wrong secret":   {wrong, a, http.StatusForbidden, "token"},
		"another swarm":    {token, other, http.StatusServiceUnavailable, "fingerprint"},
		"nobody there":     {token, &host{addr: freeAddr(t)}, http.StatusServiceUnavailable, ""},
		"other's own one":  {other.tokens().Worker, a, http.StatusServiceUnavailable, "fingerprint"},
		"a nonsense token": {"SWMTKN-1-x-y", a, http.StatusBadRequest, "token"},
	} {
		_, err := b.tryJoin(c.token, c.at)
		t.Logf("%s: %v", name, err)
		refused(t, err, c.status, c.words)
		if left := b.files(); len(left) > 0 {
			t.Errorf("%s: it left %v", name, left)
		}
	}
	b.is(v1.LocalNodeInactive, false)
	b.join(token, &host{addr: freeAddr(t)}, a) // the second address is good
	b.is(v1.LocalNodeActive, false)
}

// TestJoinFromThePool: a machine whose address the swarm would take for a task's is not let in, whatever it is to be, and nothing is left there.
func TestJoinFromThePool(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	r := a.initRequest()
	r.Spec = &v1.ClusterSpec{GatewayPool: "198.18.0.0/15"}
	if _, err := a.client.Init(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]v1.JoinRequest{
		"advertised":           {Token: a.tokens().Worker, AdvertiseAddr: "198.18.0.9"},
		"of data":              {Token: a.tokens().Worker, AdvertiseAddr: b.addr, DataPathAddr: "198.19.255.9"},
		"of data of a manager": {Token: a.tokens().Manager, AdvertiseAddr: b.addr, DataPathAddr: "198.19.255.9"},
	} {
		r.RemoteAddrs, r.ListenAddr = []string{a.addr}, b.addr
		_, err := b.client.Join(t.Context(), r)
		t.Logf("%s: %v", name, err)
		refused(t, err, http.StatusBadRequest, "is in the gateway pool 198.18.0.0/15", "--data-path-addr")
		if left := b.files(); len(left) > 0 {
			t.Errorf("%s: it left %v", name, left)
		}
	}
	b.is(v1.LocalNodeInactive, false)
	b.join(a.tokens().Worker, a)
	b.is(v1.LocalNodeActive, false)
}

func TestThreeManagers(t *testing.T) {
	a, b, c := newHost(t, "a"), newHost(t, "b"), newHost(t, "c")
	ia := a.init()
	token := a.tokens().Manager
	ib := b.join(token, a)
	b.is(v1.LocalNodeActive, true)
	a.voters(ia, ib)
	if w := b.info().Swarm.Warnings; len(w) != 1 || !strings.Contains(w[0], "two-manager") {
		t.Errorf("the warnings of two managers: %q", w)
	}
	ic := c.join(token, b)
	c.voters(ia, ib, ic)
	c.writes()
	a.stop() // whoever leads
	b.writes()
	c.writes()
	a.start()
	a.is(v1.LocalNodeActive, true)
	a.ready(ia, ib, ic)
	a.voters(ia, ib, ic)
}

func TestPromoteAndDemote(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	ia := a.init()
	ib := b.join(a.tokens().Worker, a)
	if err := a.setRole(ib, v1.RoleManager); err != nil {
		t.Fatal(err)
	}
	b.is(v1.LocalNodeActive, true)
	a.voters(ia, ib)
	b.writes()
	copied := a.copyState()
	left, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.setRole(ia, v1.RoleWorker); err != nil {
		t.Fatal(err)
	}
	a.is(v1.LocalNodeActive, false)
	b.voters(ib)
	b.writes()
	b.ready(ia, ib)
	eventually(t, "the demoted manager to forget the state", func() error {
		return errors.Join(gone(a.daemon.path(storeName)), gone(copied))
	})
	refused(t, b.setRole(ib, v1.RoleWorker), http.StatusBadRequest, "last manager")
	a.stop()
	if err := errors.Join(os.MkdirAll(filepath.Dir(copied), 0o700), os.WriteFile(copied, left, 0o600)); err != nil { // as after a crash
		t.Fatal(err)
	}
	a.start()
	eventually(t, "the worker to forget the copies", func() error { return gone(copied) })
	a.is(v1.LocalNodeActive, false)
	if err := b.setRole(ia, v1.RoleManager); err != nil {
		t.Fatal(err)
	}
	a.is(v1.LocalNodeActive, true)
	b.voters(ia, ib)
}

// TestStopAtAnyTime: a daemon ends when it is told to, whatever it is at: making a swarm, opening its state, leading, writing.
func TestStopAtAnyTime(t *testing.T) {
	for round := range 6 {
		h := newHost(t, "a")
		entered := make(chan struct{})
		go func() {
			defer close(entered)
			_, _ = h.client.Init(t.Context(), h.initRequest()) // it may be cut off
			for i := range 20 {
				c := &v1.Config{Meta: v1.Meta{Name: fmt.Sprint("c", i)}, Spec: &v1.ConfigSpec{Data: []byte("x")}}
				if _, _, err := client.Create(t.Context(), h.client, v1.Configs, c); err != nil {
					return
				}
			}
		}()
		select {
		case <-entered:
		case <-time.After(rand.N(time.Duration(round+1) * 200 * time.Millisecond)): // any moment will do
		}
		h.stop()
		<-entered
		if left := h.daemon.parts.names(); len(left) > 0 {
			t.Errorf("after its end, under way: %q", left)
		}
	}
}
