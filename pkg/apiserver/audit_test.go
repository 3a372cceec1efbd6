package apiserver_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
)

// audited is a swarm with an audit log, and where that is.
func audited(t *testing.T) (c *cluster, file string) {
	file = filepath.Join(t.TempDir(), "audit.log")
	return form(t, func(o *apiserver.Options) { o.AuditFile = file }), file
}

// records are the newest of the log, over the API.
func (c *cluster) records(query string) []v1.AuditRecord {
	c.Helper()
	var log v1.AuditLog
	if err := json.Unmarshal([]byte(c.local().expect(http.StatusOK, "GET", "/v1/audit"+query, "").body), &log); err != nil {
		c.Fatal(err)
	}
	return log.Items
}

// recordsOf waits until there are so many records, which are written once a request was answered.
func (c *cluster) recordsOf(many int) []v1.AuditRecord {
	c.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		got := c.records("?limit=1000")
		if len(got) == many {
			return got
		}
		if len(got) > many || time.Now().After(end) {
			c.Fatalf("%d records, want %d: %+v", len(got), many, got)
		}
	}
}

// TestAudit: every write is told of, with who and what, and never with what was sent; so are reads that tell secrets.
func TestAudit(t *testing.T) {
	c, file := audited(t)
	if _, _, err := c.user("otto", v1.UserOperate); err != nil {
		t.Fatal(err)
	}
	token, err := c.token("otto")
	if err != nil {
		t.Fatal(err)
	}
	otto := c.as(nil, nil, token)
	const sealed = "bm90IGZvciB0aGUgbG9n" // data of a secret
	const secret = `{"apiVersion":"swarm/v1","kind":"Secret","metadata":{"name":"db"},"spec":{"data":"` + sealed + `"}}`
	otto.expect(http.StatusCreated, "POST", "/v1/secrets", secret)
	otto.expect(http.StatusForbidden, "DELETE", "/v1/nodes/w1?force=true", "")
	otto.expect(http.StatusOK, "GET", "/v1/secrets", "")
	_, csr := c.request()
	c.as(nil, nil, "").expect(http.StatusForbidden, "POST", "/v1/nodes/join", admission(c.joinToken(strings.Repeat("0", 25)), csr))
	c.as(nil, nil, "").expect(http.StatusCreated, "POST", "/v1/nodes/join", admission(c.joinToken(workerSecret), csr))
	c.as(nil, nil, "").expect(http.StatusUnauthorized, "POST", "/v1/services", "")
	worker := c.node("w1", ca.RoleWorker)
	worker.expect(http.StatusOK, "POST", "/v1/nodes/w1/status", `{"tasks":[]}`)
	worker.expect(http.StatusNoContent, "POST", "/v1/nodes/w1/leave", "")
	c.local().expect(http.StatusOK, "GET", "/v1/swarm/join-tokens", "")
	c.local().expect(http.StatusNoContent, "DELETE", "/v1/secrets/db", "")
	c.local().expect(http.StatusBadRequest, "POST", "/v1/secrets?dryRun=nonsense", secret)

	type line struct {
		who, what, id string
		status        int
		revision      bool
	}
	var got []line
	for _, r := range c.records("") {
		who := strings.TrimRight(r.Who.Kind+" "+r.Who.Name+" "+r.Who.Role, " ")
		got = append(got, line{who, r.Method + " " + r.Path, string(r.Kind) + " " + r.Name, r.Status, r.Revision > 0})
		if over := r.Who.Kind != "root"; over != (r.From == "127.0.0.1") {
			t.Errorf("%+v: from %q", r, r.From)
		}
		if (r.Status >= 400) != (r.Error != "") || r.Time.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	want := []line{
		{"root", "POST /v1/users", "User otto", 201, true},
		{"root", "POST /v1/users/otto/tokens", "User otto", 201, true},
		{"user otto operate", "POST /v1/secrets", "Secret db", 201, true},
		{"user otto operate", "DELETE /v1/nodes/w1", " ", 403, false},
		{"", "POST /v1/nodes/join", " ", 403, false},
		{"", "POST /v1/nodes/join", "Node ", 201, true},
		{"node w1 worker", "POST /v1/nodes/w1/leave", " ", 204, false},
		{"root", "GET /v1/swarm/join-tokens", " ", 200, false},
		{"root", "DELETE /v1/secrets/db", "Secret ", 204, true},
		{"root", "POST /v1/secrets", " ", 400, false},
	}
	if len(got) < len(want) {
		t.Fatalf("%d records: %+v", len(got), got)
	}
	for i, w := range want {
		if got[i] != w {
			t.Errorf("record %d: %+v, want %+v", i, got[i], w)
		}
	}
	// The reading of the log is told of as well.
	if again := c.records(""); len(again) != len(want)+1 || again[len(want)].Path != "/v1/audit" {
		t.Errorf("%+v", again)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{sealed, token, workerSecret, managerSecret, string(c.key)[40:80]} {
		if strings.Contains(string(raw), text) {
			t.Errorf("the log shows %q", text)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestAuditPages: the newest of the log, from a time on.
func TestAuditPages(t *testing.T) {
	now := new(clock)
	file := filepath.Join(t.TempDir(), "audit.log")
	c := form(t, now.option, func(o *apiserver.Options) { o.AuditFile = file })
	for range 5 {
		c.local().expect(http.StatusNotFound, "DELETE", "/v1/services/nothing", "")
	}
	middle := now.now()
	now.advance(3600 * 1e9)
	c.local().expect(http.StatusNotFound, "DELETE", "/v1/services/last", "")
	if got := c.records("?limit=2"); len(got) != 2 || got[1].Path != "/v1/services/last" || got[0].Path != "/v1/services/nothing" {
		t.Errorf("%+v", got)
	}
	if got := c.records("?since=" + middle.Add(1e9).UTC().Format("2006-01-02T15:04:05Z")); len(got) != 2 { // the last, and the reading above
		t.Errorf("%+v", got)
	}
	for _, query := range []string{"?limit=0", "?limit=x", "?since=yesterday", "?after=1"} {
		c.local().expect(http.StatusBadRequest, "GET", "/v1/audit"+query, "")
	}
	serve(t).do("GET", "/v1/audit", "")
	if got := serve(t).do("GET", "/v1/audit", ""); got.code != http.StatusNotFound {
		t.Errorf("without a log: %d %s", got.code, got.body)
	}
}

// TestAuditThatCannotBeWritten: the swarm goes on, and the gap is counted.
func TestAuditThatCannotBeWritten(t *testing.T) {
	c := form(t, func(o *apiserver.Options) {
		o.AuditFile = filepath.Join(t.TempDir(), "no", "such", "folder", "audit.log")
	})
	if _, _, err := c.user("ada", v1.UserAdmin); err != nil {
		t.Fatal(err)
	}
	c.local().expect(http.StatusOK, "GET", "/metrics", "", "\napiserver_audit_errors_total 1\n")
}

// TestRefusedDoNotFloodTheAudit: of one caller that may not, only so many requests are told of. The others are counted.
func TestRefusedDoNotFloodTheAudit(t *testing.T) {
	c, _ := audited(t)
	worker := c.node("w1", ca.RoleWorker)
	for range 70 {
		worker.expect(http.StatusForbidden, "DELETE", "/v1/services/web", "")
	}
	c.node("w2", ca.RoleWorker).expect(http.StatusForbidden, "DELETE", "/v1/services/web", "")
	got := c.records("?limit=1000")
	if len(got) != 11 || got[10].Who.Name != "w2" || got[0].Who.Name != "w1" {
		t.Errorf("%d records", len(got))
	}
}

// TestStrangersDoNotFloodTheAudit: whoever is not let in has a few lines with all others, and a count each minute; who is let in has a
// line in any case. A node's own requests that fail are counted as well, and so are those that do not.
func TestStrangersDoNotFloodTheAudit(t *testing.T) {
	now := new(clock)
	file := filepath.Join(t.TempDir(), "audit.log")
	c := form(t, now.option, func(o *apiserver.Options) { o.AuditFile = file })
	_, csr := c.request()
	for i := range 30 {
		c.from("127.0.0."+strconv.Itoa(2+i%3)).expect(http.StatusBadRequest, "POST", "/v1/nodes/join", admission("nonsense", csr))
	}
	c.from("127.0.0.2").expect(http.StatusCreated, "POST", "/v1/nodes/join", admission(c.joinToken(workerSecret), csr))
	worker := c.node("w1", ca.RoleWorker)
	for range 25 {
		worker.expect(http.StatusBadRequest, "POST", "/v1/nodes/w1/certificate", `{"csr":"AAAA"}`)
	}
	body, err := json.Marshal(v1.CertificateRequest{CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	for range 65 {
		worker.expect(http.StatusOK, "POST", "/v1/nodes/w1/certificate", string(body))
	}
	got := c.recordsOf(10 + 1 + 10 + 60)
	if !slices.ContainsFunc(got, func(r v1.AuditRecord) bool { return r.Status == http.StatusCreated && r.From == "127.0.0.2" }) {
		t.Errorf("nobody joined: %+v", got)
	}
	now.advance(time.Minute)
	c.from("127.0.0.9").expect(http.StatusBadRequest, "POST", "/v1/nodes/join", admission("nonsense", csr))
	counted := make(map[string]v1.AuditRecord)
	got = c.recordsOf(81 + 1 + 3 + 1) // the look at the audit itself, and what was only counted
	for _, r := range got[81:] {
		counted[r.Error] = r
	}
	if r := counted["and 20 more refused from 3 addresses"]; r.Who.Kind != "" || r.Path != "/v1/nodes/join" || r.Status != 400 || r.From != "" {
		t.Errorf("of strangers: %+v", counted)
	}
	if r := counted["and 15 more refused"]; r.Who.Name != "w1" || r.From != "127.0.0.1" {
		t.Errorf("of the node: %+v", counted)
	}
	if r := counted["and 5 more like it"]; r.Who.Name != "w1" || r.Status != http.StatusOK {
		t.Errorf("of the node: %+v", counted)
	}
	if !slices.ContainsFunc(got[81:], func(r v1.AuditRecord) bool { return r.From == "127.0.0.9" }) {
		t.Errorf("in a new minute the next is not told: %+v", got[81:])
	}
}

// TestAuditCountsAtTheEnd: what was only counted is told when the daemon stops.
func TestAuditCountsAtTheEnd(t *testing.T) {
	c, file := audited(t)
	for range 13 {
		c.as(nil, nil, "").expect(http.StatusBadRequest, "POST", "/v1/nodes/join", "{}")
	}
	c.server.Close()
	raw, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(raw), `"and 3 more refused"`) {
		t.Errorf("%s, %v", raw, err)
	}
}

// TestNoAuditWithoutASwarm: what was refused on a machine in no swarm leaves nothing behind.
func TestNoAuditWithoutASwarm(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.log")
	f := serve(t, func(o *apiserver.Options) { o.Store, o.Host, o.AuditFile = nil, new(idleHost), file })
	if got := f.do("POST", "/v1/swarm/join", "{}"); got.code != http.StatusConflict {
		t.Fatalf("%d %s", got.code, got.body)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the log is there: %v", err)
	}
}
