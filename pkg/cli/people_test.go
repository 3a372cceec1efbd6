package cli_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/cli"
	"github.com/swarmd/swarmd/pkg/store"
)

// person is somebody with a home of their own, who is asked questions.
type person struct {
	t       *testing.T
	config  string
	answers map[string]string // by the end of the question; no answers at all is no terminal
	asked   []string
}

func newPerson(t *testing.T) *person {
	return &person{t: t, config: filepath.Join(t.TempDir(), "config.yaml")}
}

func (p *person) run(in string, args ...string) (code int, stdout, stderr string) {
	p.t.Helper()
	var out, errs strings.Builder
	o := cli.Options{In: strings.NewReader(in), Out: &out, Err: &errs, Getenv: func(name string) string {
		return map[string]string{cli.ConfigEnv: p.config}[name]
	}}
	if p.answers != nil {
		o.Ask = func(question string, secret bool) (string, error) {
			p.asked = append(p.asked, fmt.Sprintf("%t %s", secret, question))
			for end, answer := range p.answers {
				if strings.HasSuffix(question, end) {
					return answer, nil
				}
			}
			return "", errors.New("nobody knows")
		}
	}
	code = cli.Run(p.t.Context(), o, args)
	return code, out.String(), errs.String()
}

// newToken makes a user with a token.
func newToken(t *testing.T, s *swarm, name, role string) string {
	t.Helper()
	code, token, stderr := run(t, s.host(), "user", "create", "-q", "--role", role, name)
	if code != 0 {
		t.Fatal(stderr)
	}
	return strings.TrimSpace(token)
}

// TestLoginAsks: who has no digest is shown it, and nothing happens without a yes.
func TestLoginAsks(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	token := newToken(t, s, "alice", "view")
	_, digest, _ := run(t, s.host(), "swarm", "ca", "--digest")
	p := newPerson(t)
	p.answers = map[string]string{"(yes/no)? ": "no", "Token: ": token}
	code, _, stderr := p.run("", "login", s.door)
	if code != 1 || !strings.Contains(stderr, "login aborted") || len(p.asked) != 1 || !strings.Contains(p.asked[0], strings.TrimSpace(digest)) {
		t.Fatalf("status %d, %s, asked %q", code, stderr, p.asked)
	}
	if _, err := os.Stat(p.config); err == nil {
		t.Fatal("something was kept")
	}
	p.answers["(yes/no)? "], p.asked = "yes", nil
	code, stdout, stderr := p.run("", "login", s.door)
	if code != 0 || !strings.Contains(stdout, "Login Succeeded") || strings.Contains(stdout+stderr, token) {
		t.Fatalf("status %d, %s%s", code, stdout, stderr)
	}
	if len(p.asked) != 2 || p.asked[1] != "true Token: " {
		t.Errorf("asked %q", p.asked)
	}
	if code, stdout, stderr := p.run("", "node", "ls"); code != 0 || !strings.Contains(stdout, "manager1") {
		t.Errorf("status %d, %s%s", code, stdout, stderr)
	}
	// A wrong token is found before anything is kept.
	other := newPerson(t)
	other.answers = map[string]string{"(yes/no)? ": "yes", "Token: ": token[:len(token)-1] + "0"}
	if token[len(token)-1] == '0' {
		other.answers["Token: "] = token[:len(token)-1] + "1"
	}
	if code, _, stderr := other.run("", "login", s.door); code != 1 || !strings.HasPrefix(stderr, "Error") {
		t.Errorf("status %d, %s", code, stderr)
	}
	if _, err := os.Stat(other.config); err == nil {
		t.Error("a token that nobody knows was kept")
	}
}

