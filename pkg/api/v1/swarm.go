package v1

// What is asked and answered at the doors of /v1/swarm, and by nodes that join.

// JoinRequest asks a daemon to join a swarm.
type JoinRequest struct {
	// RemoteAddrs are host:port of managers; one that answers is enough.
	RemoteAddrs []string `json:"remoteAddrs"`
	// Token is SWMTKN-1-<digest of the root>-<secret>; its secret says in which role.
	Token string `json:"token"`
	// ListenAddr, AdvertiseAddr, DataPathAddr and Availability are as in an InitRequest.
	ListenAddr    string           `json:"listenAddr,omitempty"`
	AdvertiseAddr string           `json:"advertiseAddr,omitempty"`
	DataPathAddr  string           `json:"dataPathAddr,omitempty"`
	Availability  NodeAvailability `json:"availability,omitempty"`
}

// JoinResult answers a JoinRequest.
type JoinResult struct {
	NodeID string   `json:"nodeID"`
	Role   NodeRole `json:"role"`
}

// AdmissionRequest is what a joining node sends to a manager (POST /v1/nodes/join), over TLS without a certificate of its own.
type AdmissionRequest struct {
	Token string `json:"token"`
	// CSR is a certificate request, in PEM.
	CSR          []byte           `json:"csr"`
	Availability NodeAvailability `json:"availability,omitempty"`
	// Addr is host:port at which the node listens. One that is to be a manager has to be reached there before it is let in.
	Addr string `json:"addr,omitempty"`
}

// Admission answers an AdmissionRequest: the node exists from now on.
type Admission struct {
	NodeID string   `json:"nodeID"`
	Role   NodeRole `json:"role"`
	Certificate
	Managers []Peer `json:"managers"`
	// GatewayPool is what the nodes' gateway blocks are cut from: a node whose own address is in it cannot be of the swarm. Managers of
	// earlier versions do not say.
	GatewayPool string `json:"gatewayPool,omitempty"`
}

// CertificateRequest asks for a node's next certificate (POST /v1/nodes/{id}/certificate). The role in it is that of the node's
// spec.
type CertificateRequest struct {
	CSR []byte `json:"csr"`
}

// Certificate is a node's or a user's certificate with those that it is signed by, and the roots that it is to trust, in PEM.
type Certificate struct {
	Chain []byte `json:"chain"`
	Roots []byte `json:"roots"`
}

// MembershipRequest asks for a manager's place among the members of etcd (POST /v1/nodes/{id}/membership). It may be repeated.
type MembershipRequest struct {
	// Addr is host:port at which the other managers reach it.
	Addr string `json:"addr"`
}

// Membership answers a MembershipRequest: what it takes to start the member.
type Membership struct {
	MemberID string `json:"memberID"`
	// Peers are the URLs of all members, the new one included, by name, which is the node's ID.
	Peers map[string]string `json:"peers"`
	// DataKeys are what the state is sealed with, by ID; ActiveKey seals.
	DataKeys  map[string][]byte `json:"dataKeys"`
	ActiveKey string            `json:"activeKey"`
	// UnlockKey is set where managers lock themselves.
	UnlockKey string `json:"unlockKey,omitempty"`
}

// UnlockRequest brings the unlock key to a locked daemon.
type UnlockRequest struct {
	UnlockKey string `json:"unlockKey"`
}

// UnlockKey is the key of a swarm that locks itself; empty where it does not.
type UnlockKey struct {
	UnlockKey string `json:"unlockKey"`
}

// JoinTokens are the whole tokens.
type JoinTokens struct {
	Worker  string `json:"worker"`
	Manager string `json:"manager"`
}

// RotateCARequest asks for another root certificate (POST /v1/swarm/ca/rotate): the one given, or a new one.
type RotateCARequest struct {
	// CACert and CAKey are in PEM. Where only ExternalCAs are given, CACert is theirs.
	CACert      []byte       `json:"caCert,omitempty"`
	CAKey       []byte       `json:"caKey,omitempty"`
	ExternalCAs []ExternalCA `json:"externalCAs,omitempty"`
}

// CAInfo is what everybody may know of the CA.
type CAInfo struct {
	// TrustRoot is the settled root, in PEM.
	TrustRoot []byte `json:"trustRoot"`
	// NextRoot is the root that nodes are moving to; empty unless a rotation is under way.
	NextRoot []byte `json:"nextRoot,omitempty"`
	// Issuer is the digest of the root that certificates are issued under now.
	Issuer string `json:"issuer"`
	// Nodes and Moved are how many nodes there are, and how many have certificates of the newest root.
	Nodes int `json:"nodes"`
	Moved int `json:"moved"`
}

// NewUserToken answers a request for a token (POST /v1/users/{ref}/tokens): the one time that it is told.
type NewUserToken struct {
	ID    string `json:"id"`
	Token string `json:"token"`
}
