package ca

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSign(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	old, r := newRoot(t), newRoot(t)
	cross := crossSign(t, old, r)
	signer, err := NewSigner(r.cert, r.key, cross, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	for _, s := range []Subject{manager("n1"), worker("n2"), {ID: "ann.lee_2-x", Role: RoleUser, Cluster: "c1"}} {
		chain, err := signer.Sign(t.Context(), newRequest(t, key), s, 2160*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		certs, err := parseCertificates(chain)
		if err != nil || len(certs) != 2 || string(encode(typeCertificate, certs[1].Raw)) != string(cross) {
			t.Fatalf("%v: chain of %d, want the certificate and the cross-signed root", err, len(certs))
		}
		leaf := certs[0]
		if got, err := subjectOf(leaf); err != nil || got != s {
			t.Errorf("%v %+v, want %+v", err, got, s)
		}
		if !slices.Equal(leaf.DNSNames, []string{s.ID, string(s.Role)}) || leaf.IPAddresses != nil || leaf.EmailAddresses != nil || leaf.URIs != nil {
			t.Errorf("names %v", leaf.DNSNames)
		}
		if !leaf.NotBefore.Equal(now.Add(-time.Hour)) || !leaf.NotAfter.Equal(now.Add(2160*time.Hour)) || leaf.IsCA ||
			!slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) {
			t.Errorf("from %s until %s, for %v", leaf.NotBefore, leaf.NotAfter, leaf.ExtKeyUsage)
		}
	}
}

// TestRequestsSayNothing: whatever a request asks for, only its key gets into the certificate.
func TestRequestsSayNothing(t *testing.T) {
	r, key := newRoot(t), ecKey(t, elliptic.P256())
	constraints, err := asn1.Marshal(struct{ IsCA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:         pkix.Name{CommonName: "n9", OrganizationalUnit: []string{string(RoleManager)}, Organization: []string{"other"}},
		DNSNames:        []string{"swarm-manager", "evil.example.com"},
		EmailAddresses:  []string{"a@example.com"},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: constraints}},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := NewSigner(r.cert, r.key, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := signer.Sign(t.Context(), encode(typeRequest, der), worker("n1"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf := parse(t, chain)
	got, err := subjectOf(leaf)
	if err != nil || got != worker("n1") || leaf.IsCA || len(leaf.DNSNames) != 2 || len(leaf.EmailAddresses) != 0 || !samePublic(leaf.PublicKey, key.Public()) {
		t.Errorf("%v: %+v with the names %v %v, CA %v", err, got, leaf.DNSNames, leaf.EmailAddresses, leaf.IsCA)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	r := newRoot(t)
	signer, err := NewSigner(r.cert, r.key, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	good := newRequest(t, newKey(t))
	block, _ := pem.Decode(good)
	forged := slices.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1
	weak := func(key any) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return encode(typeRequest, der)
	}
	for want, csr := range map[string][]byte{
		"no certificate request in PEM": []byte("x"), "not signed with its own key": encode(typeRequest, forged),
		"cannot be read": encode(typeRequest, []byte("x")), "RSA key of 1024 bits is too weak": weak(weakRSA()),
		"ECDSA key of 224 bits is too weak": weak(ecKey(t, elliptic.P224())), "at most 16384": []byte(strings.Repeat("x", maxRequest+1)),
	} {
		_, err := signer.Sign(t.Context(), csr, worker("n1"), time.Hour)
		refused(t, err, want)
	}
	for _, s := range []Subject{{}, {"n1", "", "c1"}, {"n1", "swarm-king", "c1"}, {"", RoleWorker, "c1"}, {"n1", RoleWorker, ""},
		{"a b", RoleUser, "c1"}, {"a\n", RoleUser, "c1"}, {"ä", RoleUser, "c1"}, {"*", RoleUser, "c1"}, {strings.Repeat("a", 65), RoleUser, "c1"},
		{"swarm-manager", RoleUser, "c1"}, {"n1", RoleWorker, strings.Repeat("c", 65)}} {
		if _, err := signer.Sign(t.Context(), good, s, time.Hour); err == nil {
			t.Errorf("signs for %+v", s)
		}
	}
	for _, expiry := range []time.Duration{0, -time.Hour} {
		_, err := signer.Sign(t.Context(), good, worker("n1"), expiry)
		refused(t, err, "cannot be good for")
	}
}

func TestSignersThatCannotBe(t *testing.T) {
	r, other := newRoot(t), newRoot(t)
	for want, c := range map[string][3][]byte{
		"root certificate holds no": {nil, r.key, nil}, "not the swarm's to use": {r.cert, nil, nil},
		"not the key of its certificate": {r.cert, other.key, nil}, "has another key than the root": {r.cert, r.key, other.cert},
		"cross-signed root holds no": {r.cert, r.key, []byte("x")},
	} {
		_, err := NewSigner(c[0], c[1], c[2], time.Now)
		refused(t, err, want)
	}
}

// TestCertificatesEndWithTheirRoot: none is good for longer than its root, and a root that has ended signs nothing.
func TestCertificatesEndWithTheirRoot(t *testing.T) {
	r := newRoot(t)
	end := parse(t, r.cert).NotAfter
	chain, _ := r.sign(t, worker("n1"), end.Add(-time.Minute), time.Hour)
	if until := parse(t, chain).NotAfter; !until.Equal(end) {
		t.Errorf("good until %s, want %s", until, end)
	}
	for _, now := range []time.Time{end.Add(time.Minute), time.Now().Add(-2 * time.Hour)} {
		signer, err := NewSigner(r.cert, r.key, nil, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		_, err = signer.Sign(t.Context(), newRequest(t, newKey(t)), worker("n1"), time.Hour)
		refused(t, err, "clock")
	}
}

// TestSubjectsComeBack: whatever a certificate can name is read out of it again as it was.
func TestSubjectsComeBack(t *testing.T) {
	r := newRoot(t)
	signer, err := NewSigner(r.cert, r.key, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	csr := newRequest(t, newKey(t))
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.StringMatching(`[A-Za-z0-9._-]{1,64}`)
		want := Subject{name.Draw(rt, "id"), rapid.SampledFrom([]Role{RoleWorker, RoleManager, RoleUser}).Draw(rt, "role"), name.Draw(rt, "cluster")}
		chain, err := signer.Sign(t.Context(), csr, want, time.Hour)
		if want.check() != nil {
			rt.Skip("the name of a role")
		}
		if err != nil {
			rt.Fatal(err)
		}
		certs, err := parseCertificates(chain)
		if err != nil {
			rt.Fatal(err)
		}
		if got, err := subjectOf(certs[0]); err != nil || got != want {
			rt.Fatalf("%v: %+v, want %+v", err, got, want)
		}
	})
}
