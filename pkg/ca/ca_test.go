package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

// root is a root for tests.
type root struct{ cert, key []byte }

func newRoot(t testing.TB) root {
	t.Helper()
	cert, key, err := NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return root{cert, key}
}

// sign has the root sign a certificate as if it were then.
func (r root) sign(t testing.TB, s Subject, then time.Time, expiry time.Duration, cross ...byte) (chain, key []byte) {
	t.Helper()
	signer, err := NewSigner(r.cert, r.key, cross, func() time.Time { return then })
	if err != nil {
		t.Fatal(err)
	}
	key = newKey(t)
	chain, err = signer.Sign(t.Context(), newRequest(t, key), s, expiry)
	if err != nil {
		t.Fatal(err)
	}
	return chain, key
}

// identity is one of the root's that is good now and trusts the roots.
func (r root) identity(t testing.TB, s Subject, roots []byte, cross ...byte) *Identity {
	t.Helper()
	chain, key := r.sign(t, s, time.Now(), 2*time.Hour, cross...)
	return identity(t, chain, key, roots)
}

func identity(t testing.TB, chain, key, roots []byte) *Identity {
	t.Helper()
	i, err := NewIdentity(chain, key, roots)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func newKey(t testing.TB) []byte {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRequest(t testing.TB, key []byte) []byte {
	t.Helper()
	csr, err := NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func crossSign(t testing.TB, old, next root) []byte {
	t.Helper()
	cross, err := CrossSign(old.cert, old.key, next.cert, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return cross
}

func parse(t testing.TB, certPEM []byte) *x509.Certificate {
	t.Helper()
	certs, err := parseCertificates(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

func manager(id string) Subject { return Subject{ID: id, Role: RoleManager, Cluster: "c1"} }
func worker(id string) Subject  { return Subject{ID: id, Role: RoleWorker, Cluster: "c1"} }

func join(pems ...[]byte) []byte {
	var all []byte
	for _, p := range pems {
		all = append(all, p...)
	}
	return all
}

// custom is a root whose template the test changes.
func custom(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) root {
	t.Helper()
	template := caTemplate(pkix.Name{CommonName: "custom"}, time.Now().Add(-time.Hour), time.Now().Add(5*minRootLife))
	template.SerialNumber = big.NewInt(7)
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return root{encode(typeCertificate, der), keyPEM}
}

func ecKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// weakRSA is made once: it takes a while.
var weakRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	return key
})

// refused wants an error that says something, and not what must not be said.
func refused(t testing.TB, err error, want string, not ...string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
		return
	}
	for _, n := range not {
		if strings.Contains(err.Error(), n) {
			t.Errorf("error %q tells %q", err, n)
		}
	}
}

func TestDigest(t *testing.T) {
	r := newRoot(t)
	digest := Digest(r.cert)
	if len(digest) != digestLength || !isBase36(digest, 256) {
		t.Errorf("digest %q", digest)
	}
	block, _ := pem.Decode(r.cert)
	loose := append([]byte("# a comment\n\n"), pem.EncodeToMemory(&pem.Block{Type: block.Type, Headers: map[string]string{"A": "b"}, Bytes: block.Bytes})...)
	if got := Digest(loose); got != digest {
		t.Errorf("%s of the same certificate written otherwise, want %s", got, digest)
	}
	if got := Digest(join(r.cert, newRoot(t).cert)); got != digest {
		t.Errorf("%s of two, want that of the first, %s", got, digest)
	}
	if other := Digest(newRoot(t).cert); other == digest {
		t.Error("two roots have one digest")
	}
	for _, bad := range [][]byte{nil, []byte("x"), r.key, []byte(strings.Repeat("x", maxPEM+1))} {
		if got := Digest(bad); got != "" {
			t.Errorf("%q of what is no certificate", got)
		}
	}
}

// TestDigestIsDocker: a certificate that openssl wrote, and the SHA-256 of its PEM in base 36 that another program computed.
func TestDigestIsDocker(t *testing.T) {
	const cert = `-----BEGIN CERTIFICATE-----
MIIBejCCASGgAwIBAgIUR8rQWYtIsFeFW/kvE9gWTlSdO18wCgYIKoZIzj0EAwIw
EzERMA8GA1UEAwwIc3dhcm0tY2EwHhcNMjYxMTIyMTMxNTUyWhcNNDYxMTE3MTMx
NTUyWjATMREwDwYDVQQDDAhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH
A0IABGuYz81lKZW7jrX+2XIed7V8MKFGF2wGB+Eyj5B7nRAX4TA9XRFqhnfCwJOY
OXbohT37o+mqn8uEerS1uSh7QHujUzBRMB0GA1UdDgQWBBRaYlSR4y0ommLONeq2
pUl0l9/D7zAfBgNVHSMEGDAWgBRaYlSR4y0ommLONeq2pUl0l9/D7zAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0cAMEQCIHTu+Ly6OgV6vPumR7nMZ7ZYhIC1
g5+K18m2R2asdB2mAiAFz71wlu13Kx2go+jWLYorusBhB+rjBWIll/k8FwaiDg==
-----END CERTIFICATE-----
`
	if got, want := Digest([]byte(cert)), "3hmf5q3oa0h1susdksc99vsi95lpu7hhri9hkahuanp389gncz"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if err := CheckRoot([]byte(cert), nil, time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)); err != nil {
		t.Error(err)
	}
}

func TestSigningStopsWithItsContext(t *testing.T) {
	r := newRoot(t)
	signer, err := NewSigner(r.cert, r.key, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := signer.Sign(ctx, newRequest(t, newKey(t)), worker("n1"), time.Hour); err == nil {
		t.Error("signs after its context")
	}
}
