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

// foreigners are the chains of a namespace that are not ours.
type foreigners struct {
	c      *nftables.Conn
	chains []*nftables.Chain
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
	return &foreigners{c, all}, nil
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
	rules, err := f.c.GetRules(in.Table, in)
	if err != nil || len(rules) == 0 {
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
		rules, err := f.c.GetRules(in.Table, list[i])
		if err != nil {
			continue
		}
		for _, r := range rules {
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

// mentions tells whether a rule of a chain, or of those that it leads to, compares something with such data.
func (f *foreigners) mentions(in *nftables.Chain, with ...func([]byte) bool) bool {
	for _, one := range f.within(in) {
		for _, is := range with {
			if compares(f.c, one, is) {
				return true
			}
		}
	}
	return false
}

func isLink(name string) func([]byte) bool {
	return func(data []byte) bool { return bytes.Equal(bytes.TrimRight(data, "\x00"), []byte(name)) }
}

func isPort(port uint16) func([]byte) bool {
	return func(data []byte) bool { return bytes.Equal(data, binaryutil.BigEndian.PutUint16(port)) }
}

// obstacles are what keeps tasks, and other nodes, from what they need of this machine, in sentences.
func (l *Linux) obstacles(want *desired) ([]string, error) {
	found, err := l.host.obstacles(l.hostSix)
	if err != nil {
		return nil, err
	}
	more, err := l.host.meshObstacles(want.wire)
	return append(found, more...), err
}

// obstacles are chains that keep tasks' packets from being forwarded, and tasks from asking for names.
func (n *namespace) obstacles(six bool) ([]string, error) {
	f, err := n.foreigners()
	if err != nil {
		return nil, err
	}
	families := []nftables.TableFamily{nftables.TableFamilyIPv4}
	var found []string
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
	return found, nil
}

// meshObstacles are what keeps this machine from other nodes: that it has not the address that they send to, and chains that drop what comes to
// the data port.
func (n *namespace) meshObstacles(u underlay) (found []string, err error) {
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
	f, err := n.foreigners()
	if err != nil {
		return nil, err
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

// compares tells whether a rule of the chain compares something with such data. Rules that cannot be read do not.
func compares(c *nftables.Conn, in *nftables.Chain, with func([]byte) bool) bool {
	rules, err := c.GetRules(in.Table, in)
	if err != nil {
		return false
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if cmp, ok := e.(*expr.Cmp); ok && with(cmp.Data) {
				return true
			}
		}
	}
	return false
}
