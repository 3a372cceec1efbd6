package apiserver_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// Who may use a door, beside root of the machine, as the design says. It is written down here once more so that neither a slip in
// the table of routes nor a new route goes unnoticed.
const (
	nobodyElse  = ""
	everybody   = "nobody worker manager view operate admin"
	ownNode     = "own"
	ownManager  = "own-manager"
	anyManager  = "manager"
	fromView    = "view operate admin"
	fromOperate = "operate admin"
	onlyAdmin   = "admin"
)

var whoMay = map[string]string{
	"GET /v1/services": fromView, "GET /v1/services/{ref}": fromView, "POST /v1/services": fromOperate, "PUT /v1/services/{ref}": fromOperate, "DELETE /v1/services/{ref}": fromOperate,
	"GET /v1/networks": fromView, "GET /v1/networks/{ref}": fromView, "POST /v1/networks": fromOperate, "PUT /v1/networks/{ref}": fromOperate, "DELETE /v1/networks/{ref}": fromOperate,
	"GET /v1/secrets": fromView, "GET /v1/secrets/{ref}": fromView, "POST /v1/secrets": fromOperate, "PUT /v1/secrets/{ref}": fromOperate, "DELETE /v1/secrets/{ref}": fromOperate,
	"GET /v1/registries": fromView, "GET /v1/registries/{ref}": fromView, "POST /v1/registries": fromOperate, "PUT /v1/registries/{ref}": fromOperate, "DELETE /v1/registries/{ref}": fromOperate,
	"GET /v1/configs": fromView, "GET /v1/configs/{ref}": fromView, "POST /v1/configs": fromOperate, "PUT /v1/configs/{ref}": fromOperate, "DELETE /v1/configs/{ref}": fromOperate,
	"GET /v1/attachments": fromView, "GET /v1/attachments/{ref}": fromView, "POST /v1/attachments": fromOperate, "PUT /v1/attachments/{ref}": fromOperate, "DELETE /v1/attachments/{ref}": fromOperate,
	"GET /v1/volumes": fromView, "GET /v1/volumes/{ref}": fromView, "POST /v1/volumes": fromOperate, "PUT /v1/volumes/{ref}": fromOperate, "DELETE /v1/volumes/{ref}": fromOperate,
	"GET /v1/nodes": fromView, "GET /v1/nodes/{ref}": fromView, "POST /v1/nodes": nobodyElse, "PUT /v1/nodes/{ref}": fromOperate, "DELETE /v1/nodes/{ref}": onlyAdmin,
	"GET /v1/users": onlyAdmin, "GET /v1/users/{ref}": onlyAdmin, "POST /v1/users": onlyAdmin, "PUT /v1/users/{ref}": onlyAdmin, "DELETE /v1/users/{ref}": onlyAdmin,
	"POST /v1/users/{ref}/tokens": onlyAdmin, "DELETE /v1/users/{ref}/tokens/{id}": onlyAdmin, "POST /v1/users/{ref}/certificate": onlyAdmin,
	"GET /v1/clusters": fromView, "GET /v1/clusters/{ref}": fromView, "PUT /v1/clusters/{ref}": onlyAdmin,
	"GET /v1/tasks": fromView, "GET /v1/tasks/{ref}": fromView, "GET /v1/servicerevisions": fromView, "GET /v1/servicerevisions/{ref}": fromView,
	"GET /v1/members": fromView, "GET /v1/members/{ref}": fromView,
	"GET /v1/services/{ref}/logs": fromView, "GET /v1/tasks/{ref}/logs": fromView, "GET /v1/events": fromView, "GET /v1/services:status": fromView,
	"GET /v1/nodes/{ref}/tasks/{task}/logs": anyManager, "POST /v1/followed": anyManager,
	"POST /v1/tasks/{ref}/tunnel": fromOperate, "POST /v1/nodes/{ref}/tasks/{task}/tunnel": anyManager, "POST /v1/nodes/{ref}/tunnels/{stream}": ownNode,
	"POST /v1/nodes/{ref}/tunnel": fromOperate, "POST /v1/nodes/{ref}/image": ownNode,

	"POST /v1/nodes/{ref}/session": ownNode, "POST /v1/nodes/{ref}/status": ownNode, "POST /v1/nodes/{ref}/streams/{stream}": ownNode,
	"POST /v1/nodes/{ref}/certificate": ownNode, "POST /v1/nodes/{ref}/leave": ownNode, "POST /v1/nodes/{ref}/membership": ownManager,
	"POST /v1/nodes/join": everybody, "GET /v1/swarm/roots": everybody, "GET /healthz": everybody,

	"GET /v1/swarm/join-tokens": onlyAdmin, "POST /v1/swarm/join-tokens/rotate": onlyAdmin, "GET /v1/swarm/unlock-key": onlyAdmin,
	"POST /v1/swarm/unlock-key/rotate": onlyAdmin, "GET /v1/swarm/ca": fromView, "POST /v1/swarm/ca/rotate": onlyAdmin,
	"GET /v1/swarm/backup": onlyAdmin, "GET /v1/audit": onlyAdmin,
	"GET /v1/info": fromView, "GET /v1/version": fromView, "GET /openapi.json": fromView, "GET /readyz": fromView, "GET /metrics": fromView,

	"POST /v1/swarm/init": nobodyElse, "POST /v1/swarm/join": nobodyElse, "POST /v1/swarm/leave": nobodyElse, "POST /v1/swarm/unlock": nobodyElse,
	"POST /v1/swarm/restore": nobodyElse, "GET /v1/images": nobodyElse, "POST /v1/images/load": nobodyElse,
	"POST /v1/commit": nobodyElse, "GET /v1/watch": nobodyElse, "GET /v1/snapshot": nobodyElse, "GET /v1/revision": nobodyElse,
}

