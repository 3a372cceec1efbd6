package ca

import (
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"testing"
	"time"
)

func TestNewRoot(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	certPEM, keyPEM, err := NewRoot(now)
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, certPEM)
	if cert.Subject.CommonName != "swarm-ca" || !cert.IsCA || !cert.NotBefore.Equal(now.Add(-time.Hour)) || !cert.NotAfter.Equal(now.Add(rootLife)) {
		t.Errorf("root %+v from %s until %s", cert.Subject, cert.NotBefore, cert.NotAfter)
	}
	for _, at := range []time.Time{now, now.Add(-time.Hour), now.Add(19 * minRootLife)} {
		if err := CheckRoot(certPEM, keyPEM, at); err != nil {
			t.Errorf("at %s: %v", at, err)
		}
	}
}

func TestCheckRoot(t *testing.T) {
	now, key := time.Now(), ecKey(t, elliptic.P256())
	good := custom(t, key, func(*x509.Certificate) {})
	leaf, leafKey := good.sign(t, worker("n1"), now, time.Hour)
	for name, c := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"good":             {good.cert, good.key, ""},
		"key elsewhere":    {good.cert, nil, ""},
		"no certificate":   {nil, good.key, "no certificate"},
		"two":              {join(good.cert, good.cert), good.key, "2 certificates"},
		"key as well":      {join(good.cert, good.key), good.key, "PRIVATE KEY where"},
		"another's key":    {good.cert, newRoot(t).key, "not the key of the CA certificate"},
		"a node's":         {leaf, leafKey, "is no CA's"},
		"no key":           {good.cert, []byte("-"), "the CA key holds no private key"},
		"other key usage":  with(custom(t, key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), "may not sign certificates"),
		"path length":      with(custom(t, key, func(c *x509.Certificate) { c.MaxPathLenZero = true }), "path length 0"),
		"not yet":          with(custom(t, key, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }), "is not valid until"),
		"no more":          with(custom(t, key, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), "was valid until"),
		"soon no more":     with(custom(t, key, func(c *x509.Certificate) { c.NotAfter = now.Add(minRootLife - time.Hour) }), "want a year or more"),
		"weak RSA":         with(custom(t, weakRSA(), func(*x509.Certificate) {}), "too weak"),
		"weak curve":       with(custom(t, ecKey(t, elliptic.P224()), func(*x509.Certificate) {}), "too weak"),
		"not for servers":  with(custom(t, key, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "is not good"),
		"for other names":  with(custom(t, key, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} }), "is not good"),
		"not for swarm-ca": with(custom(t, key, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"swarm-manager"} }), "is not good"),
	} {
		err := CheckRoot(c.cert, c.key, now)
		if c.want == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		} else if c.want != "" {
			refused(t, err, c.want)
		}
	}
}

func with(r root, want string) struct {
	cert, key []byte
	want      string
} {
	return struct {
		cert, key []byte
		want      string
	}{r.cert, r.key, want}
}

func TestCrossSign(t *testing.T) {
	now := time.Now()
	old, next := newRoot(t), newRoot(t)
	short := custom(t, ecKey(t, elliptic.P256()), func(c *x509.Certificate) { c.NotAfter = now.Add(2 * minRootLife) })
	cross := parse(t, crossSign(t, old, next))
	want := parse(t, next.cert)
	if !samePublic(cross.PublicKey, want.PublicKey) || string(cross.RawSubject) != string(want.RawSubject) || !cross.IsCA ||
		cross.CheckSignatureFrom(parse(t, old.cert)) != nil || cross.CheckSignatureFrom(want) == nil {
		t.Error("the cross-signed root is not the new one's key and name under the old one")
	}
	for _, pair := range [][2]root{{short, next}, {next, short}} {
		if until := parse(t, crossSign(t, pair[0], pair[1])).NotAfter; !until.Equal(parse(t, short.cert).NotAfter) {
			t.Errorf("good until %s, want until the first of the two ends", until)
		}
	}
	for want, c := range map[string][3][]byte{
		"the old root holds no certificate": {nil, old.key, next.cert}, "the new root holds no": {old.cert, old.key, nil},
		"key is not the swarm's to use": {old.cert, nil, next.cert}, "not the key of its certificate": {old.cert, next.key, next.cert},
		"has the key of the old one": {old.cert, old.key, old.cert}, "old root's key holds no": {old.cert, []byte("x"), next.cert},
	} {
		_, err := CrossSign(c[0], c[1], c[2], now)
		refused(t, err, want)
	}
}

// TestClocks: an error that comes of time says so, and what this machine's clock says.
func TestClocks(t *testing.T) {
	r := newRoot(t)
	for _, c := range []struct {
		at   time.Time
		want string
	}{{time.Now().Add(-24 * time.Hour), "is not valid until"}, {time.Now().Add(2 * rootLife), "was valid until"}} {
		err := CheckRoot(r.cert, r.key, c.at)
		refused(t, err, c.want)
		refused(t, err, "is this machine's clock right? It says "+c.at.UTC().Format(time.RFC3339))
		if !errors.As(err, new(*TimeError)) {
			t.Errorf("%T is no TimeError", err)
		}
	}
}
