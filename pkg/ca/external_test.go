package ca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// cfssl is a server that signs with a root as cfssl does, or answers what the test wants it to.
func cfssl(t *testing.T, r root, change func(*signRequest, *signAnswer)) *httptest.Server {
	t.Helper()
	signer, err := NewSigner(r.cert, r.key, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var in signRequest
		if err := json.NewDecoder(q.Body).Decode(&in); err != nil || q.Method != http.MethodPost {
			t.Errorf("%s: %v", q.Method, err)
		}
		out := signAnswer{Success: true}
		if change != nil {
			change(&in, &out)
		}
		if out.Result.Certificate == "" && out.Success {
			name := in.Subject.Names[0]
			chain, err := signer.Sign(q.Context(), []byte(in.Request), Subject{in.Subject.CN, Role(name.OU), name.O}, time.Hour)
			if err != nil {
				t.Error(err)
			}
			out.Result.Certificate = string(chain)
		}
		if err := json.NewEncoder(w).Encode(out); err != nil {
			t.Error(err)
		}
	}))
	server.Config.ErrorLog = nil
	t.Cleanup(server.Close)
	return server
}

// calls are the settings to reach test servers with.
func calls(servers ...*httptest.Server) *tls.Config {
	pool := x509.NewCertPool()
	for _, s := range servers {
		pool.AddCert(s.Certificate())
	}
	return &tls.Config{RootCAs: pool}
}

