package netplugin

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

// What one chain accepts another may still drop, so that ours can do nothing about it where another firewall of the machine is in the way:
// it is said instead.

// namesPort is where the resolver is asked.
const namesPort = 53

// foreigners are the chains of a namespace that are not ours, and what was read of their rules: other firewalls may have thousands.
type foreigners struct {
	c      *nftables.Conn
	chains []*nftables.Chain
	rules  map[*nftables.Chain][]*nftables.Rule
}

func (n *namespace) foreigners() (*foreigners, error) {
	c, err := n.firewall()
	if err != nil {
		return nil, err
	}
	all, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains of %s: %w", n.name, err)
	}
	all = slices.DeleteFunc(all, func(one *nftables.Chain) bool {
		return one.Table.Name == tableName && one.Table.Family != nftables.TableFamilyINet
	})
	return &foreigners{c, all, map[*nftables.Chain][]*nftables.Rule{}}, nil
}

// rulesOf are a chain's rules; none where they cannot be read.
func (f *foreigners) rulesOf(in *nftables.Chain) []*nftables.Rule {
	rules, read := f.rules[in]
	if !read {
		rules, _ = f.c.GetRules(in.Table, in)
		f.rules[in] = rules
	}
	return rules
}

// closed are those at a hook that drop, or reject, what none of their rules accepts, for an IP version.
func (f *foreigners) closed(hook nftables.ChainHook, families ...nftables.TableFamily) (found []*nftables.Chain) {
	for _, one := range f.chains {
		if one.Hooknum == nil || *one.Hooknum != hook || !slices.Contains(append(families, nftables.TableFamilyINet), one.Table.Family) {
			continue
		}
		if one.Policy != nil && *one.Policy == nftables.ChainPolicyDrop || f.endsClosed(one) {
			found = append(found, one)
		}
	}
	return found
}

// endsClosed tells whether the chain's last rule drops or rejects whatever comes to it.
func (f *foreigners) endsClosed(in *nftables.Chain) bool {
	rules := f.rulesOf(in)
	if len(rules) == 0 {
		return false
	}
	closes := false
	for _, e := range rules[len(rules)-1].Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			closes = true
		case *expr.Verdict:
			closes = e.Kind == expr.VerdictDrop
		default:
			return false
		}
	}
	return closes
}

// within are a chain and those that it leads to.
func (f *foreigners) within(in *nftables.Chain) []*nftables.Chain {
	list := []*nftables.Chain{in}
	for i := 0; i < len(list); i++ {
		for _, r := range f.rulesOf(list[i]) {
			for _, e := range r.Exprs {
				v, ok := e.(*expr.Verdict)
				if !ok || v.Chain == "" {
					continue
				}
				if next := slices.IndexFunc(f.chains, func(o *nftables.Chain) bool { return o.Name == v.Chain && *o.Table == *in.Table }); next >= 0 &&
					!slices.Contains(list, f.chains[next]) {
					list = append(list, f.chains[next])
				}
			}
		}
	}
	return list
}

// mentions tells whether a rule of a chain, or of those that it leads to, compares something with such data, or looks for it in a set.
func (f *foreigners) mentions(in *nftables.Chain, with ...func([]byte) bool) bool {
	such := func(data []byte) bool {
		return slices.ContainsFunc(with, func(is func([]byte) bool) bool { return is(data) })
	}
	for _, one := range f.within(in) {
		for _, r := range f.rulesOf(one) {
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case *expr.Cmp:
					if such(e.Data) {
						return true
					}
				case *expr.Lookup:
					if f.holds(in.Table, e.SetName, such) {
						return true
					}
				}
			}
		}
	}
	return false
}

// holds tells whether a set has an element with such data.
func (f *foreigners) holds(table *nftables.Table, set string, such func([]byte) bool) bool {
	elements, err := f.c.GetSetElements(&nftables.Set{Table: table, Name: set})
	return err == nil && slices.ContainsFunc(elements, func(e nftables.SetElement) bool { return such(e.Key) })
}

func isLink(name string) func([]byte) bool {
	return func(data []byte) bool { return bytes.Equal(bytes.TrimRight(data, "\x00"), []byte(name)) }
}

func isPort(port uint16) func([]byte) bool {
	return func(data []byte) bool { return bytes.Equal(data, binaryutil.BigEndian.PutUint16(port)) }
}

// obstacles are what keeps tasks, and other nodes, from what they need of this machine, in sentences.
func (l *Linux) obstacles(want *desired) ([]string, error) {
	f, err := l.host.foreigners()
	if err != nil {
		return nil, err
	}
	more, err := l.host.meshObstacles(f, want.wire)
	return append(f.obstacles(l.hostSix), more...), err
}

// obstacles are chains that keep tasks' packets from being forwarded, and tasks from asking for names.
func (f *foreigners) obstacles(six bool) (found []string) {
	families := []nftables.TableFamily{nftables.TableFamilyIPv4}
	for _, one := range f.closed(*nftables.ChainHookInput, families...) {
		if !f.mentions(one, isLink(hostLink), isPort(namesPort)) {
			found = append(found, fmt.Sprintf("chain %s of table %s drops what comes in, so tasks of this machine get no answer when they ask for names: "+
				"accept interface %s there, at least for UDP and TCP port %d (with ufw: ufw allow in on %s)", one.Name, one.Table.Name, hostLink, namesPort, hostLink))
		}
	}
	if six {
		families = append(families, nftables.TableFamilyIPv6)
	}
	for _, one := range f.closed(*nftables.ChainHookForward, families...) {
		if !f.mentions(one, isLink(hostLink)) {
			found = append(found, fmt.Sprintf("chain %s of table %s drops what is forwarded, so tasks cannot reach anything outside and published ports "+
				"do not answer: accept interface %s there, in and out (with Docker: in chain DOCKER-USER)", one.Name, one.Table.Name, hostLink))
		}
	}
	return found
}

// meshObstacles are what keeps this machine from other nodes: that it has not the address that they send to, and chains that drop what comes to
// the data port.
func (n *namespace) meshObstacles(f *foreigners, u underlay) (found []string, err error) {
	if !u.up() {
		return nil, nil
	}
	list, err := dump(func() ([]netlink.Addr, error) { return n.AddrList(nil, familyOf(u.addr)) })
	if err != nil {
		return nil, fmt.Errorf("list addresses in %s: %w", n.name, err)
	}
	if !slices.ContainsFunc(list, func(a netlink.Addr) bool { return prefixOf(a.IPNet).Addr() == u.addr }) {
		found = append(found, fmt.Sprintf("this machine has not the address %s, to which other nodes send: its tasks and theirs do not reach each other", u.addr))
	}
	version := nftables.TableFamilyIPv4
	if u.addr.Is6() {
		version = nftables.TableFamilyIPv6
	}
	for _, one := range f.closed(*nftables.ChainHookInput, version) {
		if !f.mentions(one, isPort(u.port)) {
			found = append(found, fmt.Sprintf("chain %s of table %s drops what comes in, so other nodes may not reach this one's tasks: accept UDP port %d there", one.Name, one.Table.Name, u.port))
		}
	}
	return found, nil
}