// TestContextSwitches: a context finds the swarm by another manager when the one that it was told of is gone, and remembers.
func TestContextSwitches(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	token := newToken(t, s, "alice", "view")
	// The manager that the user knows goes away later.
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, away := context.WithCancel(t.Context())
	context.AfterFunc(ctx, func() { front.Close() })
	go relay(ctx, front, s.door)
	p := newPerson(t)
	_, digest, _ := run(t, s.host(), "swarm", "ca", "--digest")
	if code, _, stderr := p.run(token, "login", "--name", "prod", "--ca-digest", strings.TrimSpace(digest), front.Addr().String()); code != 0 {
		t.Fatal(stderr)
	}
	away()
	for conn, err := net.Dial("tcp", front.Addr().String()); err == nil; conn, err = net.Dial("tcp", front.Addr().String()) {
		conn.Close() // until the listener is closed
	}
	for range 2 {
		if code, stdout, stderr := p.run("", "node", "ls"); code != 0 || !strings.Contains(stdout, "manager1") {
			t.Fatalf("status %d, %s%s", code, stdout, stderr)
		}
	}
	_, stdout, _ := p.run("", "context", "ls", "--format", "{{.Name}} {{.Hosts}}")
	if want := "prod " + s.door + "," + front.Addr().String() + "\n"; !strings.HasSuffix(stdout, want) {
		t.Errorf("hosts are now\n%swant\n%s", stdout, want)
	}
	// Managers that come later are learnt, and what was given stays.
	if _, err := s.store.Commit(t.Context(), store.Commit{Ops: []store.Op{memberOp(v1.HashID("manager2"), "10.9.9.9:2377", false, false)}}); err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	late := func() time.Time { return time.Now().Add(time.Hour) }
	code := cli.Run(t.Context(), cli.Options{In: strings.NewReader(""), Out: &out, Err: &errs, Now: late, Getenv: func(name string) string {
		return map[string]string{cli.ConfigEnv: p.config}[name]
	}}, []string{"node", "ls"})
	if code != 0 {
		t.Fatal(errs.String())
	}
	_, stdout, _ = p.run("", "context", "show")
	if want := s.door + ", " + front.Addr().String() + ", 10.9.9.9:2377"; !strings.Contains(stdout, want) {
		t.Errorf("hosts are now\n%swant %s", stdout, want)
	}
}

// relay passes connections on until ctx ends.
func relay(ctx context.Context, from net.Listener, to string) {
	for {
		in, err := from.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			in.Close()
			continue
		}
		context.AfterFunc(ctx, func() { in.Close(); out.Close() })
		go func() { io.Copy(out, in); out.Close() }()
		go func() { io.Copy(in, out); in.Close() }()
	}
}

// TestUnlock: the key is asked for without being shown, or read from standard input.
func TestUnlock(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		s := newSwarm(t)
		s.lock = "SWMKEY-1-right"
		for key, want := range map[string]string{"SWMKEY-1-wrong": "Error response from daemon: invalid key\n", "": "Error: no unlock key was given"} {
			if code, _, stderr := unlock(t, s, terminal, key); code != 1 || !strings.HasPrefix(stderr, want) || strings.Contains(stderr, "SWMKEY") {
				t.Errorf("%q: status %d, %s", key, code, stderr)
			}
		}
		if code, stdout, stderr := unlock(t, s, terminal, " SWMKEY-1-right\n"); code != 0 || stdout+stderr != "" || s.asked.key != "SWMKEY-1-right" {
			t.Errorf("status %d, %s%s, key %q", code, stdout, stderr, s.asked.key)
		}
	}
}

func unlock(t *testing.T, s *swarm, terminal bool, key string) (int, string, string) {
	t.Helper()
	var out, errs strings.Builder
	o := cli.Options{In: strings.NewReader(key), Out: &out, Err: &errs, Getenv: func(string) string { return s.host() }}
	if terminal {
		o.In = strings.NewReader("")
		o.Ask = func(question string, secret bool) (string, error) {
			if question != "Enter unlock key: " || !secret {
				t.Errorf("asked %q, secret %t", question, secret)
			}
			return key, nil
		}
	}
	code := cli.Run(t.Context(), o, []string{"swarm", "unlock"})
	return code, out.String(), errs.String()
}

// TestRequests: what the flags say is what the daemon is asked for.
func TestRequests(t *testing.T) {
	s := newSwarm(t)
	if code, _, stderr := run(t, s.host(), "swarm", "join", "--token", "manager", "--listen-addr", "eth1", "--advertise-addr", "eth0:2378",
		"--data-path-addr", "10.1.1.1", "--availability", "Drain", "10.0.0.1:2377"); code != 0 {
		t.Fatal(stderr)
	}
	join := v1.JoinRequest{RemoteAddrs: []string{"10.0.0.1:2377"}, Token: "manager", ListenAddr: "eth1:2377", AdvertiseAddr: "eth0:2378",
		DataPathAddr: "10.1.1.1", Availability: v1.AvailabilityDrain}
	if got := fmt.Sprintf("%+v", s.asked.join); got != fmt.Sprintf("%+v", join) {
		t.Errorf("got  %s\nwant %+v", got, join)
	}
	if code, _, stderr := run(t, s.host(), "swarm", "init", "--force-new-cluster", "--data-path-port", "7777",
		"--default-addr-pool", "10.20.3.4/16", "--default-addr-pool-mask-length", "26"); code != 0 {
		t.Fatal(stderr)
	}
	init := v1.InitRequest{DataPathPort: 7777, ForceNewCluster: true, DefaultAddrPool: []string{"10.20.0.0/16"}, SubnetSize: 26}
	if got := fmt.Sprintf("%+v", s.asked.init); got != fmt.Sprintf("%+v", init) {
		t.Errorf("got  %s\nwant %+v", got, init)
	}
	var out, errs strings.Builder
	code := cli.Run(t.Context(), cli.Options{In: strings.NewReader("archive"), Out: &out, Err: &errs, Getenv: func(string) string { return s.host() }},
		[]string{"swarm", "restore", "--advertise-addr", "10.0.0.9", "--listen-addr", ":2399", "-"})
	if code != 0 || s.asked.archive != "archive" || s.asked.restore.AdvertiseAddr != "10.0.0.9" || s.asked.restore.ListenAddr != "0.0.0.0:2399" {
		t.Errorf("status %d, %s, asked %+v %q", code, errs.String(), s.asked.restore, s.asked.archive)
	}
	terminal := cli.Options{In: strings.NewReader(""), Out: &out, Err: &errs, Terminal: func() int { return 80 }, Getenv: func(string) string { return s.host() }}
	if code := cli.Run(t.Context(), terminal, []string{"swarm", "backup", "-"}); code != 1 || !strings.Contains(errs.String(), "nothing for a terminal") {
		t.Errorf("status %d, %s", code, errs.String())
	}
}