func TestExternal(t *testing.T) {
	old, r := newRoot(t), newRoot(t)
	cross := crossSign(t, old, r)
	var asked signRequest
	server := cfssl(t, r, func(in *signRequest, _ *signAnswer) { asked = *in })
	key := newKey(t)
	signer := NewExternal([]string{server.URL + "/api/v1/cfssl/sign"}, r.cert, cross, calls(server))
	chain, err := signer.Sign(t.Context(), newRequest(t, key), manager("n1"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if asked.Subject.CN != "n1" || !slices.Equal(asked.Subject.Names, []signName{{"swarm-manager", "c1"}}) || !slices.Equal(asked.Hosts, []string{"n1", "swarm-manager"}) {
		t.Errorf("asked for %+v", asked)
	}
	for _, roots := range [][]byte{r.cert, old.cert} { // by the cross-signed root also those trust it who know only the old one
		if i := identity(t, chain, key, roots); i.Subject() != manager("n1") {
			t.Errorf("%+v", i.Subject())
		}
	}
}

// TestExternalThatCheats: what comes back is what was asked for, or an error.
func TestExternalThatCheats(t *testing.T) {
	r, foreign := newRoot(t), newRoot(t)
	csr := newRequest(t, newKey(t))
	fixed := func(chain []byte) func(*signRequest, *signAnswer) {
		return func(_ *signRequest, out *signAnswer) { out.Result.Certificate = string(chain) }
	}
	ownKey := func(r root, s Subject) []byte { // for the key that was asked for
		signer, err := NewSigner(r.cert, r.key, nil, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := signer.Sign(t.Context(), csr, s, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	other, _ := r.sign(t, worker("n1"), time.Now(), time.Hour)
	for want, change := range map[string]func(*signRequest, *signAnswer){
		"signed another key":   fixed(other),
		"signed a certificate": fixed(ownKey(r, manager("n1"))),
		"{ID:n2":               fixed(ownKey(r, worker("n2"))),
		"Cluster:c2":           fixed(ownKey(r, Subject{"n1", RoleWorker, "c2"})),
		"is signed by no root": fixed(ownKey(foreign, worker("n1"))),
		"holds no certificate": fixed([]byte("x")),
		"larger than":          fixed([]byte(strings.Repeat("x", maxExternalAnswer))),
		`"no, since"`: func(_ *signRequest, out *signAnswer) {
			out.Success = false
			out.Errors = append(out.Errors, struct {
				Message string `json:"message"`
			}{"no, since"})
		},
		"refuses to sign: 200 OK": func(_ *signRequest, out *signAnswer) { out.Success = false },
	} {
		server := cfssl(t, r, change)
		_, err := NewExternal([]string{server.URL}, r.cert, nil, calls(server)).Sign(t.Context(), csr, worker("n1"), time.Hour)
		refused(t, err, want)
		refused(t, err, "external CA "+server.URL)
	}
}

// TestExternalServers: the next is asked where one does not do it, only https is spoken, and the server is verified.
func TestExternalServers(t *testing.T) {
	r := newRoot(t)
	csr := newRequest(t, newKey(t))
	var n atomic.Int32
	bad := cfssl(t, r, func(_ *signRequest, out *signAnswer) { n.Add(1); out.Success = false })
	good := cfssl(t, r, func(*signRequest, *signAnswer) { n.Add(1) })
	html := httptest.NewTLSServer(http.NotFoundHandler())
	defer html.Close()
	elsewhere := httptest.NewTLSServer(http.RedirectHandler(good.URL, http.StatusTemporaryRedirect))
	defer elsewhere.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	gone := httptest.NewTLSServer(http.NotFoundHandler())
	gone.Close()
	config := calls(bad, good, html, elsewhere)
	for _, first := range []string{bad.URL, html.URL, gone.URL, elsewhere.URL, plain.URL} {
		if _, err := NewExternal([]string{first, good.URL}, r.cert, nil, config).Sign(t.Context(), csr, worker("n1"), time.Hour); err != nil {
			t.Errorf("%s first: %v", first, err)
		}
	}
	if n.Load() != 6 {
		t.Errorf("%d requests were answered, want 6", n.Load())
	}
	for _, c := range []struct {
		urls   []string
		config *tls.Config
		want   string
	}{
		{nil, config, "no external CA"}, {[]string{plain.URL}, config, "want an https:// URL"}, {[]string{"https://"}, config, "want an https:// URL"},
		{[]string{"%zz"}, config, "want an https:// URL"}, {[]string{good.URL}, nil, "certificate signed by unknown authority"},
		{[]string{html.URL}, config, "404"}, {[]string{elsewhere.URL}, config, "307"},
	} {
		_, err := NewExternal(c.urls, r.cert, nil, c.config).Sign(t.Context(), csr, worker("n1"), time.Hour)
		refused(t, err, c.want)
	}
	_, err := NewExternal([]string{strings.Replace(gone.URL, "https://", "https://me:hunter2@", 1)}, r.cert, nil, config).Sign(t.Context(), csr, worker("n1"), time.Hour)
	refused(t, err, "external CA https://me:", "hunter2")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewExternal([]string{good.URL}, r.cert, nil, config).Sign(ctx, csr, worker("n1"), time.Hour); err != context.Canceled {
		t.Errorf("%v, want the context's", err)
	}
	for want, s := range map[string]Signer{
		"root certificate holds no": NewExternal([]string{good.URL}, nil, nil, config),
		"has another key":           NewExternal([]string{good.URL}, r.cert, newRoot(t).cert, config),
	} {
		_, err := s.Sign(t.Context(), csr, worker("n1"), time.Hour)
		refused(t, err, want)
	}
}

// TestExternalTLS: a manager shows its certificate to a server that asks, and the server's is checked by its name.
func TestExternalTLS(t *testing.T) {
	r := newRoot(t)
	i := r.identity(t, manager("m1"), r.cert)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Write([]byte(q.TLS.PeerCertificates[0].Subject.CommonName))
	}))
	key, err := parseKey(r.key)
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, sign(t, r, &x509.Certificate{DNSNames: []string{"ca.example.com"}}))
	pool := x509.NewCertPool()
	pool.AddCert(parse(t, r.cert))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	server.StartTLS()
	defer server.Close()
	for name, want := range map[string]string{"ca.example.com": "", "ca.example.org": "not ca.example.org"} {
		config := i.ExternalTLS()
		config.ServerName = name
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		resp, err := client.Get(server.URL)
		if want != "" {
			refused(t, err, want)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
}
