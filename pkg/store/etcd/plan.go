package etcd

import (
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// plan is a commit as one etcd transaction.
type plan struct {
	compares []clientv3.Cmp
	ops      []clientv3.Op
}

// objectPlan is what becomes of one object, its operations done in order.
type objectPlan struct {
	kind v1.Descriptor
	id   string

	// known tells whether the conditions say if the object exists before; existed is what they, or else the view, say.
	known, existed bool
	exists         bool
	assumed        bool // existed was relied upon and is not known
	needMeta       bool // its old Meta was

	wiped   bool // everything of before goes
	puts    [v1.SectionCount]*put
	removed [v1.SectionCount]bool
}

type put struct {
	meta  *v1.Meta
	value any
	lease store.LeaseID
}

// planner collects the operations by object.
type planner struct {
	view  *store.Snapshot
	order []*objectPlan
	index map[string]*objectPlan
}

// makePlan plans the commit against the view.
func (s *Store) makePlan(view *store.Snapshot, c *store.Commit) (*plan, error) {
	p := &planner{view: view, index: make(map[string]*objectPlan, len(c.Ops))}
	result := &plan{compares: make([]clientv3.Cmp, 0, len(c.Ops)+1), ops: make([]clientv3.Op, 0, len(c.Ops))}
	if c.Fence != nil {
		result.compares = append(result.compares, fenceCompare(c.Fence))
	}
	for i := range c.Ops {
		p.object(&c.Ops[i]).condition(c.Ops[i].If)
	}
	for i := range c.Ops {
		p.object(&c.Ops[i]).apply(view, &c.Ops[i])
	}
	result.compare(c.Ops)
	var paths []string
	var contents [][]byte
	var leases []store.LeaseID
	for _, o := range p.order {
		o.assume(view, result)
		result.ops = o.deletes(result.ops)
		for section, put := range o.puts {
			if put == nil {
				continue
			}
			content, err := encode(put.meta, put.value)
			if err != nil {
				return nil, fmt.Errorf("%w: %s %q: section %s: %w", store.ErrInvalid, o.kind.Kind(), o.id, v1.Section(section), err)
			}
			paths = append(paths, sectionPath(o.kind.Kind(), o.id, v1.Section(section)))
			contents = append(contents, content)
			leases = append(leases, put.lease)
		}
	}
	sealed, err := s.seal.sealAll(paths, contents)
	if err != nil {
		return nil, err
	}
	for i, path := range paths {
		result.ops = append(result.ops, clientv3.OpPut(path, sealed[i], clientv3.WithLease(clientv3.LeaseID(leases[i]))))
	}
	return result, nil
}

func (p *planner) object(op *store.Op) *objectPlan {
	key := string(op.Kind) + "/" + op.ID
	o, ok := p.index[key]
	if !ok {
		d, _ := v1.Describe(op.Kind)
		o = &objectPlan{kind: d, id: op.ID}
		p.index[key] = o
		p.order = append(p.order, o)
	}
	return o
}

// condition learns from a condition whether the object exists before.
func (o *objectPlan) condition(c store.Condition) {
	switch c.Kind() {
	case "exists", "revision":
		o.known, o.existed, o.exists = true, true, true
	case "absent":
		o.known, o.existed, o.exists = true, false, false
	}
}

// apply does an operation, as Snapshot.With does it.
func (o *objectPlan) apply(view *store.Snapshot, op *store.Op) {
	home := op.Section == o.kind.Home()
	if !o.known && !o.assumed && !o.wiped && o.puts[o.kind.Home()] == nil && (!home || op.Value != nil && op.Meta == nil) {
		_, o.existed = view.Lookup(op.Kind, op.ID)
		o.exists, o.assumed = o.existed, true
	}
	switch {
	case home && op.Value == nil:
		o.wiped, o.exists = true, false
		o.puts, o.removed, o.needMeta = [v1.SectionCount]*put{}, [v1.SectionCount]bool{}, false
	case home:
		o.puts[op.Section] = &put{o.meta(view, op), op.Value, op.Lease}
		o.exists = true
	case !o.exists: // a section of an object that is not there
	case op.Value == nil:
		o.puts[op.Section], o.removed[op.Section] = nil, true
	default:
		o.puts[op.Section], o.removed[op.Section] = &put{nil, op.Value, 0}, false
	}
}

// meta is what goes with a write of the home section: the operation's own, or what the object has.
func (o *objectPlan) meta(view *store.Snapshot, op *store.Op) *v1.Meta {
	if op.Meta != nil {
		o.needMeta = false
		return op.Meta
	}
	if before := o.puts[op.Section]; before != nil {
		return before.meta
	}
	if old, ok := view.Lookup(op.Kind, op.ID); ok && o.exists {
		o.needMeta = true
		return old.GetMeta()
	}
	if o.exists { // says a condition, and the view does not show it
		o.needMeta = true
	}
	return &v1.Meta{}
}

// assume adds compares for what was taken from the view.
func (o *objectPlan) assume(view *store.Snapshot, p *plan) {
	if !o.assumed && !o.needMeta {
		return
	}
	path := sectionPath(o.kind.Kind(), o.id, o.kind.Home())
	old, ok := view.Lookup(o.kind.Kind(), o.id)
	switch {
	case ok && o.needMeta:
		p.compares = append(p.compares, clientv3.Compare(clientv3.ModRevision(path), "=", old.GetMeta().Revisions[o.kind.Home()]))
	case ok && o.assumed:
		p.compares = append(p.compares, clientv3.Compare(clientv3.CreateRevision(path), ">", 0))
	default:
		p.compares = append(p.compares, clientv3.Compare(clientv3.CreateRevision(path), "=", 0))
	}
}

// deletes are the operations that remove what goes. etcd takes no put within a range that the same transaction deletes.
func (o *objectPlan) deletes(ops []clientv3.Op) []clientv3.Op {
	sections, gone := 0, 0
	for section := range v1.Section(v1.SectionCount) {
		if o.kind.Has(section) {
			sections++
			if o.puts[section] == nil {
				gone++
			}
		}
	}
	if o.wiped && gone == sections && sections > 1 {
		return append(ops, clientv3.OpDelete(objectPath(o.kind.Kind(), o.id), clientv3.WithPrefix()))
	}
	for section := range v1.Section(v1.SectionCount) {
		if o.kind.Has(section) && o.puts[section] == nil && (o.wiped || o.removed[section]) {
			ops = append(ops, clientv3.OpDelete(sectionPath(o.kind.Kind(), o.id, section)))
		}
	}
	return ops
}

// compare adds the operations' own conditions.
func (p *plan) compare(ops []store.Op) {
	for i := range ops {
		op := &ops[i]
		d, _ := v1.Describe(op.Kind)
		home := sectionPath(op.Kind, op.ID, d.Home())
		switch op.If.Kind() {
		case "exists":
			p.compares = append(p.compares, clientv3.Compare(clientv3.CreateRevision(home), ">", 0))
		case "absent":
			p.compares = append(p.compares, clientv3.Compare(clientv3.CreateRevision(home), "=", 0))
		case "revision":
			section := sectionPath(op.Kind, op.ID, op.Section)
			p.compares = append(p.compares, clientv3.Compare(clientv3.ModRevision(section), "=", op.If.Revision()))
			if op.If.Revision() == 0 { // any other revision says that the section, and so the object, is there
				p.compares = append(p.compares, clientv3.Compare(clientv3.CreateRevision(home), ">", 0))
			}
		}
	}
}

func fenceCompare(f *store.Fence) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(leaders+f.Key), "=", f.Revision)
}
