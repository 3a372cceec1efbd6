// Package ca is the swarm's certificates: roots and what they sign, requests, join tokens and the other keys that people
// carry about, and the TLS settings of those who have a certificate.
//
// It owns the formats, and every check of a certificate between nodes. It never stores anything, never reads a file, and
// never decides who may have a certificate or what its holder may do.
package ca

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

const (
	typeCertificate = "CERTIFICATE"
	typeKey         = "PRIVATE KEY"
	typeRequest     = "CERTIFICATE REQUEST"

	// maxPEM bounds what is read of any PEM, in bytes: a chain of a few certificates has a few thousand.
	maxPEM = 64 << 10
	// maxRequest bounds a certificate request, in bytes.
	maxRequest = 16 << 10
	// maxCertificates bounds a chain, and a list of roots.
	maxCertificates = 8
	// backdate is how long before their making certificates begin to be good, for clocks that are behind.
	backdate = time.Hour
)

// Digest names a root: the SHA-256 of the first certificate in the PEM, as 50 characters of base 36. It is the digest in
// Docker's join tokens. It is "" where there is no certificate.
func Digest(certPEM []byte) string {
	certs, err := parseCertificates(certPEM)
	if err != nil {
		return ""
	}
	return digestOf(certs[0])
}

func digestOf(cert *x509.Certificate) string {
	sum := sha256.Sum256(encode(typeCertificate, cert.Raw)) // of the PEM, as Docker does
	return base36(sum[:], digestLength)
}

func base36(b []byte, length int) string {
	s := new(big.Int).SetBytes(b).Text(36)
	return strings.Repeat("0", max(length-len(s), 0)) + s
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// parseCertificates reads one or more certificates and nothing else.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxPEM {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(data), maxPEM)
	}
	var certs []*x509.Certificate
	for rest := bytes.TrimSpace(data); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != typeCertificate {
			return nil, fmt.Errorf("has a %s where a certificate is wanted", block.Type)
		}
		if len(certs) == maxCertificates {
			return nil, fmt.Errorf("has more than %d certificates", maxCertificates)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("holds no certificate in PEM")
	}
	return certs, nil
}

// parseOne reads the one certificate that there is.
func parseOne(data []byte) (*x509.Certificate, error) {
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("holds %d certificates, want one", len(certs))
	}
	return certs[0], nil
}
