package daemon

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

// The files of a node's certificate, named as Docker names them. keyNext is there while the key changes.
const (
	certFolder = "certificates"
	certName   = certFolder + "/swarm-node.crt"
	keyName    = certFolder + "/swarm-node.key"
	keyNext    = certFolder + "/swarm-node.key.next"
	rootsName  = certFolder + "/swarm-root-ca.crt"
)

// errSealed says that the node's key is locked with the swarm's unlock key.
var errSealed = errors.New("the node's key is locked")

// certificates are the files of a node's certificate and key.
//
// A certificate and its key are two files, and the key may have to be sealed anew together with the data keys of etcd, which is a
// third. So a key that changes is written beside the old one first, and takes its place last: of the two, the one that can be
// opened and that the certificate is of counts.
type certificates struct{ disk disk }

// there tells whether the node has a certificate.
func (c certificates) there() bool { return c.disk.exists(certName) }

// load reads what was saved. The unlock key is needed where the node's key was sealed with it; errSealed says that it was not
// given, ca.ErrWrongKey that it is another.
func (c certificates) load(unlock []byte) (*ca.Identity, error) {
	chain, err := c.disk.read(certName)
	if err != nil {
		return nil, fmt.Errorf("the node's certificate: %w", err)
	}
	roots, err := c.disk.read(rootsName)
	if err != nil {
		return nil, fmt.Errorf("the swarm's root certificate: %w", err)
	}
	var errs []error
	for _, name := range []string{keyName, keyNext} {
		id, err := c.open(name, chain, roots, unlock)
		if err == nil && name == keyNext {
			return id, c.settle() // else a key that was replaced would stay
		}
		if err == nil {
			return id, nil
		}
		errs = append(errs, err)
	}
	for _, known := range []error{errSealed, ca.ErrWrongKey} {
		if slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, known) }) {
			return nil, known
		}
	}
	return nil, fmt.Errorf("the node's certificate in %s: %w", c.disk.path(certFolder), errs[0])
}

func (c certificates) open(name string, chain, roots, unlock []byte) (*ca.Identity, error) {
	key, err := c.disk.read(name)
	if err != nil {
		return nil, err
	}
	if ca.Sealed(key) {
		if unlock == nil {
			return nil, errSealed
		}
		if key, err = ca.OpenKey(key, unlock); err != nil {
			return nil, err
		}
	}
	return ca.NewIdentity(chain, key, roots)
}

// save makes a certificate and its key the node's, sealed with the unlock key unless that is nil.
func (c certificates) save(chain, key, roots, unlock []byte) error {
	if err := c.stage(key, unlock); err != nil {
		return err
	}
	if err := c.disk.write(rootsName, roots); err != nil {
		return err
	}
	if err := c.disk.write(certName, chain); err != nil {
		return err
	}
	return c.settle()
}

// stage writes a key beside the one that counts, and settle makes it that one.
func (c certificates) stage(key, unlock []byte) error {
	if unlock != nil {
		sealed, err := ca.SealKey(key, unlock)
		if err != nil {
			return err
		}
		key = sealed
	}
	return c.disk.write(keyNext, key)
}

func (c certificates) settle() error { return c.disk.rename(keyNext, keyName) }

// sealedBy tells whether the key that counts is sealed with the unlock key, or not at all where that is nil, and no other lies beside
// it. A crash in the middle of a change leaves it otherwise.
func (c certificates) sealedBy(unlock []byte) bool {
	key, err := c.disk.read(keyName)
	if err != nil || c.disk.exists(keyNext) {
		return false
	}
	if unlock == nil || !ca.Sealed(key) {
		return unlock == nil && !ca.Sealed(key)
	}
	_, err = ca.OpenKey(key, unlock)
	return err == nil
}

// saveRoots writes the roots that the node trusts from now on.
func (c certificates) saveRoots(roots []byte) error {
	if had, err := c.disk.read(rootsName); err == nil && bytes.Equal(had, roots) {
		return nil
	}
	return c.disk.write(rootsName, roots)
}

// role is that of the certificate, which can be read though the key is locked; empty where there is none.
func (c certificates) role() v1.NodeRole {
	data, err := c.disk.read(certName)
	if err != nil {
		return ""
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return ""
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(cert.Subject.OrganizationalUnit) == 0 {
		return ""
	}
	return roleOf(ca.Role(cert.Subject.OrganizationalUnit[0]))
}

// roleOf is a certificate's role as that of a node.
func roleOf(r ca.Role) v1.NodeRole {
	switch r {
	case ca.RoleManager:
		return v1.RoleManager
	case ca.RoleWorker:
		return v1.RoleWorker
	}
	return ""
}
