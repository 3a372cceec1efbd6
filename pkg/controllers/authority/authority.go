// Package authority decides which root certificate is settled: the one that every node has come to.
//
// It owns the desired section of the one Authority. It never makes, signs or reads a certificate: roots are compared by the
// digests that their writers put beside them, and with what nodes say that they have.
package authority

import (
	"bytes"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Rule is the authority rule.
type Rule struct{}

// AllKeys is the one key, where there is an Authority.
func AllKeys(s *store.Snapshot) []string {
	if _, ok := store.Get(s, v1.Authorities, v1.AuthorityName); ok {
		return []string{v1.AuthorityName}
	}
	return nil
}

// Name implements reconcile.Rule.
func (Rule) Name() string { return "authority" }

// Keys implements reconcile.Rule: another root is wanted, or a node says that it has another certificate, or a node that had
// not come to the root is gone.
func (Rule) Keys(s *store.Snapshot, c store.Change) []string {
	switch c.Kind {
	case v1.KindAuthority:
		return AllKeys(s)
	case v1.KindNode:
		if _, _, changed := reconcile.NodeOf(c); changed {
			return AllKeys(s)
		}
	}
	return nil
}

// Decide implements reconcile.Rule. The first root is settled from the beginning; a later one once every node has a
// certificate of it and trusts it. Nodes that are down count: they would be locked out when they come back. Who does not
// want to wait for one removes it.
func (Rule) Decide(_ time.Time, s *store.Snapshot, key string) reconcile.Plan {
	a, ok := store.Get(s, v1.Authorities, key)
	if !ok {
		return reconcile.Plan{}
	}
	next := v1.AuthorityDesired{Cert: a.Spec.CA.Cert, Key: a.Spec.CA.Key, Digest: a.Spec.CA.Digest}
	switch {
	case a.Desired == nil:
	case same(a.Desired, &next):
		return reconcile.Plan{}
	case v1.Rotating(a) && !everyNodeMoved(s, next.Digest):
		return reconcile.Plan{}
	}
	return reconcile.Plan{Ops: []store.Op{{Kind: v1.KindAuthority, ID: key, Section: v1.SectionDesired, Value: &next,
		If: store.AtRevision(a.Meta.Revisions[v1.SectionDesired])}}}
}

func same(a, b *v1.AuthorityDesired) bool {
	return bytes.Equal(a.Cert, b.Cert) && bytes.Equal(a.Key, b.Key) && a.Digest == b.Digest
}

func everyNodeMoved(s *store.Snapshot, root string) bool {
	for n := range store.All(s, v1.Nodes) {
		if !moved(n, root) {
			return false
		}
	}
	return true
}

// moved tells whether a node has a certificate of the root, and trusts it. One that never said what it has may have one of
// the root before.
func moved(n *v1.Node, root string) bool {
	if root == "" || n.Status == nil || n.Status.Description.TLS == nil {
		return false
	}
	tls := n.Status.Description.TLS
	return tls.Issuer == root && slices.Contains(tls.Roots, root)
}
