package apiserver

import (
	"context"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// maxRequestBody bounds what a node sends to be let in, in bytes.
const maxRequestBody = 64 << 10

// admissionRoutes are the doors by which a node comes in, stays in and goes.
func (s *Server) admissionRoutes() []route {
	return []route{
		{method: http.MethodPost, path: "/v1/nodes/join", resource: "admission", may: rightsAnyone, in: v1.AdmissionRequest{}, out: v1.Admission{},
			summary: "Become a node of the swarm, with a join token.", handle: s.admit},
		{method: http.MethodPost, path: "/v1/nodes/{ref}/certificate", resource: "admission", may: rightsSelf, in: v1.CertificateRequest{}, out: v1.Certificate{},
			summary: "Get the node's next certificate, in the role that its spec says.", handle: s.renew},
		{method: http.MethodPost, path: "/v1/nodes/{ref}/membership", resource: "admission", may: rightsSelfManager, in: v1.MembershipRequest{}, out: v1.Membership{},
			summary: "Become a member of the managers' etcd. It may be repeated.", handle: s.membership},
		{method: http.MethodPost, path: "/v1/nodes/{ref}/leave", resource: "admission", may: rightsSelf,
			summary: "Say that the node leaves for good.", handle: s.leaveNode},
	}
}

// errBadToken are Docker's words, with what to do.
var errBadToken = problemf(http.StatusForbidden, `invalid join token: it is not one of this swarm, or was rotated. Get the present one with `+
	`"swarmctl swarm join-token" on a manager`)

// admit makes a node of whoever has a join token.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	from := network(remoteAddr(r))
	if err := s.attempts.allow(from); err != nil {
		return err
	}
	var request v1.AdmissionRequest
	if err := s.readInto(w, r, &request); err != nil {
		return err
	}
	a, snapshot, err := b.authority(r.Context())
	if err != nil {
		return err
	}
	role, err := admittedAs(a, request.Token)
	if err != nil {
		s.attempts.failed(from)
		return err
	}
	node := &v1.Node{Meta: v1.Meta{ID: v1.NewID()}, Spec: &v1.NodeSpec{Role: role, Availability: request.Availability}}
	if err := check(node); err != nil {
		return err
	}
	if role == v1.RoleManager && request.Addr != "" {
		if err := taken(snapshot, request.Addr); err != nil {
			return err
		}
		if err := s.reach(r.Context(), request.Addr); err != nil {
			return err
		}
	}
	certificate, err := s.sign(r.Context(), b, a, snapshot, request.CSR, node.Meta.ID, certRole(role))
	if err != nil {
		return err
	}
	if _, _, err := b.write(r.Context(), v1.KindNode, false, func(snapshot *store.Snapshot) (change, error) {
		return b.join(snapshot, node)
	}); err != nil {
		return err
	}
	s.log.Info("a node was let in", "node.id", node.Meta.ID, "role", role, "from", remoteAddr(r))
	noteWrite(r.Context(), v1.KindNode, node.Meta.ID, "", 0)
	return writeJSON(w, http.StatusCreated, v1.Admission{NodeID: node.Meta.ID, Role: role, Certificate: certificate, Managers: managersOf(snapshot),
		GatewayPool: gatewayPool(snapshot)})
}

// admittedAs is the role that a join token stands for. How long it takes does not tell how much of a token is right.
func admittedAs(a *v1.Authority, text string) (v1.NodeRole, error) {
	token, err := ca.ParseToken(text)
	if err != nil {
		return "", problemf(http.StatusBadRequest, "invalid join token: want SWMTKN-1-<digest>-<secret>, as \"swarmctl swarm join-token\" shows it")
	}
	same := func(x, y string) int { return subtle.ConstantTimeCompare([]byte(x), []byte(y)) }
	digest := same(token.Digest, ca.Digest(v1.SettledRoot(a)))
	worker := digest & same(token.Secret, a.Spec.JoinSecrets.Worker)
	manager := digest & same(token.Secret, a.Spec.JoinSecrets.Manager)
	switch {
	case token.Secret == "":
		return "", errBadToken
	case manager == 1:
		return v1.RoleManager, nil
	case worker == 1:
		return v1.RoleWorker, nil
	}
	return "", errBadToken
}

func certRole(r v1.NodeRole) ca.Role {
	if r == v1.RoleManager {
		return ca.RoleManager
	}
	return ca.RoleWorker
}

// renew gives a node its next certificate.
func (s *Server) renew(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	var request v1.CertificateRequest
	if err := s.readInto(w, r, &request); err != nil {
		return err
	}
	a, snapshot, err := b.authority(r.Context())
	if err != nil {
		return err
	}
	node, err := nodeOf(snapshot, r)
	if err != nil {
		return err
	}
	certificate, err := s.sign(r.Context(), b, a, snapshot, request.CSR, node.Meta.ID, certRole(node.Spec.Role))
	if err != nil {
		return err
	}
	noteWrite(r.Context(), v1.KindNode, node.Meta.ID, "", 0)
	return writeJSON(w, http.StatusOK, certificate)
}

