package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestKeysThatAreRead(t *testing.T) {
	ec, ok := ecKey(t, elliptic.P384()).(*ecdsa.PrivateKey)
	if !ok {
		t.Fatal("no ECDSA key")
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPEM, err := encodeKey(ed)
	if err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string][]byte{
		"ours": newKey(t), "SEC 1": encode("EC PRIVATE KEY", sec1), "Ed25519": edPEM,
		"openssl's": join(encode("EC PARAMETERS", []byte{6, 5, 43, 129, 4, 0, 34}), encode("EC PRIVATE KEY", sec1)),
	} {
		if _, err := NewRequest(good); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	p224, err := encodeKey(ecKey(t, elliptic.P224()))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := SealKey(newKey(t), make([]byte, unlockKeySize))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		key  []byte
		want string
	}{
		{nil, "no private key"}, {[]byte("hunter2"), "no private key"}, {p224, "too weak"},
		{encode("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(weakRSA())), "too weak"},
		{newRoot(t).cert, "CERTIFICATE where a private key"}, {encode(typeKey, []byte("hunter2")), "can be read"},
		{sealed, "locked"}, {encode("ENCRYPTED PRIVATE KEY", []byte("hunter2")), "locked"}, {bytes.Repeat([]byte("x"), maxPEM+1), "at most"},
	} {
		_, err := NewRequest(bad.key)
		refused(t, err, bad.want, "hunter2")
	}
}

func TestSealedKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "key")
		kek := rapid.SliceOfN(rapid.Byte(), unlockKeySize, unlockKeySize).Draw(t, "kek")
		sealed, err := SealKey(key, kek)
		if err != nil || !Sealed(sealed) {
			t.Fatalf("%v %q", err, sealed)
		}
		if again, err := SealKey(key, kek); err != nil || bytes.Equal(again, sealed) {
			t.Fatalf("%v: sealed twice the same", err)
		}
		got, err := OpenKey(sealed, kek)
		if err != nil || !bytes.Equal(got, key) {
			t.Fatalf("%v %q, want %q", err, got, key)
		}
		wrong := bytes.Clone(kek)
		wrong[rapid.IntRange(0, len(wrong)-1).Draw(t, "at")] ^= 1
		if _, err := OpenKey(sealed, wrong); !errors.Is(err, ErrWrongKey) {
			t.Fatalf("wrong key: %v", err)
		}
		block, _ := pem.Decode(sealed)
		block.Bytes[rapid.IntRange(0, len(block.Bytes)-1).Draw(t, "byte")] ^= 1
		if _, err := OpenKey(pem.EncodeToMemory(block), kek); !errors.Is(err, ErrWrongKey) {
			t.Fatalf("damaged: %v", err)
		}
	})
}

func TestWhatCannotBeSealed(t *testing.T) {
	key, kek := newKey(t), make([]byte, unlockKeySize)
	sealed, err := SealKey(key, kek)
	if err != nil {
		t.Fatal(err)
	}
	if Sealed(key) || Sealed(nil) || bytes.Contains(sealed, key[40:80]) {
		t.Error("a key in the clear is called sealed")
	}
	_, err = SealKey(sealed, kek)
	refused(t, err, "sealed already")
	_, err = SealKey(key, kek[:16])
	refused(t, err, "16 bytes, want 32")
	_, err = OpenKey(sealed, nil)
	refused(t, err, "0 bytes, want 32")
	_, err = OpenKey(key, kek)
	refused(t, err, "there is none", strings.TrimSpace(string(key[40:80])))
	_, err = OpenKey(encode(typeSealed, []byte("short")), kek)
	if !errors.Is(err, ErrWrongKey) {
		t.Errorf("cut off: %v", err)
	}
}