// visitor is somebody who tries every door.
type visitor struct {
	name string
	*someone
	// class is what it counts as: nobody, worker, manager, view, operate, admin or root. id is its node's, if it is one.
	class, id string
	// turned is the status with which it is turned away.
	turned int
	// unheard tells that there is no answer at all: the handshake fails.
	unheard bool
}

// misspelt is a token with another last character.
func misspelt(token string) string {
	last := "0"
	if strings.HasSuffix(token, last) {
		last = "1"
	}
	return token[:len(token)-1] + last
}

// may tells whether the visitor is one of those that a door is for, at a path with this {ref}.
func (v *visitor) may(who, ref string) bool {
	if v.class == "root" {
		return true
	}
	for w := range strings.FieldsSeq(who) {
		switch w {
		case ownNode:
			if v.id != "" && v.id == ref {
				return true
			}
		case ownManager:
			if v.id != "" && v.id == ref && v.class == "manager" {
				return true
			}
		case v.class:
			return true
		}
	}
	return false
}

// visitors are all kinds of callers.
func visitors(c *cluster) []visitor {
	user := func(name string, role v1.UserRole) (token string, chain, key []byte) {
		c.local().expect(http.StatusCreated, "POST", "/v1/users", fmt.Sprintf(`{"apiVersion":"swarm/v1","kind":"User","metadata":{"name":%q},"spec":{"role":%q}}`, name, role))
		token, err := c.token(name)
		if err != nil {
			c.Fatal(err)
		}
		chain, key = c.certify(name, ca.RoleUser)
		return token, chain, key
	}
	veraToken, vera, veraKey := user("vera", v1.UserView)
	ottoToken, otto, ottoKey := user("otto", v1.UserOperate)
	adaToken, ada, adaKey := user("ada", v1.UserAdmin)
	other, otherKey, err := ca.NewRoot(time.Now())
	if err != nil {
		c.Fatal(err)
	}
	expired, expiredKey := c.certificate(c.cert, c.key, ca.Subject{ID: "m2", Role: ca.RoleManager, Cluster: clusterID}, time.Now().Add(-2*time.Hour))
	foreign, foreignKey := c.certificate(other, otherKey, ca.Subject{ID: "m2", Role: ca.RoleManager, Cluster: clusterID}, time.Now())
	elsewhere, elsewhereKey := c.certificate(c.cert, c.key, ca.Subject{ID: "m2", Role: ca.RoleManager, Cluster: "anotherswarm"}, time.Now())
	old := c.with(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, adaToken)
	const gone, no = http.StatusForbidden, http.StatusUnauthorized
	return []visitor{
		{name: "root", someone: c.local(), class: "root"},
		{name: "worker", someone: c.node("w1", ca.RoleWorker), class: "worker", id: "w1", turned: gone},
		{name: "manager", someone: c.node("m2", ca.RoleManager), class: "manager", id: "m2", turned: gone},
		{name: "demoted manager", someone: c.node("demoted", ca.RoleManager), class: "worker", id: "demoted", turned: gone},
		{name: "promoted worker without a new certificate", someone: c.node("m2", ca.RoleWorker), class: "worker", id: "m2", turned: gone},
		{name: "removed worker", someone: c.node("removed", ca.RoleWorker), class: "nobody", turned: gone},
		{name: "removed manager", someone: c.node("removed", ca.RoleManager), class: "nobody", turned: gone},
		{name: "view by token", someone: c.as(nil, nil, veraToken), class: "view", turned: gone},
		{name: "view by certificate", someone: c.as(vera, veraKey, ""), class: "view", turned: gone},
		{name: "operate by token", someone: c.as(nil, nil, ottoToken), class: "operate", turned: gone},
		{name: "operate by certificate", someone: c.as(otto, ottoKey, ""), class: "operate", turned: gone},
		{name: "admin by token", someone: c.as(nil, nil, adaToken), class: "admin", turned: gone},
		{name: "admin by certificate", someone: c.as(ada, adaKey, ""), class: "admin", turned: gone},
		{name: "user that was removed", someone: c.node("nobody1", ca.RoleUser), class: "nobody", turned: gone},
		{name: "user by the name of a node", someone: c.node("m1", ca.RoleUser), class: "nobody", turned: gone},
		{name: "node by the name of a user", someone: c.node("ada", ca.RoleManager), class: "nobody", turned: gone},
		{name: "malformed token", someone: c.as(nil, nil, "SWMUSR-1-nonsense"), class: "nobody", turned: no},
		{name: "wrong secret", someone: c.as(nil, nil, misspelt(adaToken)), class: "nobody", turned: no},
		{name: "join token as bearer", someone: c.as(nil, nil, ca.Token{Digest: ca.Digest(c.cert), Secret: managerSecret}.String()), class: "nobody", turned: no},
		{name: "nobody", someone: c.as(nil, nil, ""), class: "nobody", turned: no},
		{name: "expired certificate", someone: c.as(expired, expiredKey, adaToken), unheard: true},
		{name: "certificate of a foreign CA", someone: c.as(foreign, foreignKey, adaToken), unheard: true},
		{name: "certificate of another swarm", someone: c.as(elsewhere, elsewhereKey, adaToken), unheard: true},
		{name: "TLS 1.2", someone: old, unheard: true},
	}
}