// nodeOf is the node that a path names by its whole ID.
func nodeOf(s *store.Snapshot, r *http.Request) (*v1.Node, error) {
	n, ok := store.Get(s, v1.Nodes, r.PathValue("ref"))
	if !ok {
		return nil, &store.NotFoundError{Kind: v1.KindNode, Ref: clip(r.PathValue("ref"))}
	}
	return n, nil
}

// membership takes a manager among the members of etcd.
func (s *Server) membership(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	if b.backing.Members == nil {
		return errOwnEtcd
	}
	var request v1.MembershipRequest
	if err := s.readInto(w, r, &request); err != nil {
		return err
	}
	if !isAddr(request.Addr) {
		return v1.FieldErrors{{Field: "addr", Message: "want host:port at which the other managers reach this one"}}
	}
	a, snapshot, err := b.authority(r.Context())
	if err != nil {
		return err
	}
	node, err := nodeOf(snapshot, r)
	if err != nil {
		return err
	}
	if node.Spec.Role != v1.RoleManager {
		return problemf(http.StatusForbidden, "node %s is no manager: promote it first", node.Meta.ID)
	}
	if err := s.reach(r.Context(), request.Addr); err != nil {
		return err
	}
	m, err := b.backing.Members.AddMember(r.Context(), node.Meta.ID, "https://"+request.Addr)
	if err != nil {
		return memberProblem(err)
	}
	m.UnlockKey = a.Spec.UnlockKey
	noteWrite(r.Context(), v1.KindMember, node.Meta.ID, "", 0)
	return writeJSON(w, http.StatusOK, m)
}

// taken refuses an address that another manager is reached at.
func taken(s *store.Snapshot, addr string) error {
	for m := range store.All(s, v1.Members) {
		if m.Status.Addr == addr {
			return problemf(http.StatusBadRequest, "%s is the address of manager %s: give this node's own with --advertise-addr", addr, m.Meta.ID)
		}
	}
	return nil
}

// reach refuses who is to be a manager, and is not reached where it says. A member that nobody reaches counts against the quorum.
func (s *Server) reach(ctx context.Context, addr string) error {
	if s.reaches == nil {
		return nil
	}
	if !isAddr(addr) {
		return v1.FieldErrors{{Field: "addr", Message: "want host:port at which the other managers reach this one"}}
	}
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	if err := s.reaches(ctx, addr); err != nil {
		return problemf(http.StatusBadRequest, "the managers cannot reach this node at its advertised address %s (%v): give one that they reach "+
			"with --advertise-addr, and see that its TCP port is open to them", addr, err)
	}
	return nil
}

// reachWithin is how long somebody who is to be a manager has to take a connection.
const reachWithin = 3 * time.Second

// errOwnEtcd is what is said where the members are none of this daemon's business.
var errOwnEtcd = problemf(http.StatusBadRequest, "this swarm's state is in an etcd of its own, whose members and backups are its operator's")

// memberProblem is how an error of the members is told: what the server itself does not know by name is worth another try.
func memberProblem(err error) error {
	if p := problemOf(err); p.Status != http.StatusInternalServerError || errors.Is(err, context.Canceled) {
		return err
	}
	return problemf(http.StatusServiceUnavailable, "%s", err)
}

func isAddr(text string) bool {
	host, port, err := net.SplitHostPort(text)
	n, bad := strconv.ParseUint(port, 10, 16)
	return err == nil && bad == nil && host != "" && n > 0 && len(text) <= 255
}

// leaveNode takes note that a node leaves for good: it is not waited for. A manager becomes a worker first, so that the leader takes it
// out of the members; one without which the others could not decide is refused.
func (s *Server) leaveNode(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	id := r.PathValue("ref")
	_, _, err = b.write(r.Context(), v1.KindNode, false, func(snapshot *store.Snapshot) (change, error) {
		n, err := nodeOf(snapshot, r)
		if err != nil {
			return change{}, err
		}
		c := change{id: id, ops: presenceOps(snapshot, id)}
		if n.Spec.Role != v1.RoleManager {
			return c, nil
		}
		if err := b.demotable(r.Context(), snapshot, n); err != nil {
			return change{}, err
		}
		spec, meta := *n.Spec, n.Meta
		spec.Role = v1.RoleWorker
		meta.UpdatedAt, meta.Revisions = s.now().UTC(), v1.Revisions{}
		meta.Generation++
		c.ops = append(c.ops, store.Op{Kind: v1.KindNode, ID: id, Value: &spec, Meta: &meta, If: store.AtRevision(n.Meta.Revisions[v1.SectionSpec])})
		return c, nil
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// presenceOps remove a node's presence, if it has one.
func presenceOps(s *store.Snapshot, node string) []store.Op {
	if _, ok := s.Lookup(v1.KindPresence, node); !ok {
		return nil
	}
	return []store.Op{{Kind: v1.KindPresence, ID: node, Section: v1.SectionStatus, If: store.Exists()}}
}
