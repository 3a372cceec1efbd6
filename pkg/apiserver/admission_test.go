package apiserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// joinToken is a token with the secret.
func (c *cluster) joinToken(secret string) string {
	return ca.Token{Digest: ca.Digest(c.cert), Secret: secret}.String()
}

// admission is the body of a request to join.
func admission(token string, csr []byte) string {
	body, _ := json.Marshal(v1.AdmissionRequest{Token: token, CSR: csr})
	return string(body)
}

// TestJoinAndServe goes the whole way with the real client: roots by digest, admission, session door, renewal.
func TestJoinAndServe(t *testing.T) {
	c := form(t)
	for _, test := range []struct {
		secret string
		role   v1.NodeRole
	}{{workerSecret, v1.RoleWorker}, {managerSecret, v1.RoleManager}} {
		token, err := ca.ParseToken(c.joinToken(test.secret))
		if err != nil {
			t.Fatal(err)
		}
		roots, err := client.FetchRoots(c.ctx, c.addr, token.Digest)
		if err != nil {
			t.Fatal(err)
		}
		key, csr := c.request()
		got, err := client.Admit(c.ctx, c.addr, roots, v1.AdmissionRequest{Token: token.String(), CSR: csr, Availability: v1.AvailabilityPause})
		if err != nil || got.Role != test.role {
			t.Fatalf("%+v, %v", got, err)
		}
		identity, err := ca.NewIdentity(got.Chain, key, got.Roots)
		if err != nil || identity.Subject().ID != got.NodeID || identity.Subject().Cluster != clusterID {
			t.Fatalf("%+v, %v", identity.Subject(), err)
		}
		n := c.get(got.NodeID)
		if n.Spec.Role != test.role || n.Spec.Availability != v1.AvailabilityPause || n.Spec.Index == 0 {
			t.Errorf("%+v", n.Spec)
		}
		if _, ok := c.snapshot().Lookup(v1.KindClaim, v1.NodeIndexClaim(n.Spec.Index)); !ok {
			t.Errorf("its index %d is not claimed", n.Spec.Index)
		}
		self := c.as(got.Chain, key, "")
		self.expect(http.StatusOK, "POST", "/v1/nodes/"+got.NodeID+"/status", `{"tasks":[]}`)
		self.expect(http.StatusForbidden, "POST", "/v1/nodes/w1/status", `{"tasks":[]}`)
		if identity.Subject().Role == ca.RoleManager {
			self.expect(http.StatusOK, "POST", "/v1/nodes/"+got.NodeID+"/membership", `{"addr":"10.0.0.9:2377"}`, `"activeKey":"k"`)
			if at := c.members.added[got.NodeID]; at != "https://10.0.0.9:2377" {
				t.Errorf("added at %q", at)
			}
		}
	}
}

// TestJoinIsRefused: whoever is refused gets no node, and is told why in Docker's words.
func TestJoinIsRefused(t *testing.T) {
	c := form(t)
	_, csr := c.request()
	before := c.snapshot().Count(v1.KindNode)
	whole := c.joinToken(workerSecret)
	other := ca.Token{Digest: strings.Repeat("1", 50), Secret: workerSecret}.String()
	stranger := c.as(nil, nil, "")
	for _, test := range []struct {
		what, body string
		code       int
		words      string
	}{
		{"no body", "", http.StatusBadRequest, "invalid join token"},
		{"no token", admission("", csr), http.StatusBadRequest, "invalid join token"},
		{"truncated", admission(whole[:len(whole)-3], csr), http.StatusBadRequest, "invalid join token"},
		{"another swarm's", admission(other, csr), http.StatusForbidden, "invalid join token"},
		{"another secret", admission(c.joinToken(strings.Repeat("0", 25)), csr), http.StatusForbidden, "invalid join token"},
		{"no request", admission(whole, nil), http.StatusBadRequest, "csr"},
		{"not a request", admission(whole, c.cert), http.StatusBadRequest, "csr"},
		{"an unknown field", `{"token":"x","role":"manager"}`, http.StatusBadRequest, "role"},
		{"a wrong availability", strings.Replace(admission(whole, csr), `{"token"`, `{"availability":"resting","token"`, 1), http.StatusBadRequest, "availability"},
		{"too large", admission(whole, make([]byte, 70<<10)), http.StatusRequestEntityTooLarge, "limit"},
	} {
		got := stranger.must("POST", "/v1/nodes/join", test.body)
		if got.code != test.code || !strings.Contains(got.body, test.words) {
			t.Errorf("%s: %d %s, want %d with %q", test.what, got.code, got.body, test.code, test.words)
		}
		if strings.Contains(got.body, workerSecret) || strings.Contains(got.body, ca.Digest(c.cert)) {
			t.Errorf("%s: the answer shows what is right: %s", test.what, got.body)
		}
	}
	if n := c.snapshot().Count(v1.KindNode); n != before {
		t.Errorf("there are %d nodes, there were %d", n, before)
	}
}

