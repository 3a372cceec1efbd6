package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
)

func TestAutolock(t *testing.T) {
	a := newHost(t, "a")
	r := a.initRequest()
	r.AutoLock = true
	id, err := a.client.Init(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	key, err := a.client.UnlockKey(t.Context())
	if err != nil || !strings.HasPrefix(key, "SWMKEY-1-") {
		t.Fatalf("the unlock key is %q, %v", key, err)
	}
	refused(t, a.client.Unlock(t.Context(), key), http.StatusConflict, "swarm is not locked")
	sealed(t, a, true)
	a.restart()
	a.is(v1.LocalNodeLocked, false)
	_, err = client.List(t.Context(), a.client, v1.Nodes, v1.Filter{})
	refused(t, err, http.StatusServiceUnavailable, "Swarm is encrypted and needs to be unlocked")
	refused(t, a.client.Leave(t.Context(), false), http.StatusServiceUnavailable, "needs to be unlocked")
	for _, wrong := range []string{"", "SWMKEY-1-x", ca.NewUnlockKey()} {
		refused(t, a.client.Unlock(t.Context(), wrong), http.StatusUnauthorized, "invalid key")
	}
	if err := a.client.Unlock(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	a.is(v1.LocalNodeActive, true)
	a.ready(id)
	next, err := a.client.RotateUnlockKey(t.Context())
	if err != nil || next == key {
		t.Fatalf("the next unlock key is %q, %v", next, err)
	}
	eventually(t, "the disk to follow", func() error {
		return opens(a.daemon.disk(), next)
	})
	a.restart()
	a.is(v1.LocalNodeLocked, false)
	refused(t, a.client.Unlock(t.Context(), key), http.StatusUnauthorized, "invalid key")
	if err := a.client.Unlock(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	a.is(v1.LocalNodeActive, true)
	c, err := client.Get(t.Context(), a.client, v1.Clusters, v1.ClusterName)
	if err != nil {
		t.Fatal(err)
	}
	c.Spec.AutoLock = false
	if _, _, err := client.Update(t.Context(), a.client, v1.Clusters, c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the disk to be open", func() error {
		return opens(a.daemon.disk(), "")
	})
	a.restart()
	a.is(v1.LocalNodeActive, true)
	sealed(t, a, false)
}

// TestAutolockDropsCopies: copies from before the lock, which hold what opens the data keys, do not stay; nor do they where a crash
// came before they were removed, though the manager is locked then.
func TestAutolockDropsCopies(t *testing.T) {
	a := newHost(t, "a")
	a.init()
	before := a.copyState()
	copied, err := os.ReadFile(before)
	if err != nil {
		t.Fatal(err)
	}
	a.restart()
	if gone(before) == nil {
		t.Error("a copy is gone after a restart")
	}
	key, err := a.setAutolock(true)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the disk to follow", func() error { return opens(a.daemon.disk(), key) })
	if err := gone(before); err != nil {
		t.Error(err)
	}
	a.stop()
	for _, path := range []string{before, a.daemon.path(archiveName)} { // what crashes left
		if err := os.WriteFile(path, copied, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.start()
	a.is(v1.LocalNodeLocked, false)
	if err := errors.Join(gone(before), gone(a.daemon.path(archiveName))); err != nil {
		t.Errorf("locked: %v", err)
	}
	if err := a.client.Unlock(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	a.is(v1.LocalNodeActive, true)
	after := a.copyState()
	a.restart()
	if gone(after) == nil {
		t.Error("a copy of now is gone after a restart")
	}
}

func sealed(t *testing.T, h *host, want bool) {
	t.Helper()
	key, err := os.ReadFile(h.daemon.path(keyName))
	if err != nil || ca.Sealed(key) != want {
		t.Errorf("the node's key is sealed: %t (%v), want %t", ca.Sealed(key), err, want)
	}
}

// TestAutolockOfManagers: who comes as a manager locks itself too, and who is one no more does not.
func TestAutolockOfManagers(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	r := a.initRequest()
	r.AutoLock = true
	ia, err := a.client.Init(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	key, err := a.client.UnlockKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ib := b.join(a.tokens().Manager, a)
	sealed(t, b, true)
	a.voters(ia, ib)
	b.restart()
	b.is(v1.LocalNodeLocked, false)
	if err := b.client.Unlock(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	b.is(v1.LocalNodeActive, true)
	a.ready(ib)
	eventually(t, "the demotion", func() error { return a.trySetRole(ib, v1.RoleWorker) })
	b.is(v1.LocalNodeActive, false)
	a.voters(ia)
	eventually(t, "the worker's key to be open", func() error { return opens(b.daemon.disk(), "") })
	b.restart()
	b.is(v1.LocalNodeActive, false)
	if err := a.setRole(ib, v1.RoleManager); err != nil {
		t.Fatal(err)
	}
	b.is(v1.LocalNodeActive, true)
	eventually(t, "the manager's key to be locked", func() error { return opens(b.daemon.disk(), key) })
}

// TestLockedManagerLeaves: who lost the key can still leave.
func TestLockedManagerLeaves(t *testing.T) {
	a := newHost(t, "a")
	r := a.initRequest()
	r.AutoLock = true
	if _, err := a.client.Init(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	a.restart()
	a.is(v1.LocalNodeLocked, false)
	if err := a.client.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	a.is(v1.LocalNodeInactive, false)
}

func TestForceNewCluster(t *testing.T) {
	a, b, c := newHost(t, "a"), newHost(t, "b"), newHost(t, "c")
	ia := a.init()
	tokens := a.tokens()
	ib := b.join(tokens.Manager, a)
	ic := c.join(tokens.Worker, a)
	a.voters(ia, ib)
	a.ready(ia, ib, ic)
	a.writes()
	b.stop() // for good
	a.restart()
	a.is(v1.LocalNodePending, false)
	_, err := client.List(t.Context(), a.client, v1.Nodes, v1.Filter{})
	refused(t, err, http.StatusServiceUnavailable, "has trouble connecting to the cluster")
	refused(t, a.client.Leave(t.Context(), false), http.StatusServiceUnavailable, "may lose the consensus")
	_, err = c.client.Init(t.Context(), v1.InitRequest{ForceNewCluster: true})
	refused(t, err, http.StatusServiceUnavailable, "not a swarm manager")
	if id, err := a.client.Init(t.Context(), v1.InitRequest{ForceNewCluster: true}); err != nil || id != ia {
		t.Fatalf("force a new cluster: %s, %v", id, err)
	}
	a.is(v1.LocalNodeActive, true)
	a.voters(ia)
	a.writes()
	if n := a.node(ib); n.Spec.Role != v1.RoleWorker {
		t.Errorf("the lost manager is a %s", n.Spec.Role)
	}
	a.ready(ia, ic) // the worker found it
	a.restart()
	a.is(v1.LocalNodeActive, true)
	if len(client1(t, a)) != 1 {
		t.Errorf("the configs are %v", client1(t, a))
	}
	b.start() // after all: it has another swarm's state, in which it does not count
	b.is(v1.LocalNodeActive, false)
	a.ready(ib)
}

// client1 are the names of the configs that writes made before the last.
func client1(t *testing.T, h *host) []string {
	t.Helper()
	list, err := client.List(t.Context(), h.client, v1.Configs, v1.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range list[1:] {
		names = append(names, c.Meta.Name)
	}
	return names
}

func TestBackupAndRestore(t *testing.T) {
	a, b, c := newHost(t, "a"), newHost(t, "b"), newHost(t, "c")
	ia := a.init()
	tokens := a.tokens()
	ib := b.join(tokens.Manager, a)
	ic := c.join(tokens.Worker, a)
	a.voters(ia, ib)
	a.writes()
	var archive bytes.Buffer
	if err := a.client.Backup(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	_, err := a.client.Restore(t.Context(), a.initRequest(), bytes.NewReader(archive.Bytes()))
	refused(t, err, http.StatusServiceUnavailable, "already part of a swarm")
	a.stop()
	b.stop()
	d := newHost(t, "d")
	d.addr = a.addr // in its place
	_, err = d.client.Restore(t.Context(), d.initRequest(), strings.NewReader("nonsense"))
	if err == nil {
		t.Error("nonsense was restored")
	}
	if left := d.files(); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	id, err := d.client.Restore(t.Context(), d.initRequest(), &archive)
	if err != nil {
		t.Fatal(err)
	}
	d.is(v1.LocalNodeActive, true)
	d.voters(id)
	d.ready(id, ic) // the worker found it where the first one was
	for _, lost := range []string{ia, ib} {
		if n := d.node(lost); n.Spec.Role != v1.RoleWorker {
			t.Errorf("the manager %s from before is a %s", lost, n.Spec.Role)
		}
	}
	if d.tokens() != tokens {
		t.Error("the join tokens are others")
	}
	d.writes()
	d.restart()
	d.is(v1.LocalNodeActive, true)
}

func TestRestoreOfALockedSwarm(t *testing.T) {
	a := newHost(t, "a")
	r := a.initRequest()
	r.AutoLock = true
	if _, err := a.client.Init(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	key, err := a.client.UnlockKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := a.client.Backup(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	b := newHost(t, "b")
	id, err := b.client.Restore(t.Context(), b.initRequest(), &archive)
	if err != nil {
		t.Fatal(err)
	}
	b.is(v1.LocalNodeLocked, false)
	b.restart()
	b.is(v1.LocalNodeLocked, false)
	refused(t, b.client.Unlock(t.Context(), ca.NewUnlockKey()), http.StatusUnauthorized, "invalid key")
	if err := b.client.Unlock(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	b.is(v1.LocalNodeActive, true)
	b.ready(id)
	sealed(t, b, true)
}

func TestRotateRoot(t *testing.T) {
	a, b, c, w := newHost(t, "a"), newHost(t, "b"), newHost(t, "c"), newHost(t, "w")
	ia := a.init()
	tokens := a.tokens()
	ib, ic := b.join(tokens.Manager, a), c.join(tokens.Manager, a)
	iw := w.join(tokens.Worker, b)
	a.voters(ia, ib, ic)
	a.ready(ia, ib, ic, iw)
	all := []*host{a, b, c, w}
	for range 2 {
		before := a.tokens()
		if _, err := a.client.RotateCA(t.Context(), v1.RotateCARequest{}); err != nil {
			t.Fatal(err)
		}
		settled := ""
		eventually(t, "the rotation to be done", func() error {
			info, err := a.client.CA(t.Context())
			if err != nil {
				return err
			}
			if len(info.NextRoot) > 0 {
				return fmt.Errorf("%d of %d nodes have moved", info.Moved, info.Nodes)
			}
			settled = ca.Digest(info.TrustRoot)
			return nil
		})
		for _, h := range all {
			eventually(t, h.name+" to trust the new root alone, its member too", func() error {
				n := h.daemon.inside.Load()
				if tls := n.describe().TLS; tls == nil || tls.Issuer != settled || !slices.Equal(tls.Roots, []string{settled}) {
					return fmt.Errorf("it has %+v, want %s", tls, settled)
				}
				return nil
			})
		}
		if a.tokens() == before {
			t.Error("the join tokens name the old root")
		}
		a.voters(ia, ib, ic)
		a.ready(ia, ib, ic, iw)
		b.writes()
	}
	b.restart()
	b.is(v1.LocalNodeActive, true)
	b.writes()
	d := newHost(t, "d")
	_, err := d.tryJoin(tokens.Worker, a)
	refused(t, err, http.StatusServiceUnavailable, "fingerprint")
	d.join(a.tokens().Worker, a)
}

func TestLeaveByForce(t *testing.T) {
	a, b, c := newHost(t, "a"), newHost(t, "b"), newHost(t, "c")
	ia := a.init()
	token := a.tokens().Manager
	ib, ic := b.join(token, a), c.join(token, a)
	a.voters(ia, ib, ic)
	err := a.client.Leave(t.Context(), false)
	refused(t, err, http.StatusServiceUnavailable, "participating as a manager", "--force-new-cluster")
	if strings.Contains(err.Error(), "Without a Raft quorum") {
		t.Errorf("two of three are a quorum: %v", err)
	}
	if err := a.client.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	a.is(v1.LocalNodeInactive, false)
	b.voters(ib, ic)
	refused(t, b.client.Leave(t.Context(), false), http.StatusServiceUnavailable, "leaves 1 managers out of 2")
	b.writes()
	if err := b.client.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	c.voters(ic)
	c.writes()
}

// TestRemovedWhileDown: a manager that was demoted while it was down comes back as a worker, and a node that was removed says so.
func TestRemovedWhileDown(t *testing.T) {
	a, b, c := newHost(t, "a"), newHost(t, "b"), newHost(t, "c")
	ia := a.init()
	tokens := a.tokens()
	ib, ic := b.join(tokens.Manager, a), c.join(tokens.Manager, a)
	a.voters(ia, ib, ic)
	b.stop()
	if err := a.setRole(ib, v1.RoleWorker); err != nil {
		t.Fatal(err)
	}
	a.voters(ia, ic)
	b.start()
	b.is(v1.LocalNodeActive, false)
	a.ready(ib)
	if b.daemon.disk().exists(storeName) {
		t.Error("the demoted manager kept the state")
	}
	b.stop()
	eventually(t, "the node to be removed", func() error {
		return a.client.Do(t.Context(), http.MethodDelete, "/v1/nodes/"+ib+"?force=true", nil, nil)
	})
	b.start()
	b.is(v1.LocalNodeError, false)
	if text := b.info().Swarm.Error; !strings.Contains(text, "swarmctl swarm leave --force") {
		t.Errorf("it says %q", text)
	}
	if err := b.client.Leave(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	b.join(a.tokens().Worker, a)
}

// TestManagerThatLostItsState gets it from the others.
func TestManagerThatLostItsState(t *testing.T) {
	a, b, c := newHost(t, "a"), newHost(t, "b"), newHost(t, "c")
	ia := a.init()
	token := a.tokens().Manager
	ib, ic := b.join(token, a), c.join(token, a)
	a.voters(ia, ib, ic)
	b.stop()
	if err := os.RemoveAll(b.daemon.path(storeName)); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.is(v1.LocalNodeActive, true)
	a.voters(ia, ib, ic)
	b.writes()
}

// TestLoneManagerThatLostItsState ends, rather than to begin with an empty swarm.
func TestLoneManagerThatLostItsState(t *testing.T) {
	a := newHost(t, "a")
	a.init()
	a.stop()
	if err := os.RemoveAll(a.daemon.path(storeName)); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(a.daemon.o)
	d.runtime = a.fake
	if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), "state is gone") {
		t.Errorf("the daemon ended with: %v", err)
	}
}

// TestUpgrade has a data directory of the time before there were certificates.
func TestUpgrade(t *testing.T) {
	a, b := newHost(t, "a"), newHost(t, "b")
	ia := a.init()
	a.writes()
	a.stop()
	old := fmt.Sprintf(`{"nodeID":%q,"role":"manager","addr":%q,"listenAddr":%q}`, ia, a.addr, a.addr)
	if err := os.WriteFile(a.daemon.path(identityName), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{certFolder, managersName} {
		if err := os.RemoveAll(a.daemon.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	a.start()
	a.is(v1.LocalNodeActive, true)
	a.ready(ia)
	ib := b.join(a.tokens().Manager, a)
	b.voters(ia, ib)
}
