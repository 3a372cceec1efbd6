package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// authority is the swarm's, as it is kept.
func (c *cluster) authority() *v1.Authority {
	c.Helper()
	a, ok := store.Get(c.snapshot(), v1.Authorities, v1.AuthorityName)
	if !ok {
		c.Fatal("there is no authority")
	}
	return a
}

// settle does what the rule does once every node has come to the newest root.
func (c *cluster) settle() {
	c.Helper()
	a := c.authority()
	c.commit(store.Op{Kind: v1.KindAuthority, ID: v1.AuthorityName, Section: v1.SectionDesired, If: store.Exists(),
		Value: &v1.AuthorityDesired{Cert: a.Spec.CA.Cert, Key: a.Spec.CA.Key}})
}

// TestRotateCA goes through a rotation, a second one before the first is done, and back.
func TestRotateCA(t *testing.T) {
	c := form(t)
	tokens, err := c.client.JoinTokens(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.client.RotateCA(c.ctx, v1.RotateCARequest{})
	if err != nil || !bytes.Equal(first.TrustRoot, c.cert) || len(first.NextRoot) == 0 || first.Nodes != 5 || first.Moved != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	a := c.authority()
	if !v1.Rotating(a) || a.Spec.CA.Rotation != 1 || !bytes.Equal(a.Desired.Cert, c.cert) || !bytes.Equal(a.Desired.Key, c.key) {
		t.Errorf("the root that was settled is forgotten: rotation %d", a.Spec.CA.Rotation)
	}
	if now, err := c.client.JoinTokens(c.ctx); err != nil || now != tokens {
		t.Errorf("join tokens changed before the rotation is done: %v", err)
	}
	// Who trusts only the old root trusts a new certificate.
	key, csr := c.request()
	body, _ := json.Marshal(v1.CertificateRequest{CSR: csr})
	var got v1.Certificate
	if err := json.Unmarshal([]byte(c.node("w1", ca.RoleWorker).expect(http.StatusOK, "POST", "/v1/nodes/w1/certificate", string(body)).body), &got); err != nil {
		t.Fatal(err)
	}
	c.as(got.Chain, key, "").expect(http.StatusOK, "POST", "/v1/nodes/w1/status", `{"tasks":[]}`)
	if identity, err := ca.NewIdentity(got.Chain, key, got.Roots); err != nil || identity.Issuer() != first.Issuer || len(identity.RootDigests()) != 2 {
		t.Errorf("%v, issuer %s, want %s", err, identity.Issuer(), first.Issuer)
	}
	// Another one, given, while that one is under way.
	mine, mineKey, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.client.RotateCA(c.ctx, v1.RotateCARequest{CACert: mine, CAKey: mineKey})
	if err != nil || !bytes.Equal(second.NextRoot, mine) || !bytes.Equal(second.TrustRoot, c.cert) || second.Issuer != ca.Digest(mine) {
		t.Fatalf("%+v, %v", second, err)
	}
	if _, err := ca.NewSigner(mine, mineKey, c.authority().Spec.CA.Cross, time.Now); err != nil {
		t.Errorf("cross: %v", err)
	}
	_, err = c.client.RotateCA(c.ctx, v1.RotateCARequest{CACert: mine, CAKey: mineKey})
	c.refused(err, http.StatusBadRequest, "newest root is this one already")
	// Back to where everybody is.
	back, err := c.client.RotateCA(c.ctx, v1.RotateCARequest{CACert: c.cert, CAKey: c.key})
	if err != nil || len(back.NextRoot) != 0 || !bytes.Equal(back.TrustRoot, c.cert) {
		t.Fatalf("%+v, %v", back, err)
	}
	if cross := c.authority().Spec.CA.Cross; cross != nil {
		t.Errorf("a root that everybody trusts is cross-signed")
	}
	// And once more to the end: tokens name the new root then.
	if _, err := c.client.RotateCA(c.ctx, v1.RotateCARequest{}); err != nil {
		t.Fatal(err)
	}
	c.settle()
	if now, err := c.client.JoinTokens(c.ctx); err != nil || now == tokens {
		t.Errorf("join tokens are as before the rotation: %v", err)
	}
	if info, err := c.client.CA(c.ctx); err != nil || len(info.NextRoot) != 0 || bytes.Equal(info.TrustRoot, c.cert) {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestRotateCAIsRefused(t *testing.T) {
	c := form(t)
	root, key, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, leafKey := c.certify("w1", ca.RoleWorker)
	external := []v1.ExternalCA{{Protocol: "cfssl", URL: "https://ca.example.com/sign"}}
	before := c.authority().Meta.Revisions
	for _, test := range []struct {
		what  string
		r     v1.RotateCARequest
		words string
	}{
		{"a key alone", v1.RotateCARequest{CAKey: key}, "caCert"},
		{"a certificate alone", v1.RotateCARequest{CACert: root}, "caKey"},
		{"an external CA without its root", v1.RotateCARequest{ExternalCAs: external}, "caCert"},
		{"another key", v1.RotateCARequest{CACert: root, CAKey: other}, "caCert"},
		{"no CA", v1.RotateCARequest{CACert: leaf, CAKey: leafKey}, "caCert"},
		{"not PEM", v1.RotateCARequest{CACert: []byte("x"), CAKey: key}, "caCert"},
		{"another protocol", v1.RotateCARequest{CACert: root, ExternalCAs: []v1.ExternalCA{{Protocol: "acme", URL: "https://x/"}}}, "protocol"},
		{"plain HTTP", v1.RotateCARequest{CACert: root, ExternalCAs: []v1.ExternalCA{{Protocol: "cfssl", URL: "http://x/"}}}, "url"},
	} {
		_, err := c.client.RotateCA(c.ctx, test.r)
		if client.Status(err) != http.StatusBadRequest || !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s: %v, want %q", test.what, err, test.words)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: the error shows the key: %v", test.what, err)
		}
	}
	if now := c.authority().Meta.Revisions; now != before {
		t.Error("something was written")
	}
	// To an external CA, and from there on the swarm has no key to sign another root with.
	if _, err := c.client.RotateCA(c.ctx, v1.RotateCARequest{CACert: root, ExternalCAs: external}); err != nil {
		t.Fatal(err)
	}
	if cl, err := client.Get(c.ctx, c.client, v1.Clusters, v1.ClusterName); err != nil || len(cl.Spec.ExternalCAs) != 1 {
		t.Errorf("%+v, %v", cl.Spec, err)
	}
	c.settle()
	_, err = c.client.RotateCA(c.ctx, v1.RotateCARequest{})
	c.refused(err, http.StatusBadRequest, "with an external CA")
	_, csr := c.request()
	fresh := ca.Token{Digest: ca.Digest(root), Secret: workerSecret}.String()
	nodes := c.snapshot().Count(v1.KindNode)
	c.as(nil, nil, "").expect(http.StatusBadGateway, "POST", "/v1/nodes/join", admission(fresh, csr), "could not be signed")
	if n := c.snapshot().Count(v1.KindNode); n != nodes {
		t.Error("a node without a certificate is there")
	}
}

// TestAutoLock: turning it on makes a key in the same commit, turning it off takes it away.
func TestAutoLock(t *testing.T) {
	c := form(t)
	key := func() string {
		t.Helper()
		key, err := c.client.UnlockKey(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	set := func(locks bool) {
		t.Helper()
		cl, err := client.Get(c.ctx, c.client, v1.Clusters, v1.ClusterName)
		if err != nil {
			t.Fatal(err)
		}
		cl.Spec.AutoLock = locks
		if cl, _, err = client.Update(c.ctx, c.client, v1.Clusters, cl); err != nil || cl.Spec.AutoLock != locks {
			t.Fatalf("%+v, %v", cl, err)
		}
	}
	_, err := c.client.RotateUnlockKey(c.ctx)
	c.refused(err, http.StatusBadRequest, "cannot rotate because autolock is not turned on")
	if k := key(); k != "" {
		t.Error("there is a key already")
	}
	before := c.snapshot().Revision()
	set(true)
	first := key()
	if _, err := ca.ParseUnlockKey(first); err != nil {
		t.Error(err)
	}
	a := c.authority()
	cl, _ := store.Get(c.snapshot(), v1.Clusters, v1.ClusterName)
	if at := a.Meta.Revisions[v1.SectionSpec]; at <= before || at != cl.Meta.Revisions[v1.SectionSpec] {
		t.Errorf("written at %d and %d", at, cl.Meta.Revisions[v1.SectionSpec])
	}
	set(true)
	if key() != first {
		t.Error("the key changed without a rotation")
	}
	second, err := c.client.RotateUnlockKey(c.ctx)
	if err != nil || second == first || key() != second {
		t.Errorf("rotation: %v", err)
	}
	c.node("m2", ca.RoleManager).expect(http.StatusOK, "POST", "/v1/nodes/m2/membership", `{"addr":"10.0.0.1:2377"}`, second)
	cl, err = client.Get(c.ctx, c.client, v1.Clusters, v1.ClusterName)
	if err != nil {
		t.Fatal(err)
	}
	cl.Spec.ExternalCAs = []v1.ExternalCA{{Protocol: "cfssl", URL: "https://ca.example.com/sign"}}
	if _, _, err := client.Update(c.ctx, c.client, v1.Clusters, cl); err != nil || key() != second {
		t.Errorf("another setting changes the key: %v", err)
	}
	set(false)
	if key() != "" {
		t.Error("the key is still there")
	}
}

// TestLastingSettings: what networks and addresses were made from stays; what may change does.
func TestLastingSettings(t *testing.T) {
	c := form(t)
	cl, err := client.Get(c.ctx, c.client, v1.Clusters, v1.ClusterName)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		field  string
		change func(*v1.ClusterSpec)
	}{
		{"spec.gatewayPool", func(s *v1.ClusterSpec) { s.GatewayPool = "100.80.0.0/12" }},
		{"spec.defaultAddrPool", func(s *v1.ClusterSpec) { s.DefaultAddrPool = []string{"10.20.0.0/16"} }},
		{"spec.subnetSize", func(s *v1.ClusterSpec) { s.SubnetSize = 25 }},
		{"spec.dataPathPort", func(s *v1.ClusterSpec) { s.DataPathPort = 5000 }},
	} {
		changed := *cl
		spec := *cl.Spec
		test.change(&spec)
		changed.Spec = &spec
		_, _, err := client.Update(c.ctx, c.client, v1.Clusters, &changed)
		c.refused(err, http.StatusBadRequest, test.field, "cannot change after the swarm was made")
	}
	expiry, period := v1.Duration(2*time.Hour), v1.Duration(5*time.Second)
	cl.Spec = &v1.ClusterSpec{NodeCertExpiry: &expiry, HeartbeatPeriod: &period, Raft: &v1.RaftSettings{SnapshotInterval: 500}}
	if cl, _, err = client.Update(c.ctx, c.client, v1.Clusters, cl); err != nil || cl.Spec.Raft.SnapshotInterval != 500 || *cl.Spec.HeartbeatPeriod != period {
		t.Fatalf("%+v, %v", cl, err)
	}
	key, csr := c.request()
	body, _ := json.Marshal(v1.CertificateRequest{CSR: csr})
	var got v1.Certificate
	if err := json.Unmarshal([]byte(c.node("w1", ca.RoleWorker).expect(http.StatusOK, "POST", "/v1/nodes/w1/certificate", string(body)).body), &got); err != nil {
		t.Fatal(err)
	}
	identity, err := ca.NewIdentity(got.Chain, key, got.Roots)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(identity.Expires()); left > 2*time.Hour || left < time.Hour {
		t.Errorf("the certificate is good for %s, want 2h", left)
	}
	cl.Spec.ExternalCAs = []v1.ExternalCA{{Protocol: "cfssl", URL: "https://ca.example.com/sign"}}
	if _, _, err = client.Update(c.ctx, c.client, v1.Clusters, cl); err != nil {
		t.Fatal(err)
	}
	if e := c.authority().Spec.CA.External; len(e) != 1 {
		t.Errorf("the authority does not know of the external CA: %v", e)
	}
}

func TestBackup(t *testing.T) {
	c, _ := audited(t)
	whole := bytes.Repeat([]byte("state"), 1<<20)
	c.members.backup = func(w io.Writer) error { _, err := w.Write(whole); return err }
	var got bytes.Buffer
	if err := c.client.Backup(c.ctx, &got); err != nil || !bytes.Equal(got.Bytes(), whole) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	c.members.backup = func(w io.Writer) error {
		w.Write(whole)
		return errors.New("the disk broke")
	}
	if err := c.client.Backup(c.ctx, io.Discard); err == nil {
		t.Error("a backup that broke off is taken for a whole one")
	}
	if last := c.records(""); last[len(last)-1].Error != "Broken off" || last[len(last)-2].Error != "" {
		t.Errorf("%+v", last)
	}
	c.members.backup = func(io.Writer) error { return store.ErrUnavailable }
	c.refused(c.client.Backup(c.ctx, io.Discard), http.StatusServiceUnavailable, "does not have a leader")
	c.server.Attach(c.store, apiserver.Backing{Node: "m1", Identity: c.identity})
	c.refused(c.client.Backup(c.ctx, io.Discard), http.StatusBadRequest, "an etcd of its own")
}

// TestNotAManager: every door that needs the swarm's state says, in Docker's words, why there is none here.
func TestNotAManager(t *testing.T) {
	for _, test := range []struct {
		info  v1.SwarmInfo
		words string
	}{
		{v1.SwarmInfo{LocalNodeState: v1.LocalNodeInactive}, `This node is not a swarm manager. Use \"swarmctl swarm init\" or \"swarmctl swarm join\" to connect this node to swarm and try again.`},
		{v1.SwarmInfo{LocalNodeState: v1.LocalNodeActive}, "Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."},
		{v1.SwarmInfo{LocalNodeState: v1.LocalNodeLocked}, `Swarm is encrypted and needs to be unlocked before it can be used. Please use \"swarmctl swarm unlock\" to unlock it.`},
		{v1.SwarmInfo{LocalNodeState: v1.LocalNodeActive, ControlAvailable: true}, "Manager is being prepared or has trouble connecting to the cluster."},
		{v1.SwarmInfo{LocalNodeState: v1.LocalNodePending}, "Manager is being prepared or has trouble connecting to the cluster."},
	} {
		f := serve(t, func(o *apiserver.Options) { o.Host, o.Store = &idleHost{test.info}, nil })
		for _, at := range []string{"GET /v1/services", "POST /v1/services", "DELETE /v1/nodes/x", "GET /v1/events", "GET /v1/swarm/join-tokens",
			"POST /v1/swarm/ca/rotate", "GET /v1/swarm/backup", "POST /v1/nodes/join", "GET /v1/members", "POST /v1/nodes/x/session", "GET /readyz"} {
			method, path, _ := strings.Cut(at, " ")
			body := ""
			if strings.HasSuffix(path, "/session") {
				body = `{"description":{}}` + "\n" // that line is read before anything is refused
			}
			got := f.do(method, path, body)
			if got.code != http.StatusServiceUnavailable || !strings.Contains(got.body, test.words) {
				t.Errorf("%s, %s: %d %s", test.info.LocalNodeState, at, got.code, got.body)
			}
			if !strings.Contains(got.body, v1.ProblemNotManager) {
				t.Errorf("%s, %s: a client cannot know that nothing was done: %s", test.info.LocalNodeState, at, got.body)
			}
		}
		for _, at := range []string{"GET /v1/info", "GET /v1/version", "POST /v1/swarm/unlock", "POST /v1/swarm/leave?force=true", "GET /healthz"} {
			method, path, _ := strings.Cut(at, " ")
			if got := f.do(method, path, ""); got.code == http.StatusServiceUnavailable {
				t.Errorf("%s, %s: %d %s", test.info.LocalNodeState, at, got.code, got.body)
			}
		}
	}
}

// TestLocked: a locked manager answers what it takes to unlock it or to give it up, and nothing else.
func TestLocked(t *testing.T) {
	f := serve(t, func(o *apiserver.Options) {
		o.Host, o.Store, o.AuditFile = &idleHost{v1.SwarmInfo{LocalNodeState: v1.LocalNodeLocked}}, nil, t.TempDir()+"/audit.log"
	})
	open := map[string]bool{"GET /v1/info": true, "GET /v1/version": true, "GET /healthz": true, "POST /v1/swarm/unlock": true, "POST /v1/swarm/leave": true}
	for _, rt := range f.server.Routes() {
		path := strings.NewReplacer("{ref}", "x", "{stream}", "x", "{task}", "x", "{id}", "x").Replace(rt.Path)
		got := f.do(rt.Method, path, "")
		told := got.code == http.StatusServiceUnavailable && strings.Contains(got.body, "needs to be unlocked before it can be used")
		if at := rt.Method + " " + rt.Path; told == open[at] {
			t.Errorf("%s: %d %s", at, got.code, got.body)
		}
	}
}

// leaderless is a store that has lost its quorum: what was seen can be read, and nothing else.
type leaderless struct{ store.Store }

func (l leaderless) Sync(context.Context) (int64, error) {
	return 0, fmt.Errorf("%w: no leader", store.ErrUnavailable)
}

func (l leaderless) Commit(context.Context, store.Commit) (int64, error) {
	return 0, fmt.Errorf("%w: no leader", store.ErrUnavailable)
}

// TestNoLeader: without a quorum what can be read is read, and the rest is told in Docker's words.
func TestNoLeader(t *testing.T) {
	c := form(t)
	c.server.Attach(leaderless{c.store}, apiserver.Backing{Node: "m1", Identity: c.identity, Members: c.members})
	c.local().expect(http.StatusOK, "GET", "/v1/nodes", "")
	const words = "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
	for _, at := range []string{"DELETE /v1/nodes/w1", "POST /v1/swarm/join-tokens/rotate", "GET /v1/swarm/join-tokens", "POST /v1/swarm/ca/rotate"} {
		method, path, _ := strings.Cut(at, " ")
		c.local().expect(http.StatusServiceUnavailable, method, path, "", words)
	}
	c.node("unknown", ca.RoleWorker).expect(http.StatusServiceUnavailable, "POST", "/v1/nodes/unknown/status", "", words)
	// Who has a manager's certificate and is none here may be one elsewhere: it counts as the lesser while nobody can tell.
	c.node("w1", ca.RoleManager).expect(http.StatusForbidden, "GET", "/v1/nodes/w1/tasks/x/logs", "", "is a worker")
}

// behind is a store that has not seen the newest yet, but can ask for it.
type behind struct {
	store.Store
	seen *store.Snapshot
}

func (b behind) Snapshot(ctx context.Context, atLeast int64) (*store.Snapshot, error) {
	if atLeast <= b.seen.Revision() {
		return b.seen, nil
	}
	return b.Store.Snapshot(ctx, atLeast)
}

// TestNewsFromAnotherManager: who was let in, promoted or named by another manager a moment ago is not refused for it here.
func TestNewsFromAnotherManager(t *testing.T) {
	c := form(t)
	old := c.snapshot()
	c.commit(nodeOp("fresh", 9), c.managerOp("freshmanager", 10))
	tokens, err := c.client.RotateJoinToken(c.ctx, v1.RoleWorker)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.user("ada", v1.UserAdmin); err != nil {
		t.Fatal(err)
	}
	token, err := c.token("ada")
	if err != nil {
		t.Fatal(err)
	}
	c.server.Attach(behind{c.store, old}, apiserver.Backing{Node: "m1", Identity: c.identity, Members: c.members})
	_, csr := c.request()
	c.as(nil, nil, "").expect(http.StatusForbidden, "POST", "/v1/nodes/join", admission(c.joinToken(workerSecret), csr), "invalid join token")
	c.as(nil, nil, "").expect(http.StatusCreated, "POST", "/v1/nodes/join", admission(tokens.Worker, csr))
	body, _ := json.Marshal(v1.CertificateRequest{CSR: csr})
	c.node("fresh", ca.RoleWorker).expect(http.StatusOK, "POST", "/v1/nodes/fresh/certificate", string(body))
	c.node("freshmanager", ca.RoleManager).expect(http.StatusOK, "POST", "/v1/nodes/freshmanager/membership", `{"addr":"10.0.0.1:2377"}`)
	c.as(nil, nil, token).expect(http.StatusOK, "GET", "/v1/users", "")
	chain, key := c.certify("ada", ca.RoleUser)
	c.as(chain, key, "").expect(http.StatusOK, "GET", "/v1/users", "")
}

// TestRotatedAway: a connection that was opened with a certificate of a root that is trusted no more ends to count.
func TestRotatedAway(t *testing.T) {
	c := form(t)
	worker := c.node("w1", ca.RoleWorker)
	worker.expect(http.StatusOK, "POST", "/v1/nodes/w1/status", `{"tasks":[]}`)
	next, nextKey, err := ca.NewRoot(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	chain, key := c.certificate(next, nextKey, ca.Subject{ID: "m1", Role: ca.RoleManager, Cluster: clusterID}, time.Now())
	if err := c.identity.Update(chain, key, next); err != nil {
		t.Fatal(err)
	}
	worker.expect(http.StatusUnauthorized, "POST", "/v1/nodes/w1/status", `{"tasks":[]}`, "is of a root that is trusted no more")
}