// TestRotatedJoinToken: an old token ends with its rotation, and the other one stays.
func TestRotatedJoinToken(t *testing.T) {
	c := form(t)
	_, csr := c.request()
	stranger := c.as(nil, nil, "")
	was, err := c.client.JoinTokens(c.ctx)
	if err != nil || was.Worker != c.joinToken(workerSecret) || was.Manager != c.joinToken(managerSecret) {
		t.Fatalf("%+v, %v", was, err)
	}
	is, err := c.client.RotateJoinToken(c.ctx, v1.RoleWorker)
	if err != nil || is.Worker == was.Worker || is.Manager != was.Manager {
		t.Fatalf("%+v, %v", is, err)
	}
	stranger.expect(http.StatusForbidden, "POST", "/v1/nodes/join", admission(was.Worker, csr), "invalid join token")
	stranger.expect(http.StatusCreated, "POST", "/v1/nodes/join", admission(is.Worker, csr), `"role":"worker"`)
	stranger.expect(http.StatusCreated, "POST", "/v1/nodes/join", admission(is.Manager, csr), `"role":"manager"`)
	c.local().expect(http.StatusBadRequest, "POST", "/v1/swarm/join-tokens/rotate?role=boss", "", "query parameter role")
}

// TestGuessingIsSlow: an address that fails too often is not even looked at, until its time is over.
func TestGuessingIsSlow(t *testing.T) {
	now := new(clock)
	c := form(t, now.option)
	_, csr := c.request()
	stranger := c.as(nil, nil, "")
	for range 20 {
		stranger.expect(http.StatusForbidden, "POST", "/v1/nodes/join", admission(c.joinToken(strings.Repeat("0", 25)), csr))
	}
	got := stranger.expect(http.StatusTooManyRequests, "POST", "/v1/nodes/join", admission(c.joinToken(workerSecret), csr), "too many failed tries")
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	now.advance(61 * 1e9)
	stranger.expect(http.StatusCreated, "POST", "/v1/nodes/join", admission(c.joinToken(workerSecret), csr))
}

// TestNoAuthorityYet: a swarm from before certificates says so until its manager has made them.
func TestNoAuthorityYet(t *testing.T) {
	c := form(t)
	c.commit(store.Op{Kind: v1.KindAuthority, ID: v1.AuthorityName, If: store.Exists()})
	_, csr := c.request()
	const words = "no certificate authority yet"
	c.as(nil, nil, "").expect(http.StatusServiceUnavailable, "POST", "/v1/nodes/join", admission(c.joinToken(workerSecret), csr), words)
	c.as(nil, nil, "").expect(http.StatusServiceUnavailable, "GET", "/v1/swarm/roots", "", words)
	for _, path := range []string{"GET /v1/swarm/join-tokens", "POST /v1/swarm/join-tokens/rotate", "GET /v1/swarm/unlock-key", "GET /v1/swarm/ca", "POST /v1/swarm/ca/rotate"} {
		method, path, _ := strings.Cut(path, " ")
		c.local().expect(http.StatusServiceUnavailable, method, path, "", words)
	}
	c.local().expect(http.StatusOK, "GET", "/v1/info", "", `"LocalNodeState":"active"`)
}

