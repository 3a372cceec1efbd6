package ca

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// typeSealed is the PEM type of a key that SealKey sealed.
const typeSealed = "SWARM SEALED KEY"

// ErrWrongKey says that a sealed key was sealed with another key, or was damaged since.
var ErrWrongKey = errors.New("ca: invalid key: it is not the one that this was sealed with, or what was sealed is damaged")

// NewKey is a new private key, ECDSA P-256, in PEM.
func NewKey() (keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ca: make a key: %w", err)
	}
	return encodeKey(key)
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("ca: write a key: %w", err)
	}
	return encode(typeKey, der), nil
}

// NewRequest asks for a certificate of the key, in PEM. It names nobody: whoever signs it says whose it becomes.
func NewRequest(keyPEM []byte) (csrPEM []byte, err error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("ca: key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("ca: make a certificate request: %w", err)
	}
	return encode(typeRequest, der), nil
}

// parseKey reads the one private key in the PEM: PKCS 8, or what openssl wrote before that. An error never quotes it.
func parseKey(data []byte) (crypto.Signer, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(data), maxPEM)
	}
	block, rest := pem.Decode(data)
	for block != nil && block.Type == "EC PARAMETERS" { // openssl writes them before the key
		block, rest = pem.Decode(rest)
	}
	switch {
	case block == nil:
		return nil, errors.New("holds no private key in PEM")
	case block.Type == typeSealed, block.Headers["DEK-Info"] != "", block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("is locked with another key")
	}
	key, err := decodeKey(block)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%T cannot sign", key)
	}
	return signer, checkPublic(signer.Public())
}

func decodeKey(block *pem.Block) (any, error) {
	var key any
	var err error
	switch block.Type {
	case typeKey:
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("has a %s where a private key is wanted", block.Type)
	}
	if err != nil {
		return nil, errors.New("is no private key that can be read")
	}
	return key, nil
}

// checkPublic refuses keys that are easier to break than P-256 and RSA of 2048 bits.
func checkPublic(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if bits := k.Curve.Params().BitSize; bits < 256 {
			return fmt.Errorf("an ECDSA key of %d bits is too weak: want P-256 or more", bits)
		}
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 {
			return fmt.Errorf("an RSA key of %d bits is too weak: want 2048 or more", bits)
		} else if bits > 8192 {
			return fmt.Errorf("an RSA key of %d bits takes too long: want 8192 or fewer", bits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("keys of %T cannot be used: want ECDSA, RSA or Ed25519", key)
	}
	return nil
}

// samePublic tells whether two public keys are one.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// SealKey wraps a private key in PEM with a key of 32 bytes (AES-256-GCM), for the disk.
func SealKey(keyPEM, kek []byte) (sealedPEM []byte, err error) {
	if Sealed(keyPEM) {
		return nil, errors.New("ca: seal a key: it is sealed already")
	}
	gcm, err := newGCM(kek)
	if err != nil {
		return nil, err
	}
	return encode(typeSealed, gcm.Seal(nil, nil, keyPEM, []byte(typeSealed))), nil
}

// OpenKey is what SealKey wrapped. It fails with ErrWrongKey where kek is not the key that it was wrapped with.
func OpenKey(sealedPEM, kek []byte) ([]byte, error) {
	gcm, err := newGCM(kek)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(sealedPEM)
	if block == nil || block.Type != typeSealed {
		return nil, errors.New("ca: open a sealed key: there is none in the PEM")
	}
	keyPEM, err := gcm.Open(nil, nil, block.Bytes, []byte(typeSealed))
	if err != nil {
		return nil, ErrWrongKey
	}
	return keyPEM, nil
}

func newGCM(kek []byte) (cipher.AEAD, error) {
	if len(kek) != unlockKeySize {
		return nil, fmt.Errorf("ca: the key to seal with has %d bytes, want %d", len(kek), unlockKeySize)
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block) // the nonce stands before what is sealed
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	return gcm, nil
}

// Sealed tells whether the PEM is a key that SealKey wrapped.
func Sealed(data []byte) bool {
	block, _ := pem.Decode(data)
	return block != nil && block.Type == typeSealed
}
