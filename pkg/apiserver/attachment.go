package apiserver

import (
	"cmp"
	"net/http"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// pinAttachment writes the IDs of what an attachment names into it, where there are such. Networks that are the same by another name are
// one.
func pinAttachment(s *store.Snapshot, a *v1.AttachmentSpec) {
	if n := nodeNamed(s, a.Node); n != nil {
		a.Node = n.Meta.ID
	}
	networks := make([]string, 0, len(a.Networks))
	for _, ref := range a.Networks {
		if n, err := exact(s, v1.KindNetwork, ref); err == nil {
			ref = n.GetMeta().ID
		}
		if !slices.Contains(networks, ref) {
			networks = append(networks, ref)
		}
	}
	a.Networks = networks
}

// nodeNamed is the node with an ID, or else the only one with a host name; nil where there is none.
func nodeNamed(s *store.Snapshot, ref string) *v1.Node {
	if n, ok := store.Get(s, v1.Nodes, ref); ok {
		return n
	}
	var found *v1.Node
	for n := range store.All(s, v1.Nodes) {
		if nameOf(n) != ref {
			continue
		}
		if found != nil {
			return nil
		}
		found = n
	}
	return found
}

// checkAttachment refuses an attachment, with its ID, to what is not there, to networks that are not for it or not apart, and of a namespace that another has attached.
func checkAttachment(s *store.Snapshot, a *v1.AttachmentSpec, id string) error {
	pinAttachment(s, a)
	if _, ok := s.Lookup(v1.KindNode, a.Node); !ok {
		return problemf(http.StatusBadRequest, "node %s not found, or several nodes are called so: name it by its ID", clip(a.Node))
	}
	var networks []*v1.Network
	for _, id := range a.Networks {
		n, ok := store.Get(s, v1.Networks, id)
		if !ok {
			return problemf(http.StatusBadRequest, "network %s not found", clip(id))
		}
		if !n.Spec.Attachable { // Docker's words
			return problemf(http.StatusForbidden, "could not attach to network %s: network %s not manually attachable: it has to be made with --attachable",
				n.Meta.Name, n.Meta.Name)
		}
		networks = append(networks, n)
	}
	if err := checkApart(networks); err != nil {
		return err
	}
	for t := range s.TasksOfNode(a.Node) {
		if d := t.Desired; d.Attachment != nil && d.Service != id && v1.Live(t) && d.Attachment.Namespace == a.Namespace {
			return problemf(http.StatusConflict, "namespace %s of the node is attached already, as %s: detach that first, or name all networks at once",
				clip(a.Namespace), d.ServiceName)
		}
	}
	return nil
}

// succession is what it takes to make way for a new object of the same name as one whose claim is held: of attachments, one that has ended
// does. Nil is that there is no way.
func succession(s *store.Snapshot, k v1.Kind, claim *v1.Claim) []store.Op {
	if k != v1.KindAttachment {
		return nil
	}
	old, there := store.Get(s, v1.Attachments, claim.Spec.Holder)
	t, made := store.Get(s, v1.Tasks, v1.AttachmentTask(claim.Spec.Holder))
	if !there || !made || !v1.Observed(t).Terminal() {
		return nil
	}
	return []store.Op{{Kind: v1.KindAttachment, ID: old.Meta.ID, If: store.AtRevision(old.Meta.Revisions[v1.SectionSpec])}}
}

// attachedTo names an attachment that uses a network: one that is wanted there and has not ended, or one whose link may still be there.
func attachedTo(s *store.Snapshot, network string) string {
	for a := range store.All(s, v1.Attachments) {
		t, made := store.Get(s, v1.Tasks, v1.AttachmentTask(a.Meta.ID))
		if slices.Contains(a.Spec.Networks, network) && (!made || !v1.Observed(t).Terminal()) {
			return attachmentOn(s, a.Meta.Name, a.Spec.Node)
		}
	}
	for t := range s.TasksOfNetwork(network) {
		if a := t.Desired.Attachment; a != nil && !v1.Observed(t).Terminal() {
			return attachmentOn(s, t.Desired.ServiceName, a.Node)
		}
	}
	return ""
}

func attachmentOn(s *store.Snapshot, name, node string) string {
	if n, ok := store.Get(s, v1.Nodes, node); ok {
		node = cmp.Or(nameOf(n), node)
	}
	return "attachment " + name + " of node " + node
}

// attachmentFilter makes ready what attachments are filtered by.
func attachmentFilter(s *store.Snapshot, key string, values []string) (match, error) {
	if key == "node" {
		ids, err := resolveAll(s, v1.KindNode, values)
		return func(o v1.Object) bool { return slices.Contains(ids, o.(*v1.Attachment).Spec.Node) }, err
	}
	ids, err := resolveAll(s, v1.KindNetwork, values)
	return func(o v1.Object) bool {
		return slices.ContainsFunc(o.(*v1.Attachment).Spec.Networks, func(id string) bool { return slices.Contains(ids, id) })
	}, err
}
