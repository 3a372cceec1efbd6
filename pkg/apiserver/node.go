package apiserver

import (
	"context"
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// maxID bounds the ID that a node brings along, in bytes.
const maxID = 64

// nodeManifest is what a node is created from. It may bring its own ID: that of its certificate.
type nodeManifest struct {
	APIVersion string   `json:"apiVersion"`
	Kind       v1.Kind  `json:"kind"`
	Metadata   nodeMeta `json:"metadata"`
	// Spec's index is chosen by the swarm where it is 0.
	Spec *v1.NodeSpec `json:"spec,omitempty"`
}

type nodeMeta struct {
	ID     string            `json:"id,omitempty"`
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// createNode makes a node, with an index that no other node has.
func (s *Server) createNode(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	body, err := s.readBody(w, r, v1.MaxManifestSize)
	if err != nil {
		return err
	}
	var m nodeManifest
	if err := v1.DecodeStrict(body, &m); err != nil {
		return err
	}
	dry, err := boolQuery(r, "dryRun")
	if err != nil {
		return err
	}
	obj, err := m.node()
	if err != nil {
		return err
	}
	made, _, err := b.write(r.Context(), v1.KindNode, dry, func(snapshot *store.Snapshot) (change, error) {
		return b.join(snapshot, obj)
	})
	if err != nil {
		return err
	}
	return created(w, d, made, dry, nil)
}

// node is the node that the manifest asks for.
func (m *nodeManifest) node() (*v1.Node, error) {
	var errs v1.FieldErrors
	if m.APIVersion != v1.APIVersion {
		errs = append(errs, v1.FieldError{Field: "apiVersion", Message: "want " + v1.APIVersion})
	}
	if m.Kind != v1.KindNode {
		errs = append(errs, v1.FieldError{Field: "kind", Message: "want " + string(v1.KindNode)})
	}
	if !plainID(m.Metadata.ID) {
		errs = append(errs, v1.FieldError{Field: "metadata.id", Message: "want at most 64 small letters, digits, - and ., or none"})
	}
	if len(errs) > 0 {
		return nil, errs
	}
	obj := &v1.Node{Meta: v1.Meta{ID: m.Metadata.ID, Name: m.Metadata.Name, Labels: m.Metadata.Labels}, Spec: m.Spec}
	if obj.Meta.ID == "" {
		obj.Meta.ID = v1.NewID()
	}
	return obj, check(obj)
}

func plainID(id string) bool {
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return len(id) <= maxID
}

// join decides what it takes to create a node. It runs under the lock of writes.
func (b *backend) join(s *store.Snapshot, obj *v1.Node) (change, error) {
	id := obj.Meta.ID
	if _, there := s.Lookup(v1.KindNode, id); there {
		return change{}, problemf(http.StatusConflict, "node %s already exists", id)
	}
	spec := *obj.Spec
	if spec.Index == 0 {
		spec.Index = b.index(s)
	} else if _, taken := s.Lookup(v1.KindClaim, v1.NodeIndexClaim(spec.Index)); taken {
		return change{}, problemf(http.StatusConflict, "node index %d is taken", spec.Index)
	}
	now := b.server.now().UTC()
	meta := &v1.Meta{ID: id, Name: obj.Meta.Name, Labels: obj.Meta.Labels, CreatedAt: now, UpdatedAt: now, Generation: 1}
	return change{id: id, alone: true, ops: []store.Op{
		{Kind: v1.KindNode, ID: id, Value: &spec, Meta: meta, If: store.Absent()},
		claimOp(v1.NodeIndexClaim(spec.Index), id, now),
	}}, nil
}

// index is the smallest that is free. What is below freeIndex was seen taken, and is looked at again once a node went.
func (b *backend) index(s *store.Snapshot) uint32 {
	for ; ; b.freeIndex++ {
		if _, taken := s.Lookup(v1.KindClaim, v1.NodeIndexClaim(b.freeIndex)); !taken {
			return b.freeIndex
		}
	}
}

// updateNode replaces a node's labels, role and availability.
func (s *Server) updateNode(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	p, err := s.replacing(w, r, d)
	if err != nil {
		return err
	}
	inherit(p.obj, p.old)
	if err := check(p.obj); err != nil {
		return err
	}
	id := p.old.GetMeta().ID
	return p.commit(w, r, d, nil, func(snapshot *store.Snapshot) (change, error) {
		if err := p.backend.checkRole(r.Context(), snapshot, id, p.obj.(*v1.Node)); err != nil {
			return change{}, err
		}
		return s.replacement(snapshot, d, p.obj, id)
	})
}

// checkRole refuses a change of a node's role by whom it is not for, and one that the managers cannot bear.
func (b *backend) checkRole(ctx context.Context, s *store.Snapshot, id string, obj *v1.Node) error {
	old, ok := store.Get(s, v1.Nodes, id)
	if !ok || old.Spec.Role == obj.Spec.Role {
		return nil
	}
	if c := callerOf(ctx); c.kind != callerRoot && !c.atLeast(v1.UserAdmin) {
		return problemf(http.StatusForbidden, "user %s has the role %s, and may not change a node's role: it is for %s", c.user, c.rank, rightsAdmin)
	}
	if old.Spec.Role == v1.RoleManager {
		return b.demotable(ctx, s, old)
	}
	return nil
}

// removeNode removes a node, and with it its presence and its index. Its certificate counts no more, because there is no such node.
func (s *Server) removeNode(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	return s.removeWith(w, r, d, func(b *backend, snapshot *store.Snapshot, obj v1.Object) []store.Op {
		n := obj.(*v1.Node)
		noteWrite(r.Context(), d.Kind(), n.Meta.ID, nameOf(n), 0)
		b.freeIndex = min(b.freeIndex, n.Spec.Index)
		return presenceOps(snapshot, n.Meta.ID)
	})
}

// nodeRoutes are the doors of the nodes' agents.
func (s *Server) nodeRoutes() []route {
	return []route{
		{method: http.MethodPost, path: "/v1/nodes/{ref}/session", resource: "sessions", stream: true, may: rightsSelf, audit: auditNever, in: v1.SessionLine{}, out: v1.Assignment{},
			summary: "Open a node's session: its assignments, one JSON object a line.", handle: s.session},
		{method: http.MethodPost, path: "/v1/nodes/{ref}/status", resource: "status", may: rightsSelf, audit: auditNever, in: v1.StatusReport{}, out: v1.StatusResult{},
			summary: "Report what a node's agent observed.", handle: s.status},
		{method: http.MethodPost, path: "/v1/followed", resource: "followed", may: rightsManager, audit: auditNever, in: v1.FollowQuery{}, out: v1.FollowResult{},
			summary: "Wait a moment for nodes that are connected to this manager to follow what was written up to a revision.", handle: s.followed},
		{method: http.MethodPost, path: "/v1/nodes/{ref}/streams/{stream}", resource: "streams", stream: true, may: rightsSelf, audit: auditNever, in: v1.LogRecord{},
			summary: "Send the records of a stream that a session asked for, one JSON object a line.", handle: s.upload},
	}
}