// token makes a token of a user.
func (c *cluster) token(name string) (string, error) {
	t, err := c.client.CreateUserToken(c.ctx, name, v1.UserTokenRequest{})
	return t.Token, err
}

// TestEveryDoor asks at every door, with every method, as every kind of caller. A door that the expectations do not have fails.
func TestEveryDoor(t *testing.T) {
	c := form(t, func(o *apiserver.Options) { o.AuditFile = t.TempDir() + "/audit.log" })
	c.members.vote(false, false)
	c.members.backup = func(w io.Writer) error { _, err := w.Write([]byte("a backup")); return err }
	table := make(map[string]map[string]bool) // path → method → stream
	for _, rt := range c.server.Routes() {
		at := rt.Method + " " + rt.Path
		if _, ok := whoMay[at]; !ok {
			t.Errorf("%s is a new door: say here who may use it", at)
		}
		if !rt.Declared {
			t.Errorf("%s does not say who may use it", at)
		}
		if table[rt.Path] == nil {
			table[rt.Path] = make(map[string]bool)
		}
		if _, twice := table[rt.Path][rt.Method]; twice {
			t.Errorf("%s is there twice", at)
		}
		table[rt.Path][rt.Method] = rt.Stream
	}
	for at := range whoMay {
		method, path, _ := strings.Cut(at, " ")
		if _, ok := table[path][method]; !ok {
			t.Errorf("%s is expected, and is not there", at)
		}
	}
	asked := 0
	for _, v := range visitors(c) {
		for path, methods := range table {
			for _, ref := range []string{"w1", "m2", "demoted", "removed", "none"} {
				if !strings.HasPrefix(path, "/v1/nodes/{ref}") && ref != "none" {
					continue
				}
				others := []string{"HEAD", "OPTIONS", "BREW"}
				if v.class == "nobody" && v.name != "nobody" { // each request of theirs is a new connection
					others = nil
				}
				for _, method := range append(slices.Sorted(maps.Keys(methods)), others...) {
					if ref != "none" && (method == "PUT" || method == "DELETE") {
						continue // who may would do it
					}
					v.try(t, path, ref, method, methods)
					asked++
				}
			}
			if v.unheard {
				break
			}
		}
	}
	t.Logf("%d requests", asked)
}

