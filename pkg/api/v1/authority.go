package v1

import "bytes"

// AuthorityName is the ID of the one Authority object.
const AuthorityName = "default"

// AuthoritySpec is who may join the swarm and whose certificates are trusted. The object has no door in the API: its keys and
// tokens are told one by one, to those who may know them.
type AuthoritySpec struct {
	// ClusterID is the swarm's, the O of every certificate.
	ClusterID string `json:"clusterID"`
	// CA signs new certificates.
	CA CertificateAuthority `json:"ca"`
	// JoinSecrets are the last part of the join tokens.
	JoinSecrets JoinSecrets `json:"joinSecrets"`
	// UnlockKey is what managers' disks are locked with, SWMKEY-1-…; empty unless AutoLock is on.
	UnlockKey string `json:"unlockKey,omitempty"`
}

// CertificateAuthority is a root certificate and its key, in PEM.
type CertificateAuthority struct {
	Cert []byte `json:"cert"`
	// Digest is that of Cert, as join tokens and NodeTLS have it.
	Digest string `json:"digest,omitempty"`
	// Key is empty where an external CA has it.
	Key []byte `json:"key,omitempty"`
	// Cross is Cert's key signed by the root before it, so that those who trust only that one trust new certificates too; empty
	// for the first root.
	Cross []byte `json:"cross,omitempty"`
	// External sign in place of Key.
	External []ExternalCA `json:"external,omitempty"`
	// Rotation counts the roots, from 0.
	Rotation uint64 `json:"rotation,omitempty"`
}

// JoinSecrets are random, one for each role.
type JoinSecrets struct {
	Worker  string `json:"worker"`
	Manager string `json:"manager"`
}

// AuthorityDesired is the root that every node has come to trust. While it is another than that of the spec, a rotation is under
// way: both are trusted, and new certificates are signed by the spec's.
type AuthorityDesired struct {
	// Cert and Key are the root's, in PEM; the next rotation is cross-signed with the key.
	Cert []byte `json:"cert"`
	Key  []byte `json:"key,omitempty"`
	// Digest is the spec's for Cert.
	Digest string `json:"digest,omitempty"`
}

// Rotating tells whether not all nodes have come to the newest root yet.
func Rotating(a *Authority) bool {
	return a != nil && a.Spec != nil && a.Desired != nil && !bytes.Equal(a.Spec.CA.Cert, a.Desired.Cert)
}

// TrustedRoots are the roots that are trusted now, in PEM, the newest first.
func TrustedRoots(a *Authority) []byte {
	if !Rotating(a) {
		return a.Spec.CA.Cert
	}
	return append(append(bytes.Clone(bytes.TrimSpace(a.Spec.CA.Cert)), '\n'), a.Desired.Cert...)
}

// SettledRoot is the root that join tokens name, in PEM: the one before a rotation until that is done.
func SettledRoot(a *Authority) []byte {
	if a.Desired != nil {
		return a.Desired.Cert
	}
	return a.Spec.CA.Cert
}