// TestRenewalFollowsTheRole: promotion and demotion come with the next certificate.
func TestRenewalFollowsTheRole(t *testing.T) {
	c := form(t)
	worker := c.node("w1", ca.RoleWorker)
	renew := func() ca.Role {
		key, csr := c.request()
		body, _ := json.Marshal(v1.CertificateRequest{CSR: csr})
		var got v1.Certificate
		if err := json.Unmarshal([]byte(worker.expect(http.StatusOK, "POST", "/v1/nodes/w1/certificate", string(body)).body), &got); err != nil {
			t.Fatal(err)
		}
		identity, err := ca.NewIdentity(got.Chain, key, got.Roots)
		if err != nil || identity.Subject().ID != "w1" {
			t.Fatalf("%v", err)
		}
		return identity.Subject().Role
	}
	if role := renew(); role != ca.RoleWorker {
		t.Errorf("a worker gets %s", role)
	}
	c.setRole("w1", v1.RoleManager)
	if role := renew(); role != ca.RoleManager {
		t.Errorf("a promoted worker gets %s", role)
	}
	worker.expect(http.StatusForbidden, "POST", "/v1/nodes/w1/membership", `{"addr":"10.0.0.1:2377"}`, "is a worker")
	c.setRole("w1", v1.RoleWorker)
	if role := renew(); role != ca.RoleWorker {
		t.Errorf("a demoted manager gets %s", role)
	}
	worker.expect(http.StatusBadRequest, "POST", "/v1/nodes/w1/certificate", `{"csr":""}`, "csr")
}

// setRole changes a node's role as a user does.
func (c *cluster) setRole(node string, role v1.NodeRole) {
	c.Helper()
	n := c.get(node)
	n.Spec.Role = role
	if _, _, err := client.Update(c.ctx, c.client, v1.Nodes, n); err != nil {
		c.Fatal(err)
	}
}

func TestMembership(t *testing.T) {
	c := form(t)
	manager := c.node("m2", ca.RoleManager)
	for _, addr := range []string{"", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:x", ":2377", "10.0.0.1:2377:1"} {
		manager.expect(http.StatusBadRequest, "POST", "/v1/nodes/m2/membership", fmt.Sprintf(`{"addr":%q}`, addr), "host:port")
	}
	manager.expect(http.StatusServiceUnavailable, "POST", "/v1/nodes/m2/membership", `{"addr":"unready:2377"}`, "still learning")
	manager.expect(http.StatusOK, "POST", "/v1/nodes/m2/membership", `{"addr":"[fd00::1]:2377"}`)
	if at := c.members.added["m2"]; at != "https://[fd00::1]:2377" {
		t.Errorf("added at %q", at)
	}
	c.local().expect(http.StatusForbidden, "POST", "/v1/nodes/w1/membership", `{"addr":"10.0.0.1:2377"}`, "promote it first")
}

// TestLeaving: a worker's presence goes at once; a manager becomes a worker, if the others can do without.
func TestLeaving(t *testing.T) {
	c := form(t)
	present := func(node string) bool {
		_, ok := c.snapshot().Lookup(v1.KindPresence, node)
		return ok
	}
	for _, node := range []string{"w1", "m2"} {
		c.commit(store.Op{Kind: v1.KindPresence, ID: node, Section: v1.SectionStatus, Value: &v1.PresenceStatus{Session: "1"}, Meta: &v1.Meta{}, If: store.Absent()})
	}
	worker, manager := c.node("w1", ca.RoleWorker), c.node("m2", ca.RoleManager)
	worker.expect(http.StatusNoContent, "POST", "/v1/nodes/w1/leave", "")
	worker.expect(http.StatusNoContent, "POST", "/v1/nodes/w1/leave", "") // again
	if present("w1") {
		t.Error("w1 is still there")
	}
	c.members.vote(false, true)
	manager.expect(http.StatusBadRequest, "POST", "/v1/nodes/m2/leave", "", "can't demote node m2: it would lose quorum")
	if !present("m2") || c.get("m2").Spec.Role != v1.RoleManager {
		t.Error("a manager that was refused is on its way out")
	}
	c.members.vote(true, true)
	manager.expect(http.StatusNoContent, "POST", "/v1/nodes/m2/leave", "")
	if present("m2") || c.get("m2").Spec.Role != v1.RoleWorker {
		t.Error("the manager is still there")
	}
	c.node("m1", ca.RoleManager).expect(http.StatusBadRequest, "POST", "/v1/nodes/m1/leave", "", "attempting to demote the last manager of the swarm")
}

