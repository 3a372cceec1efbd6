package ca

import (
	"context"
	"crypto/tls"
	"errors"
	"time"
)

const digestLength, secretLength = 50, 25

var errSoon = errors.New("ca: on its way")

// ErrWrongKey says that a sealed key was sealed with another key, or was damaged.
var ErrWrongKey = errors.New("ca: wrong key")

// Role is what a certificate is for.
type Role string

// The roles.
const (
	RoleWorker  Role = "swarm-worker"
	RoleManager Role = "swarm-manager"
	RoleUser    Role = "swarm-user"
)

// Subject is whose a certificate is.
type Subject struct {
	ID      string
	Role    Role
	Cluster string
}

// Signer signs certificates.
type Signer interface {
	Sign(ctx context.Context, csrPEM []byte, s Subject, expiry time.Duration) (chainPEM []byte, err error)
}

// Token is a join token.
type Token struct{ Digest, Secret string }

// Identity is a certificate in use.
type Identity struct{}

func NewKey() (keyPEM []byte, err error)                        { return nil, errSoon }
func NewRequest(keyPEM []byte) (csrPEM []byte, err error)       { return nil, errSoon }
func NewRoot(now time.Time) (certPEM, keyPEM []byte, err error) { return nil, nil, errSoon }
func CheckRoot(certPEM, keyPEM []byte, now time.Time) error     { return errSoon }
func CrossSign(oldCert, oldKey, newCert []byte, now time.Time) (crossPEM []byte, err error) {
	return nil, errSoon
}
func NewSigner(cert, key, cross []byte, now func() time.Time) (Signer, error)     { return nil, errSoon }
func NewExternal(urls []string, rootPEM, cross []byte, client *tls.Config) Signer { return nil }
func ParseToken(text string) (Token, error)                                       { return Token{}, errSoon }
func (t Token) String() string                                                    { return "" }
func NewSecret() string                                                           { return "" }
func NewUserToken() (id, hash, token string)                                      { return "", "", "" }
func ParseUserToken(token string) (id, hash string, err error)                    { return "", "", errSoon }
func NewUnlockKey() string                                                        { return "" }
func ParseUnlockKey(text string) ([]byte, error)                                  { return nil, errSoon }
func SealKey(keyPEM, kek []byte) (sealedPEM []byte, err error)                    { return nil, errSoon }
func OpenKey(sealedPEM, kek []byte) ([]byte, error)                               { return nil, errSoon }
func Sealed(pem []byte) bool                                                      { return false }
func NewIdentity(chainPEM, keyPEM, rootsPEM []byte) (*Identity, error)            { return nil, errSoon }
func (i *Identity) Update(chainPEM, keyPEM, rootsPEM []byte) error                { return errSoon }
func (i *Identity) PEM() (chain, key, roots []byte)                               { return nil, nil, nil }
func (i *Identity) Subject() Subject                                              { return Subject{} }
func (i *Identity) Issuer() string                                                { return "" }
func (i *Identity) RootDigests() []string                                         { return nil }
func (i *Identity) Expires() time.Time                                            { return time.Time{} }
func (i *Identity) RenewAt(random float64) time.Time                              { return time.Time{} }
func (i *Identity) ServerTLS() *tls.Config                                        { return nil }
func (i *Identity) ClientTLS() *tls.Config                                        { return nil }
func (i *Identity) ExternalTLS() *tls.Config                                      { return nil }
func UserTLS(chainPEM, keyPEM, rootsPEM []byte) (*tls.Config, error)              { return nil, errSoon }
func PeerSubject(s *tls.ConnectionState) (Subject, bool)                          { return Subject{}, false }
