package reconciletest

import (
	"fmt"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// node changes a node, or makes it.
func (w *World) node(id, what, arg string) error {
	if what == "new" {
		o := &v1.Node{Meta: v1.Meta{ID: id, CreatedAt: w.Now}}
		w.completeNode(o)
		return w.Commit(append(opsOf(v1.Nodes, o), w.session(o)...)...)
	}
	o, ok := store.Get(w.Snapshot(), v1.Nodes, id)
	if !ok {
		return fmt.Errorf("no node %s", id)
	}
	spec, meta := *o.Spec, o.Meta
	respec := func() error {
		return w.Commit(store.Op{Kind: v1.KindNode, ID: id, Section: v1.SectionSpec, Value: &spec, Meta: &meta})
	}
	switch what {
	case "active", "pause", "drain":
		spec.Availability = v1.NodeAvailability(what)
		return respec()
	case "label":
		key, value, _ := strings.Cut(arg, "=")
		meta.Labels = map[string]string{key: value}
		for k, v := range o.Meta.Labels {
			if k != key {
				meta.Labels[k] = v
			}
		}
		return respec()
	case "remove":
		return w.Commit(store.Op{Kind: v1.KindNode, ID: id, Section: v1.SectionSpec})
	case "down":
		return w.Commit(store.Op{Kind: v1.KindPresence, ID: id, Section: v1.SectionStatus, If: store.Always()})
	}
	return w.describe(o, what, arg)
}

// describe has a node's agent say something.
func (w *World) describe(o *v1.Node, what, arg string) error {
	status := v1.NodeStatus{}
	if o.Status != nil {
		status = *o.Status
	}
	var ops []store.Op
	switch what {
	case "ready":
		status.State = v1.NodeReady
		ops = w.session(o)
	case "cpus":
		cpus, err := v1.ParseCPUs(arg)
		if err != nil {
			return err
		}
		status.Description.Resources.CPUs = cpus
	case "generic":
		generic, err := v1.ParseGenericResources(strings.FieldsFunc(arg, func(r rune) bool { return r == ',' }))
		if err != nil {
			return err
		}
		status.Description.Resources.Generic = generic
	case "volumes":
		status.Description.Volumes = strings.FieldsFunc(arg, func(r rune) bool { return r == ',' })
	case "tls":
		roots := strings.Split(arg, ",")
		status.Description.TLS = &v1.NodeTLS{Issuer: roots[0], Roots: roots}
	default:
		return errUsage
	}
	return w.Commit(append(ops, store.Op{Kind: v1.KindNode, ID: o.Meta.ID, Section: v1.SectionStatus, Value: &status})...)
}

// session is a node's, with a manager.
func (w *World) session(o *v1.Node) []store.Op {
	return []store.Op{{Kind: v1.KindPresence, ID: o.Meta.ID, Section: v1.SectionStatus, If: store.Always(), Meta: &v1.Meta{ID: o.Meta.ID},
		Value: &v1.PresenceStatus{Session: o.Meta.ID, Since: w.Now}}}
}

// rotate asks for a root, of which nothing is there but its digest.
func (w *World) rotate(root string) error {
	spec := &v1.AuthoritySpec{}
	if o, ok := store.Get(w.Snapshot(), v1.Authorities, v1.AuthorityName); ok {
		*spec = *o.Spec
	}
	spec.CA = v1.CertificateAuthority{Cert: []byte(root), Digest: root, Rotation: spec.CA.Rotation + 1}
	return w.Commit(store.Op{Kind: v1.KindAuthority, ID: v1.AuthorityName, Section: v1.SectionSpec, Value: spec, If: store.Always(),
		Meta: &v1.Meta{ID: v1.AuthorityName}})
}

func (w *World) authority() string {
	o, ok := store.Get(w.Snapshot(), v1.Authorities, v1.AuthorityName)
	if !ok {
		return "no authority\n"
	}
	return fmt.Sprintf("%s is settled, trusted are %s\n", v1.SettledRoot(o), strings.ReplaceAll(string(v1.TrustedRoots(o)), "\n", " and "))
}