func TestDemotion(t *testing.T) {
	c := form(t)
	c.members.vote(false, true)
	m2 := c.get("m2")
	m2.Spec.Role = v1.RoleWorker
	_, _, err := client.Update(c.ctx, c.client, v1.Nodes, m2)
	c.refused(err, http.StatusBadRequest, "can't demote node m2: it would lose quorum: ", "of the 1 managers that would be left, 0 can be reached")
	c.members.stick(store.ErrUnavailable)
	_, _, err = client.Update(c.ctx, c.client, v1.Nodes, m2)
	c.refused(err, http.StatusServiceUnavailable, "The swarm does not have a leader. It's possible that too few managers are online.")
	c.members.stick(nil)
	c.members.vote(true, true)
	c.setRole("m2", v1.RoleWorker)
	m1 := c.get("m1")
	m1.Spec.Role = v1.RoleWorker
	_, _, err = client.Update(c.ctx, c.client, v1.Nodes, m1)
	c.refused(err, http.StatusBadRequest, "attempting to demote the last manager of the swarm")

	if _, _, err := c.user("otto", v1.UserOperate); err != nil {
		t.Fatal(err)
	}
	token, err := c.token("otto")
	if err != nil {
		t.Fatal(err)
	}
	otto := c.as(nil, nil, token)
	const node = `{"apiVersion":"swarm/v1","kind":"Node","metadata":{"labels":{"zone":"%s"}},"spec":{"role":"%s","availability":"drain"}}`
	otto.expect(http.StatusOK, "PUT", "/v1/nodes/w1", fmt.Sprintf(node, "a", "worker"), `"availability":"drain"`, `"zone":"a"`)
	otto.expect(http.StatusForbidden, "PUT", "/v1/nodes/w1", fmt.Sprintf(node, "b", "manager"), "may not change a node's role")
	if n := c.get("w1"); n.Spec.Role != v1.RoleWorker || n.Meta.Labels["zone"] != "a" {
		t.Errorf("%+v %+v", n.Meta.Labels, n.Spec)
	}
}

// TestNodeRemoval: a node that is there, or that is a manager or still a member, is not removed by mistake. With a node its presence
// and index go.
func TestNodeRemoval(t *testing.T) {
	c := form(t)
	status := &v1.NodeStatus{State: v1.NodeReady}
	c.commit(
		store.Op{Kind: v1.KindNode, ID: "w1", Section: v1.SectionStatus, Value: status, If: store.Exists()},
		store.Op{Kind: v1.KindPresence, ID: "w1", Section: v1.SectionStatus, Value: &v1.PresenceStatus{Session: "1"}, Meta: &v1.Meta{}, If: store.Absent()},
		store.Op{Kind: v1.KindMember, ID: "demoted", Section: v1.SectionStatus, Value: &v1.MemberStatus{MemberID: "5"}, Meta: &v1.Meta{}, If: store.Absent()},
		store.Op{Kind: v1.KindClaim, ID: v1.NodeIndexClaim(3), Value: &v1.ClaimSpec{Holder: "w1"}, Meta: &v1.Meta{}, If: store.Absent()},
	)
	local := c.local()
	const member = "is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
	for _, force := range []string{"", "?force=true"} {
		local.expect(http.StatusBadRequest, "DELETE", "/v1/nodes/m2"+force, "", "node m2 "+member)
		local.expect(http.StatusBadRequest, "DELETE", "/v1/nodes/demoted"+force, "", "node demoted "+member)
	}
	local.expect(http.StatusBadRequest, "DELETE", "/v1/nodes/w1", "", "node w1 is not down and can't be removed")
	local.expect(http.StatusNoContent, "DELETE", "/v1/nodes/w1?force=true&dryRun=true", "")
	c.get("w1")
	local.expect(http.StatusNoContent, "DELETE", "/v1/nodes/w1?force=true", "")
	local.expect(http.StatusNoContent, "DELETE", "/v1/nodes/w2", "") // it never came
	for _, left := range []struct {
		kind v1.Kind
		id   string
	}{{v1.KindNode, "w1"}, {v1.KindPresence, "w1"}, {v1.KindClaim, v1.NodeIndexClaim(3)}} {
		if _, ok := c.snapshot().Lookup(left.kind, left.id); ok {
			t.Errorf("%s %s is left", left.kind, left.id)
		}
	}
}