// try asks at one door, and compares with what is expected.
func (v *visitor) try(t *testing.T, path, ref, method string, methods map[string]bool) {
	t.Helper()
	where := strings.NewReplacer("{ref}", ref, "{stream}", "x", "{task}", "x", "{id}", "x").Replace(path)
	got, err := v.ask(method, where, "")
	if v.unheard {
		if err == nil {
			t.Errorf("%s: %s %s: %d %s, want no answer", v.name, method, where, got.code, got.body)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %s %s: %v", v.name, method, where, err)
		return
	}
	route := method
	if method == "HEAD" {
		route = "GET"
	}
	stream, there := methods[route]
	who := whoMay[route+" "+path]
	if !there {
		for m := range methods {
			who += " " + whoMay[m+" "+path]
		}
	}
	switch {
	case !v.may(who, ref):
		if got.code != v.turned {
			t.Errorf("%s: %s %s: %d %s, want %d", v.name, method, where, got.code, got.body, v.turned)
		}
	case !there || method == "HEAD" && stream:
		if got.code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %s %s: %d %s, want 405", v.name, method, where, got.code, got.body)
		}
	case got.code == http.StatusUnauthorized || got.code == http.StatusForbidden || got.code == http.StatusMethodNotAllowed || got.code == http.StatusInternalServerError:
		t.Errorf("%s: %s %s: %d %s, want to be let in", v.name, method, where, got.code, got.body)
	}
	if who != nobodyElse || v.class != "root" { // raw reads of the store are meant to show all
		v.noSecrets(t, method+" "+where, got.body)
	}
}

// noSecrets looks for what was planted, but for join tokens, which are asked for.
func (v *visitor) noSecrets(t *testing.T, where, body string) {
	t.Helper()
	for _, text := range []string{plantedSecret, base64.StdEncoding.EncodeToString([]byte(plantedSecret)), "PRIVATE KEY",
		base64.StdEncoding.EncodeToString(v.key)[:60], `"hash":"`} {
		if strings.Contains(body, text) {
			t.Errorf("%s: %s shows %q: %s", v.name, where, text, body)
		}
	}
	if !strings.Contains(where, "/v1/swarm/join-tokens") && (strings.Contains(body, workerSecret) || strings.Contains(body, managerSecret)) {
		t.Errorf("%s: %s shows a join secret: %s", v.name, where, body)
	}
}

// TestUnknownPaths: what there is is told only to those who may look around.
func TestUnknownPaths(t *testing.T) {
	c := form(t)
	for _, v := range visitors(c) {
		if v.unheard {
			continue
		}
		for _, path := range []string{"/", "/v1", "/v1/", "/v1/nope", "/v1/authorities", "/v1/authorities/default", "/v1/claims", "/v1/presences",
			"/v1/nodes/w1/session/more", "/v1/nodes/w1%2Fsession", "/debug/pprof/", "/v1/nodes/%77%31/nope", "/metrics/", "/0/", "/v3/kv/range", "/raft", "/members"} {
			for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
				want := []int{v.turned}
				switch v.class {
				case "root", "view", "operate", "admin":
					want = []int{http.StatusNotFound}
					if path == "/v1/nodes/w1%2Fsession" && method != "GET" && method != "HEAD" {
						want = []int{http.StatusMethodNotAllowed}
					}
				}
				if got := v.must(method, path, ""); !slices.Contains(want, got.code) {
					t.Errorf("%s: %s %s: %d %s, want %v", v.name, method, path, got.code, got.body, want)
				}
			}
		}
	}
}

// TestPlainHTTP: the port does not speak it, not even to an admin.
func TestPlainHTTP(t *testing.T) {
	c := form(t)
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/swarm/roots HTTP/1.1\r\nHost: x\r\n\r\n")
	reply, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(reply), "HTTP/1.0 400") || strings.Contains(string(reply), "CERTIFICATE") {
		t.Errorf("%q, %v", reply, err)
	}
}

