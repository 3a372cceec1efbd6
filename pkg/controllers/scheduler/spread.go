package scheduler

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// manyFailures of a service's revision on a node within v1.FailureMemory put the node last.
const manyFailures = 5

// less orders nodes: those where the service failed often last, then by how many tasks of the service they have, then by
// how many tasks in all.
func less(a, b *node) bool {
	af, bf := a.failed, b.failed
	if af < manyFailures {
		af = 0
	}
	if bf < manyFailures {
		bf = 0
	}
	return cmp.Or(cmp.Compare(af, bf), cmp.Compare(a.stay(), b.stay()), cmp.Compare(a.load.Tasks, b.load.Tasks),
		cmp.Compare(a.Meta.ID, b.Meta.ID)) < 0
}

// preferences are the labels to spread over, in order.
func preferences(spec *v1.ServiceRevisionSpec) []string {
	if spec.Task.Placement == nil {
		return nil
	}
	var labels []string
	for _, p := range spec.Task.Placement.Preferences {
		labels = append(labels, p.Spread)
	}
	return labels
}

// labelOf is a node's value of a preference. Nodes without the label make a group of their own.
func labelOf(n *node, preference string) string {
	if label, ok := cutPrefixFold(preference, "node.labels."); ok {
		return n.Meta.Labels[label]
	}
	if label, ok := cutPrefixFold(preference, "engine.labels."); ok && n.Status != nil {
		return n.Status.Description.Engine.Labels[label]
	}
	return ""
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// branch is a tree of nodes, one level for each preference: at each, tasks of the service go to the branch that has the
// fewest. The leaves are heaps, best node on top.
type branch struct {
	parent   *branch
	children []*branch // in the order of their labels
	labels   map[string]*branch
	tasks    int // of the service, in all of the branch, on whatever nodes
	nodes    nodeHeap
}

// grow makes the tree of all nodes, of which those that fit can be taken.
func grow(all, fit []*node, preferences []string) *branch {
	root := &branch{}
	for _, n := range all {
		n.leaf = root.leaf(n, preferences)
	}
	for _, n := range fit {
		n.leaf.nodes = append(n.leaf.nodes, n)
	}
	root.each(func(b *branch) { heap.Init(&b.nodes) })
	return root
}

// leaf finds, or makes, the branch that a node belongs to, and counts its tasks along the way.
func (b *branch) leaf(n *node, preferences []string) *branch {
	b.tasks += n.stay()
	for _, p := range preferences {
		label := labelOf(n, p)
		child, ok := b.labels[label]
		if !ok {
			child = &branch{parent: b}
			if b.labels == nil {
				b.labels = make(map[string]*branch)
			}
			b.labels[label] = child
			b.children = append(b.children, child)
		}
		b = child
		b.tasks += n.stay()
	}
	return b
}

func (b *branch) each(f func(*branch)) {
	f(b)
	for _, c := range b.children {
		c.each(f)
	}
}

// best finds the leaf that the next task goes to, or nil where no node is left. Of two branches with equally many tasks,
// the one with the better node.
func (b *branch) best() *branch {
	if len(b.children) == 0 {
		if len(b.nodes) == 0 {
			return nil
		}
		return b
	}
	var best *branch
	fewest := 0
	for _, c := range b.children {
		if best != nil && c.tasks > fewest {
			continue
		}
		leaf := c.best()
		if leaf != nil && (best == nil || c.tasks < fewest || less(leaf.nodes[0], best.nodes[0])) {
			best, fewest = leaf, c.tasks
		}
	}
	return best
}

// next is the node that the next task goes to, or nil where none is left. Tell with placed before asking again.
func (b *branch) next() *node {
	leaf := b.best()
	if leaf == nil {
		return nil
	}
	return leaf.nodes[0]
}

// placed counts the task that the next node was given, and keeps the node where it fits another.
func (b *branch) placed(n *node, fits bool) {
	if fits {
		heap.Fix(&n.leaf.nodes, 0)
	} else {
		heap.Pop(&n.leaf.nodes)
	}
	for at := n.leaf; at != nil; at = at.parent {
		at.tasks++
	}
}

// nodeHeap implements heap.Interface.
type nodeHeap []*node

// Len implements heap.Interface.
func (h nodeHeap) Len() int { return len(h) }

// Less implements heap.Interface.
func (h nodeHeap) Less(i, j int) bool { return less(h[i], h[j]) }

// Swap implements heap.Interface.
func (h nodeHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *nodeHeap) Push(x any) { *h = append(*h, x.(*node)) }

// Pop implements heap.Interface.
func (h *nodeHeap) Pop() any {
	last := len(*h) - 1
	n := (*h)[last]
	*h = slices.Delete(*h, last, last+1)
	return n
}
