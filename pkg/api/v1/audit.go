package v1

import "time"

// AuditRecord is one line of the audit log: a request that writes, or that tells a secret, and what came of it. It never holds what
// was sent or told.
type AuditRecord struct {
	Time time.Time `json:"time"`
	Who  AuditWho  `json:"who"`
	// From is the address of the client; empty over the machine's own socket.
	From   string `json:"from,omitempty"`
	Method string `json:"method"`
	Path   string `json:"path"`
	Query  string `json:"query,omitempty"`
	// Kind, ID and Name are those of the object that was written, where there is one, and Revision that of the store since.
	Kind     Kind   `json:"kind,omitempty"`
	ID       string `json:"id,omitempty"`
	Name     string `json:"name,omitempty"`
	Revision int64  `json:"revision,omitempty"`
	// Status is that of the answer, Error its problem's title.
	Status int    `json:"status"`
	Error  string `json:"error,omitempty"`
}

// AuditWho is who made a request.
type AuditWho struct {
	// Kind is root (of the manager's machine), node, user, or empty for somebody without an identity.
	Kind string `json:"kind,omitempty"`
	// Name is a node's ID or a user's name, and Role what it may do.
	Name string `json:"name,omitempty"`
	Role string `json:"role,omitempty"`
}

// AuditLog answers GET /v1/audit: the newest records of this manager, newest last.
type AuditLog struct {
	Items []AuditRecord `json:"items"`
}

// UserTokenRequest asks for a token of a user (POST /v1/users/{ref}/tokens).
type UserTokenRequest struct {
	// Expires is when the token ends; zero for never.
	Expires time.Time `json:"expires,omitzero"`
}
