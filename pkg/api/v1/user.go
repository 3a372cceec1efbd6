package v1

import "time"

// UserSpec is a person, or a program, that speaks to the managers from anywhere.
type UserSpec struct {
	// Role says what the user may do; default view.
	Role UserRole `json:"role,omitempty"`
	// Tokens are what the user may prove itself with, beside certificates. They are made by the swarm, and cannot be set.
	Tokens []UserToken `json:"tokens,omitempty"`
}

// UserRole is what a user may do.
type UserRole string

// The user roles; each may do what those before it may.
const (
	// UserView reads everything but secrets, keys and tokens.
	UserView UserRole = "view"
	// UserOperate also writes services, secrets, configs, networks, volumes and nodes' labels and availability.
	UserOperate UserRole = "operate"
	// UserAdmin does everything: users, join tokens, the CA, roles, the swarm's settings, backups.
	UserAdmin UserRole = "admin"
)

// UserToken is a token that was given out. The token itself is told once, when it is made.
type UserToken struct {
	ID string `json:"id"`
	// Hash is the SHA-256 of the secret, in hexadecimal. The API never shows it.
	Hash      string    `json:"hash,omitempty"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
	// Expires is when it ends; zero for never.
	Expires time.Time `json:"expires,omitzero"`
}