// TestRotate moves every node to another root, and then waits for one that is not there.
func TestRotate(t *testing.T) {
	s := newSwarm(t)
	s.start(2)
	_, before, _ := run(t, s.host(), "swarm", "ca", "--digest")
	code, stdout, stderr := run(t, s.host(), "swarm", "ca", "--rotate", "--digest")
	if code != 0 {
		t.Fatalf("status %d, %s%s", code, stdout, stderr)
	}
	_, after, _ := run(t, s.host(), "swarm", "ca", "--digest")
	for _, want := range []string{"desired root digest: " + after, "  rotated TLS certificates: 2/2 nodes\n", "  rotated CA certificates: 2/2 nodes\n"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if before == after || !strings.HasSuffix(stdout, "\n"+after) {
		t.Errorf("before %s after %s", before, after)
	}
	// A node that never comes.
	if _, err := s.store.Commit(t.Context(), store.Commit{Ops: []store.Op{{Kind: v1.KindNode, ID: v1.HashID("ghost"),
		Value: &v1.NodeSpec{Role: v1.RoleWorker, Index: 77}, Meta: &v1.Meta{Name: "ghost"}, If: store.Absent()}}}); err != nil {
		t.Fatal(err)
	}
	code, text := follow(t, s, func(text string) bool {
		return strings.Contains(text, "  waiting for: ghost") && strings.Contains(text, "2/3 nodes")
	},
		"swarm", "ca", "--rotate")
	if code != 130 || !strings.Contains(text, "swarmctl node rm --force") || !strings.Contains(text, "Operation continuing in background.") {
		t.Errorf("status %d\n%s", code, text)
	}
	if code, _, stderr := run(t, s.host(), "node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}"); code != 0 {
		t.Error(stderr)
	}
	if code, _, stderr := run(t, s.host(), "swarm", "ca", "--rotate", "--detach", "--cert-expiry", "2h"); code != 0 {
		t.Error(stderr)
	}
	if _, stdout, _ := run(t, s.host(), "get", "cluster", "default", "-o", "go-template={{.spec.nodeCertExpiry}}"); stdout != "2h0m0s\n" {
		t.Errorf("expiry %s", stdout)
	}
}

// TestWaitsThroughTrouble: managers that answer 503 for a while, as those do that restart, end no waiting; a refusal does.
func TestWaitsThroughTrouble(t *testing.T) {
	s := newSwarm(t)
	s.start(2)
	var requests, refusing atomic.Int64
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "swarmd"}) },
		Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", s.socket) }},
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := int(refusing.Load())
		if r.Method != http.MethodGet || status == 0 && requests.Add(1)%8 < 4 { // four in a row, and then four not
			proxy.ServeHTTP(w, r)
			return
		}
		if status == 0 {
			status = http.StatusServiceUnavailable
		}
		http.Error(w, "not now", status)
	}))
	defer front.Close()
	if code, stdout, stderr := run(t, front.URL, "swarm", "ca", "--rotate"); code != 0 || !strings.Contains(stdout, "BEGIN CERTIFICATE") {
		t.Errorf("status %d, %s%s", code, stdout, stderr)
	}
	refusing.Store(http.StatusForbidden)
	if code, _, stderr := run(t, front.URL, "swarm", "ca", "--rotate"); code != 1 || stderr != "Error response from daemon: not now\n" {
		t.Errorf("status %d, %s", code, stderr)
	}
	refusing.Store(0)
	requests.Store(2) // the node itself is found, and then the trouble begins
	if code, stdout, stderr := run(t, front.URL, "node", "update", "--availability", "drain", "--wait", v1.HashID("worker1")); code != 0 ||
		!strings.Contains(stdout, "verify: Node worker1 is empty") {
		t.Errorf("status %d, %s%s", code, stdout, stderr)
	}
}
