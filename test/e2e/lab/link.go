package lab

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// What links do is decided on the bridge: a frame between two hosts that are cut from each other is dropped there, both ways and
// without a word to either. Neither's own links, addresses or firewall show it, as with a broken switch.

// Cut cuts a host off from everything, the client too.
func (l *Lab) Cut(h *Host) error {
	return l.change(func() {
		for _, other := range append(l.names(), "client") {
			if other != h.Name {
				l.cut[pair(h.Name, other)] = true
			}
		}
	})
}

// CutBetween cuts two hosts off from each other alone.
func (l *Lab) CutBetween(a, b *Host) error {
	return l.change(func() { l.cut[pair(a.Name, b.Name)] = true })
}

// Partition lets each host reach those of its own group alone; hosts in no group are a group of their own. The client reaches all.
func (l *Lab) Partition(groups ...[]*Host) error {
	group := func(name string) int {
		return slices.IndexFunc(groups, func(g []*Host) bool {
			return slices.ContainsFunc(g, func(h *Host) bool { return h.Name == name })
		})
	}
	return l.change(func() {
		clear(l.cut)
		for _, a := range l.names() {
			for _, b := range l.names() {
				if a < b && group(a) != group(b) {
					l.cut[pair(a, b)] = true
				}
			}
		}
	})
}

// Heal mends every link that was cut. Delays stay.
func (l *Lab) Heal() error { return l.change(func() { clear(l.cut) }) }

// HealHost mends every link of a host.
func (l *Lab) HealHost(h *Host) error {
	return l.change(func() {
		for p := range l.cut {
			if p[0] == h.Name || p[1] == h.Name {
				delete(l.cut, p)
			}
		}
	})
}

// change changes which links are cut, and tells the bridge. In the bridge's namespace there is one table, made anew each time.
func (l *Lab) change(f func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	err := l.bridge.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		table := c.AddTable(&nftables.Table{Name: "lab", Family: nftables.TableFamilyBridge})
		chain := c.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		for p := range l.cut {
			for _, way := range [][2]string{{p[0], p[1]}, {p[1], p[0]}} {
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: dropBetween(l.port(way[0]), l.port(way[1]))})
			}
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("lab: cut links: %w", err)
	}
	return l.save()
}

func dropBetween(in, out string) []expr.Any {
	name := func(n string) []byte { return append([]byte(n), make([]byte, 16-len(n))...) }
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name(in)},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name(out)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

func (l *Lab) names() []string {
	var names []string
	for _, h := range l.Hosts {
		names = append(names, h.Name)
	}
	return names
}

// port is the bridge's end of a host's link.
func (l *Lab) port(name string) string {
	if h := l.Host(name); h != nil {
		return portName(h.number)
	}
	return portName(clientNumber)
}
