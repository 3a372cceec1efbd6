package gc

import (
	"cmp"
	"maps"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
)

// Secrets and configs of stacks are called by their content, so that each change of a file leaves one behind. A version goes once nothing
// refers to it: no service, and no revision, which are kept for as long as a task runs them or a rollback may lead there. The latest of each
// key stays in any case: it is made before the service that is to have it. What somebody made or named by hand is nobody's business here.

// Versions removes what is left of earlier contents of stacks. It is keyed by stack.
type Versions struct{}

// AllStacks are the names of the stacks that have versions of secrets or configs, sorted.
func AllStacks(s *store.Snapshot) []string {
	stacks := make(map[string]bool)
	for v := range versions(s) {
		stacks[v.stack] = true
	}
	return slices.Sorted(maps.Keys(stacks))
}

// Name implements reconcile.Rule.
func (Versions) Name() string { return "versions" }

// Keys implements reconcile.Rule: a stack is worth deciding when a version of it comes, and when a service or a revision that refers to one changes or goes.
func (Versions) Keys(s *store.Snapshot, c store.Change) []string {
	switch c.Kind {
	case v1.KindSecret, v1.KindConfig:
		if c.New != nil {
			if stack, _ := v1.StackVersion(c.New.GetMeta()); stack != "" {
				return []string{stack}
			}
		}
	case v1.KindService, v1.KindServiceRevision:
		var before []*v1.ContainerSpec
		switch old := c.Old.(type) {
		case *v1.Service:
			if is, ok := c.New.(*v1.Service); ok && is.Spec == old.Spec && is.Desired == old.Desired {
				return nil
			}
			before = containers(old)
		case *v1.ServiceRevision:
			before = []*v1.ContainerSpec{&old.Spec.Task.Container}
		}
		return stacksOf(s, before)
	}
	return nil
}

// stacksOf are the stacks of the versions that containers refer to. Some may be there twice.
func stacksOf(s *store.Snapshot, of []*v1.ContainerSpec) (stacks []string) {
	for _, c := range of {
		for kind, refs := range map[v1.Kind][]v1.FileReference{v1.KindSecret: c.Secrets, v1.KindConfig: c.Configs} {
			for _, ref := range refs {
				if o, ok := s.Lookup(kind, ref.ID); ok {
					if stack, _ := v1.StackVersion(o.GetMeta()); stack != "" {
						stacks = append(stacks, stack)
					}
				}
			}
		}
	}
	return stacks
}

// containers are what a service asks for, and what its tasks are meanwhile.
func containers(o *v1.Service) []*v1.ContainerSpec {
	return []*v1.ContainerSpec{&o.Spec.Task.Container, &v1.Effective(o).Spec.Task.Container}
}

// version is a secret or config that stack deploy made.
type version struct {
	kind       v1.Kind
	meta       *v1.Meta
	stack, key string
}

// versions yields those that there are.
func versions(s *store.Snapshot) func(func(version) bool) {
	return func(yield func(version) bool) {
		for o := range store.All(s, v1.Secrets) {
			if stack, key := v1.StackVersion(&o.Meta); stack != "" && !yield(version{v1.KindSecret, &o.Meta, stack, key}) {
				return
			}
		}
		for o := range store.All(s, v1.Configs) {
			if stack, key := v1.StackVersion(&o.Meta); stack != "" && !yield(version{v1.KindConfig, &o.Meta, stack, key}) {
				return
			}
		}
	}
}

// Decide implements reconcile.Rule.
func (Versions) Decide(_ time.Time, s *store.Snapshot, stack string) (plan reconcile.Plan) {
	var all []version
	for v := range versions(s) {
		if v.stack == stack {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b version) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.key, b.key), b.meta.CreatedAt.Compare(a.meta.CreatedAt), cmp.Compare(a.meta.ID, b.meta.ID))
	})
	var needed map[string]bool
	for i, v := range all {
		if i == 0 || all[i-1].kind != v.kind || all[i-1].key != v.key {
			continue // the latest
		}
		if needed == nil {
			needed = referred(s)
		}
		if !needed[v.meta.ID] && !needed[v.meta.Name] {
			plan.Ops = append(plan.Ops, removeNamed(s, v.kind, v.meta)...)
		}
	}
	return plan
}

// referred are the IDs and names of all secrets and configs that a service or a revision refers to.
func referred(s *store.Snapshot) map[string]bool {
	needed := make(map[string]bool)
	note := func(c *v1.ContainerSpec) {
		for _, refs := range [][]v1.FileReference{c.Secrets, c.Configs} {
			for _, ref := range refs {
				needed[ref.ID], needed[ref.Source] = true, true
			}
		}
	}
	for o := range store.All(s, v1.Services) {
		for _, c := range containers(o) {
			note(c)
		}
	}
	for r := range store.All(s, v1.ServiceRevisions) {
		note(&r.Spec.Task.Container)
	}
	return needed
}
