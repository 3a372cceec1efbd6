package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

// outsideCA is a CA that speaks cfssl's protocol, and the root certificate that it signs with.
func outsideCA(t *testing.T) (url string, root []byte) {
	t.Helper()
	root, key, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ca.NewSigner(root, key, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var asked struct {
			Request string `json:"certificate_request"`
			Subject struct {
				CN    string
				Names []struct{ OU, O string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || len(asked.Subject.Names) != 1 {
			http.Error(w, "what?", http.StatusBadRequest)
			return
		}
		name := asked.Subject.Names[0]
		chain, err := signer.Sign(r.Context(), []byte(asked.Request), ca.Subject{ID: asked.Subject.CN, Role: ca.Role(name.OU), Cluster: name.O}, 24*time.Hour)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "result": map[string]string{"certificate": string(chain)}})
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{serverCertificate(t, root, key)}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL + "/api/v1/cfssl/sign", root
}

// serverCertificate is one for 127.0.0.1, of the root.
func serverCertificate(t *testing.T, root, rootKey []byte) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(root, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	block, _ := pem.Decode(root)
	parent, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestExternalCA has a swarm whose root's key is not the swarm's.
func TestExternalCA(t *testing.T) {
	url, root := outsideCA(t)
	a, b, c := newHost(t, "a"), newHost(t, "b"), newHost(t, "c")
	r := a.initRequest()
	r.Spec = &v1.ClusterSpec{ExternalCAs: []v1.ExternalCA{{Protocol: "cfssl", URL: url, CACert: string(root)}}}
	ia, err := a.client.Init(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.authority().Spec.CA; len(got.Key) > 0 || string(got.Cert) != string(root) {
		t.Errorf("the swarm's CA has a key: %t", len(got.Key) > 0)
	}
	ib, ic := b.join(a.tokens().Worker, a), c.join(a.tokens().Manager, a)
	a.voters(ia, ic)
	a.ready(ia, ib, ic)
	if err := c.setRole(ib, v1.RoleManager); err != nil {
		t.Fatal(err)
	}
	b.is(v1.LocalNodeActive, true)
	a.voters(ia, ib, ic)
}

// TestExternalCAAway leaves no swarm behind.
func TestExternalCAAway(t *testing.T) {
	_, root := outsideCA(t)
	a := newHost(t, "a")
	r := a.initRequest()
	r.Spec = &v1.ClusterSpec{ExternalCAs: []v1.ExternalCA{{Protocol: "cfssl", URL: "https://" + freeAddr(t) + "/sign", CACert: string(root)}}}
	if _, err := a.client.Init(t.Context(), r); err == nil {
		t.Error("a swarm without anybody to sign its first certificate was made")
	}
	a.is(v1.LocalNodeInactive, false)
	if left := a.files(); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}