// TestDoorWithoutTLS: a door that somebody serves without TLS lets nobody in.
func TestDoorWithoutTLS(t *testing.T) {
	c := form(t)
	for _, path := range []string{"/v1/services", "/v1/swarm/join-tokens"} {
		w := newRecorded()
		r, _ := http.NewRequest("GET", path, nil)
		r.Header.Set("Authorization", "Bearer x")
		c.server.Door().ServeHTTP(w, r)
		if w.code != http.StatusForbidden && w.code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", path, w.code, w.body)
		}
	}
}

// TestRevocation: what changes in the swarm counts for the very next request, also on a connection that is open.
func TestRevocation(t *testing.T) {
	c := form(t)
	worker, manager := c.node("w2", ca.RoleWorker), c.node("m2", ca.RoleManager)
	worker.expect(http.StatusOK, "POST", "/v1/nodes/w2/status", `{"tasks":[]}`)
	manager.expect(http.StatusOK, "POST", "/v1/nodes/m2/membership", `{"addr":"10.0.0.2:2377"}`)
	spec := *c.get("m2").Spec
	spec.Role = v1.RoleWorker
	c.commit(store.Op{Kind: v1.KindNode, ID: "m2", Value: &spec, Meta: &v1.Meta{Generation: 2}, If: store.Exists()},
		store.Op{Kind: v1.KindNode, ID: "w2", If: store.Exists()})
	manager.expect(http.StatusForbidden, "POST", "/v1/nodes/m2/membership", `{"addr":"10.0.0.2:2377"}`,
		"is a worker, and may not do this: it is for the node itself while it is a manager")
	manager.expect(http.StatusForbidden, "GET", "/v1/nodes/w2/tasks/x/logs?stdout=true", "", "is a worker")
	manager.expect(http.StatusOK, "POST", "/v1/nodes/m2/status", `{"tasks":[]}`)
	worker.expect(http.StatusForbidden, "POST", "/v1/nodes/w2/status", `{"tasks":[]}`, "was removed from the swarm")
	worker.expect(http.StatusOK, "GET", "/v1/swarm/roots", "")

	_, _, err := c.user("bob", v1.UserView)
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.token("bob")
	if err != nil {
		t.Fatal(err)
	}
	chain, key := c.certify("bob", ca.RoleUser)
	for _, bob := range []*someone{c.as(nil, nil, token), c.as(chain, key, "")} {
		bob.expect(http.StatusOK, "GET", "/v1/services", "")
		bob.expect(http.StatusForbidden, "GET", "/v1/users", "", "user bob has the role view, and may not do this: it is for users with the role admin")
		c.role("bob", v1.UserAdmin)
		bob.expect(http.StatusOK, "GET", "/v1/users", "")
		c.role("bob", v1.UserView)
		bob.expect(http.StatusForbidden, "GET", "/v1/users", "")
	}
	c.local().expect(http.StatusNoContent, "DELETE", "/v1/users/bob", "")
	c.as(nil, nil, token).expect(http.StatusUnauthorized, "GET", "/v1/services", "", "the token is wrong, or was removed")
	byCert := c.as(chain, key, "")
	byCert.expect(http.StatusForbidden, "GET", "/v1/services", "", "was removed from the swarm")
}

// TestSameNameAgain: what a user that was removed had is none of another one's who is called the same, not even of one with a higher
// role a moment later. Nor is a name worth anything in a certificate.
func TestSameNameAgain(t *testing.T) {
	c := form(t)
	if _, _, err := c.user("temp", v1.UserView); err != nil {
		t.Fatal(err)
	}
	key, csr := c.request()
	first, err := c.client.UserCertificate(c.ctx, "temp", csr)
	if err != nil {
		t.Fatal(err)
	}
	earlier := c.as(first.Chain, key, "")
	earlier.expect(http.StatusOK, "GET", "/v1/services", "")
	c.local().expect(http.StatusNoContent, "DELETE", "/v1/users/temp", "")
	if _, _, err := c.user("temp", v1.UserAdmin); err != nil {
		t.Fatal(err)
	}
	earlier.expect(http.StatusForbidden, "GET", "/v1/services", "", "was removed from the swarm")
	byName, byNameKey := c.certificate(c.cert, c.key, ca.Subject{ID: "temp", Role: ca.RoleUser, Cluster: clusterID}, time.Now())
	c.as(byName, byNameKey, "").expect(http.StatusForbidden, "GET", "/v1/services", "", "was removed from the swarm")
	fresh, freshKey := c.certify("temp", ca.RoleUser)
	c.as(fresh, freshKey, "").expect(http.StatusOK, "GET", "/v1/users", "")
}
