package v1

import (
	"crypto/rand"
	"crypto/sha256"
	"math/big"
	"strings"
)

// IDLength is the length of every object's ID: 25 characters of base 36, as in Docker Swarm.
const IDLength = 25

// NewID is a random ID, for objects that a user creates.
func NewID() string {
	var b [16]byte
	rand.Read(b[:])
	return base36(b[:])
}

// HashID is the ID of an object that a rule creates: a hash of what names it, so that deciding twice collides instead of
// duplicating.
func HashID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return base36(sum[:16])
}

func base36(b []byte) string {
	s := new(big.Int).SetBytes(b).Text(36)
	return strings.Repeat("0", IDLength-len(s)) + s
}
