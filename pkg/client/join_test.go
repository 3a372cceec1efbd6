package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

// tells is a manager that tells these roots.
func tells(roots ...[]byte) http.HandlerFunc {
	var all []byte
	for _, r := range roots {
		all = append(all, r...)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/swarm/roots" || r.Method != http.MethodGet || len(r.TLS.PeerCertificates) != 0 || r.Header.Get("Authorization") != "" {
			http.Error(w, "who are you?", http.StatusTeapot)
			return
		}
		json.NewEncoder(w).Encode(v1.Certificate{Roots: all})
	}
}

func TestFetchRoots(t *testing.T) {
	s, next := newSwarm(t), newSwarm(t)
	_, one := s.manager(tells(s.cert))
	_, rotating := s.manager(tells(next.cert, s.cert))
	digest := ca.Digest(s.cert)
	for _, addr := range []string{one, rotating} {
		for _, want := range []string{digest, ""} { // without a digest it is the root of the manager's certificate
			got, err := FetchRoots(t.Context(), addr, want)
			if err != nil || string(got) != string(s.cert) {
				t.Errorf("%s for %q: %v %s", addr, want, err, got)
			}
		}
	}
	if got, err := FetchRoots(t.Context(), rotating, ca.Digest(next.cert)); err != nil || string(got) != string(next.cert) {
		t.Errorf("%v %s", err, got)
	}
}

// TestFetchRootsFails: each reason has words of its own, and no roots are returned.
func TestFetchRootsFails(t *testing.T) {
	s, other := newSwarm(t), newSwarm(t)
	digest := ca.Digest(s.cert)
	serve := func(h http.HandlerFunc) string {
		_, addr := s.manager(h)
		return addr
	}
	body := func(text string) string {
		return serve(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
	}
	at := func(skew time.Duration) string {
		return serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
			tells(s.cert)(w, r)
		})
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	_, old := s.serve(&tls.Config{MaxVersion: tls.VersionTLS12}, tells(s.cert))
	_, mine := s.serve(&tls.Config{}, tells(other.cert)) // httptest's own certificate
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	noManager := "is not the address of a swarm manager: "
	for _, c := range []struct{ addr, digest, want string }{
		{serve(tells(other.cert)), digest, "remote CA does not match fingerprint. Expected: " + digest},
		{serve(tells(s.cert)), "x", "remote CA does not match fingerprint. Expected: x"},
		{serve(tells(other.cert)), "", "signed by none of the roots"}, {mine, "", "signed by none of the roots"},
		{nobody(t), digest, "(connection refused). Is the swarmd daemon running?"},
		{plain.Listener.Addr().String(), digest, noManager + "it does not speak TLS ("},
		{old, digest, noManager + "it does not speak TLS 1.3"},
		{serve(http.NotFound), digest, noManager + "it answers 404 Not Found"},
		{body("hello"), digest, noManager + "it answers without a root"}, {body("{}"), digest, noManager + "it answers without a root"},
		{body(string(s.cert)), digest, noManager + "it answers without a root"},
		{serve(tells([]byte(strings.Repeat("x", maxRoots)))), digest, "no root certificate"},
		{serve(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "locked", http.StatusServiceUnavailable) }), digest, "locked"},
		{serve(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), digest, noManager},
		{at(2 * time.Hour), digest, "the clocks of this machine and of the manager"}, {at(-2 * time.Hour), digest, "set the one that is wrong"},
		{"unix:///run/x.sock", digest, "want host:port"}, {"a b", digest, "host:port"},
	} {
		got, err := FetchRoots(t.Context(), c.addr, c.digest)
		if refused(t, err, c.want); got != nil {
			t.Errorf("%s: roots beside the error %v", c.addr, err)
		}
		if away := new(ConnectError); strings.Contains(c.want, "refused") != errors.As(err, &away) {
			t.Errorf("%T for %s", err, c.want)
		}
	}
	if _, err := FetchRoots(t.Context(), at(40*time.Minute), digest); err != nil {
		t.Errorf("a clock that is a little off: %v", err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		if c, err := mute.Accept(); err == nil {
			defer c.Close()
			io.ReadFull(c, make([]byte, 1))
			cancel(why) // it has connected, and waits
			io.Copy(io.Discard, c)
		}
	}()
	if _, err := FetchRoots(ctx, mute.Addr().String(), digest); !errors.Is(err, why) {
		t.Errorf("%v, want the context's cause", err)
	}
}

func TestAdmit(t *testing.T) {
	s, other := newSwarm(t), newSwarm(t)
	_, addr := s.manager(func(w http.ResponseWriter, r *http.Request) {
		var in v1.AdmissionRequest
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.URL.Path != "/v1/nodes/join" || r.Method != http.MethodPost {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		if in.Token != "right" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"title":"Forbidden","detail":"invalid join token"}`)
			return
		}
		json.NewEncoder(w).Encode(v1.Admission{NodeID: "n1", Role: v1.RoleWorker, Certificate: v1.Certificate{Chain: in.CSR, Roots: s.cert}})
	})
	got, err := Admit(t.Context(), addr, s.cert, v1.AdmissionRequest{Token: "right", CSR: []byte("csr")})
	if err != nil || got.NodeID != "n1" || got.Role != v1.RoleWorker || string(got.Chain) != "csr" || string(got.Roots) != string(s.cert) {
		t.Errorf("%v %+v", err, got)
	}
	_, err = Admit(t.Context(), addr, s.cert, v1.AdmissionRequest{Token: "wrong"})
	if p := new(v1.Problem); !errors.As(err, &p) || p.Status != http.StatusForbidden || p.Detail != "invalid join token" {
		t.Errorf("%v", err)
	}
	for want, c := range map[string]struct {
		addr  string
		roots []byte
	}{
		"signed by no root": {addr, other.cert}, "roots holds no certificate": {addr, nil}, "connection refused": {nobody(t), s.cert},
	} {
		_, err := Admit(t.Context(), c.addr, c.roots, v1.AdmissionRequest{Token: "right"})
		refused(t, err, want)
	}
	// A clock that is far off is told as that, whichever side's it is.
	_, early := s.serve(s.identityAt("m1", ca.RoleManager, time.Now().Add(5*time.Hour)).ServerTLS(), nil)
	_, err = Admit(t.Context(), early, s.cert, v1.AdmissionRequest{Token: "right"})
	refused(t, err, "is not valid until")
	refused(t, err, "is this machine's clock right?")
}
