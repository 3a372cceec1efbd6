package member

import (
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Statuses are the operations that make the Member objects say what the members are: each has the name of its member. There
// are none where they do already, and none for no members at all, which etcd never has.
func Statuses(members []Member, s *store.Snapshot) (ops []store.Op) {
	if len(members) == 0 {
		return nil
	}
	for _, m := range members {
		if m.Name == "" {
			continue
		}
		next := v1.MemberStatus{MemberID: m.ID, Addr: m.Addr, Voter: m.Voter, Leader: m.Leader, Reachable: m.Reachable || m.Leader}
		op := store.Op{Kind: v1.KindMember, ID: m.Name, Section: v1.SectionStatus, Value: &next, Meta: &v1.Meta{ID: m.Name},
			If: store.Absent()}
		if o, ok := store.Get(s, v1.Members, m.Name); ok {
			if *o.Status == next {
				continue
			}
			op.Meta, op.If = &o.Meta, store.AtRevision(o.Meta.Revisions[v1.SectionStatus])
		}
		ops = append(ops, op)
	}
	for o := range store.All(s, v1.Members) {
		if !slices.ContainsFunc(members, func(m Member) bool { return m.Name == o.Meta.ID }) {
			ops = append(ops, store.Op{Kind: v1.KindMember, ID: o.Meta.ID, Section: v1.SectionStatus,
				If: store.AtRevision(o.Meta.Revisions[v1.SectionStatus])})
		}
	}
	return ops
}
