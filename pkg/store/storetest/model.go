package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// testSameAsMemory commits random operations to the store and to store.Memory: both must answer and hold the same, all
// but the numbers of the revisions.
func testSameAsMemory(t *testing.T, s store.Store) {
	var round atomic.Int64
	rapid.Check(t, func(rt *rapid.T) {
		p := &pair{T: rt, a: s, b: store.NewMemory(), prefix: fmt.Sprintf("r%d-", round.Add(1)), same: map[int64]int64{0: 0}}
		for range rapid.IntRange(1, 15).Draw(rt, "commits") {
			p.step(t)
		}
	})
}

// pair is the store and the memory beside it.
type pair struct {
	*rapid.T
	a      store.Store
	b      *store.Memory
	prefix string
	same   map[int64]int64 // a's revision → b's
}

func (p *pair) step(t *testing.T) {
	ctx := t.Context()
	before, err := p.b.Snapshot(ctx, 0)
	if err != nil {
		p.Fatal(err)
	}
	var forA, forB []store.Op
	for range rapid.IntRange(0, 5).Draw(p.T, "ops") {
		a, b := p.op(before)
		forA, forB = append(forA, a), append(forB, b)
	}
	ra, errA := p.a.Commit(ctx, store.Commit{Ops: forA})
	rb, errB := p.b.Commit(ctx, store.Commit{Ops: forB})
	if (errA == nil) != (errB == nil) || errA != nil && !errors.Is(errA, store.ErrConflict) {
		p.Fatalf("%v\n%+v\nmemory: %v", errA, forA, errB)
	}
	if errA != nil {
		return
	}
	sa, err := p.a.Snapshot(ctx, ra)
	if err != nil {
		p.Fatal(err)
	}
	sb, err := p.b.Snapshot(ctx, rb)
	if err != nil {
		p.Fatal(err)
	}
	if _, seen := p.same[ra]; !seen { // what had no effect may have no revision of its own
		p.same[ra] = rb
	}
	if diff := cmp.Diff(p.show(sb, nil), p.show(sa, p.same)); diff != "" {
		p.Fatalf("after %+v (-memory +store):\n%s", forA, diff)
	}
}

// op draws an operation, as it is for the store and for the memory: only a condition's revision differs.
func (p *pair) op(now *store.Snapshot) (a, b store.Op) {
	d := rapid.SampledFrom([]v1.Descriptor{v1.Tasks, v1.Services, v1.Nodes}).Draw(p.T, "kind")
	a = store.Op{Kind: d.Kind(), ID: p.prefix + rapid.SampledFrom([]string{"a", "b"}).Draw(p.T, "id")}
	for a.Section = v1.Section(9); !d.Has(a.Section); {
		a.Section = rapid.SampledFrom([]v1.Section{v1.SectionSpec, v1.SectionDesired, v1.SectionStatus}).Draw(p.T, "section")
	}
	if rapid.IntRange(0, 3).Draw(p.T, "write") > 0 {
		value, err := d.DecodeSection(a.Section, []byte(`{}`))
		if err != nil {
			p.Fatal(err)
		}
		a.Value = value
	}
	if a.Section == d.Home() && a.Value != nil && rapid.Bool().Draw(p.T, "meta") {
		a.Meta = &v1.Meta{Name: rapid.StringMatching(`[a-c]`).Draw(p.T, "name"), CreatedAt: time.Unix(7, 0).UTC()}
	}
	b = a
	switch rapid.IntRange(0, 5).Draw(p.T, "if") {
	case 0:
		a.If = store.Exists()
	case 1:
		a.If = store.Absent()
	case 2:
		for ra, rb := range p.same {
			if o, ok := now.Lookup(a.Kind, a.ID); ok && o.GetMeta().Revisions[a.Section] == rb {
				a.If, b.If = store.AtRevision(ra), store.AtRevision(rb)
				return a, b
			}
		}
		a.If = store.AtRevision(0)
	default:
		a.If = store.Always()
	}
	b.If = a.If
	return a, b
}

// show is what the snapshot holds of this round, with revisions translated.
func (p *pair) show(s *store.Snapshot, same map[int64]int64) map[string]v1.Object {
	shown := make(map[string]v1.Object)
	for _, d := range v1.Kinds {
		for o := range s.Objects(d.Kind()) {
			if !strings.HasPrefix(o.GetMeta().ID, p.prefix) {
				continue
			}
			meta := *o.GetMeta()
			for i, r := range meta.Revisions {
				if same != nil {
					meta.Revisions[i] = same[r]
				}
			}
			shown[string(d.Kind())+" "+meta.ID] = withMeta(o, meta)
		}
	}
	return shown
}

func withMeta(o v1.Object, meta v1.Meta) v1.Object {
	switch o := o.(type) {
	case *v1.Task:
		c := *o
		c.Meta = meta
		return &c
	case *v1.Service:
		c := *o
		c.Meta = meta
		return &c
	case *v1.Node:
		c := *o
		c.Meta = meta
		return &c
	}
	return o
}
