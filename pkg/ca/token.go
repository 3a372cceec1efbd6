package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// The formats of what people carry about. The first two are Docker's.
const (
	tokenPrefix  = "SWMTKN-1-"
	unlockPrefix = "SWMKEY-1-"
	userPrefix   = "SWMUSR-1-"

	digestLength     = 50 // 256 bits in base 36
	secretLength     = 25 // 128 bits in base 36
	userIDLength     = 13 // 64 bits in base 36
	userSecretLength = 50 // 256 bits in base 36
	unlockKeySize    = 32 // bytes
)

// Token lets a node join: Digest pins the root to trust, and Secret says in which role.
type Token struct{ Digest, Secret string }

// String is the token as people carry it: SWMTKN-1-<digest>-<secret>. It is a secret.
func (t Token) String() string { return tokenPrefix + t.Digest + "-" + t.Secret }

// NewSecret is a random last part for a Token.
func NewSecret() string { return randomText(16, secretLength) }

// ParseToken reads a join token. An error says what is wrong with it in Docker's words and some more, and never quotes it.
func ParseToken(text string) (Token, error) {
	invalid := func(format string, args ...any) (Token, error) {
		return Token{}, fmt.Errorf("invalid join token: "+format, args...)
	}
	text = strings.TrimSpace(text)
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	switch {
	case text == "":
		return invalid("it is empty")
	case strings.HasPrefix(text, "SWMTKN-2-"):
		return invalid("tokens that begin with SWMTKN-2 are of Docker clusters that keep FIPS, which this is not")
	case strings.HasPrefix(text, unlockPrefix):
		return invalid("this is an unlock key; \"swarmctl swarm join-token worker\" on a manager prints the join token")
	case strings.HasPrefix(text, userPrefix):
		return invalid("this is a user's token; \"swarmctl swarm join-token worker\" on a manager prints the join token")
	case !ok:
		return invalid("want %s followed by %d and %d characters", tokenPrefix, digestLength, secretLength)
	}
	digest, secret, ok := strings.Cut(rest, "-")
	switch {
	case !ok && len(rest) <= digestLength:
		return invalid("it is cut off: it has %d characters of %d", len(text), len(tokenPrefix)+digestLength+1+secretLength)
	case !ok:
		return invalid("want a - after the first %d characters of the digest", digestLength)
	case len(digest) != digestLength:
		return invalid("its digest has %d characters, want %d", len(digest), digestLength)
	case len(secret) < secretLength:
		return invalid("it is cut off: its last part has %d characters, want %d", len(secret), secretLength)
	case len(secret) > secretLength:
		return invalid("its last part has %d characters, want %d", len(secret), secretLength)
	case !isBase36(digest, 256), !isBase36(secret, 128):
		return invalid("it has characters or values that no token has")
	}
	return Token{digest, secret}, nil
}

// NewUserToken is a token for a user: the id by which it is known, the hash that is stored, and the token, which is told once.
func NewUserToken() (id, hash, token string) {
	id, secret := randomText(8, userIDLength), randomText(32, userSecretLength)
	return id, hashOf(secret), userPrefix + id + "-" + secret
}

// ParseUserToken reads a user's token: its id, and the SHA-256 of its secret in hexadecimal. An error never quotes it.
func ParseUserToken(token string) (id, hash string, err error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(token), userPrefix)
	id, secret, cut := strings.Cut(rest, "-")
	switch {
	case !ok || !cut:
		return "", "", fmt.Errorf("invalid token: want %s<id>-<secret>", userPrefix)
	case len(id) != userIDLength, len(secret) != userSecretLength:
		return "", "", fmt.Errorf("invalid token: want %d and %d characters after %s", userIDLength, userSecretLength, userPrefix)
	case !isBase36(id, 64), !isBase36(secret, 256):
		return "", "", errors.New("invalid token: it has characters or values that no token has")
	}
	return id, hashOf(secret), nil
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret)) // the secret has 256 random bits: nothing slower is needed
	return hex.EncodeToString(sum[:])
}

// NewUnlockKey is a random key that managers' disks can be locked with: SWMKEY-1-<base64 of 32 bytes>.
func NewUnlockKey() string {
	var key [unlockKeySize]byte
	rand.Read(key[:])
	return unlockPrefix + base64.RawStdEncoding.EncodeToString(key[:])
}

// ParseUnlockKey is the 32 bytes of an unlock key. An error never quotes it.
func ParseUnlockKey(text string) ([]byte, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), unlockPrefix)
	if !ok {
		return nil, fmt.Errorf("invalid unlock key: want %s followed by 43 characters", unlockPrefix)
	}
	key, err := base64.RawStdEncoding.Strict().DecodeString(rest)
	switch {
	case err != nil:
		return nil, errors.New("invalid unlock key: it has characters that no key has, or is cut off")
	case len(key) != unlockKeySize:
		return nil, fmt.Errorf("invalid unlock key: it holds %d bytes, want %d", len(key), unlockKeySize)
	}
	return key, nil
}

func randomText(size, length int) string {
	b := make([]byte, size)
	rand.Read(b)
	return base36(b, length)
}

// isBase36 tells whether the text is a number in base 36, in small letters, of so many bits at most.
func isBase36(text string, bits int) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	n, ok := new(big.Int).SetString(text, 36)
	return ok && n.BitLen() <= bits
}
