package netplugin

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// tableName is that of our table in every namespace that has one.
const tableName = "swarmd"

// The links between a machine and its router.
const (
	hostLink   = "gw0" // in the machine's own namespace
	routerLink = "up0" // in the router's
	taskLink   = "eth0"
)

// Registers of 4 bytes, and the verdict's. Those of 16 bytes overlay them.
const (
	verdictRegister = 0
	register        = unix.NFT_REG32_00
)

// chain is a chain and what it does. One without a hook is only gone to.
type chain struct {
	name  string
	kind  nftables.ChainType
	hook  *nftables.ChainHook
	prio  *nftables.ChainPriority
	rules []rule
}

// rule is a rule, and what it is for in a few words.
type rule struct {
	why   string
	exprs []expr.Any
}

// tag is the rule's comment in the kernel. It ends in a digest of the rule, by which one of an earlier version of swarmd, or
// one that somebody changed, is told: what the kernel gives back of a rule is not always what it was given.
func (r rule) tag() []byte {
	sum := sha256.New()
	for _, e := range r.exprs {
		b, err := expr.Marshal(unix.NFPROTO_IPV4, e)
		fmt.Fprintf(sum, "%T %x %v\n", e, b, err)
	}
	return userdata.AppendString(nil, userdata.TypeComment, r.why+" "+hex.EncodeToString(sum.Sum(nil)[:4]))
}

// The maps of the machine's own table. A changed backend is two elements, and the chains that tell one number of backends from
// another are there once, however many ports there are.
//
// A port leads to its chain at once, not by its number of backends: a key that is itself looked up in a map has no length to
// nft, and it aborts whenever it comes upon such a rule, whatever it was asked to list (1.0.6 of Debian 12 does).
const (
	mapPorts    = "ports"    // protocol . port → chain of its number of backends
	mapBackends = "backends" // protocol . port . index → address . port
)

// hostMaps are the maps of the machine's own table.
func (s side) hostMaps(t *nftables.Table) []*nftables.Set {
	service := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	return append([]*nftables.Set{
		{Table: t, Name: mapPorts, IsMap: true, KeyType: nftables.MustConcatSetType(service...), DataType: nftables.TypeVerdict},
		{Table: t, Name: mapBackends, IsMap: true, KeyType: nftables.MustConcatSetType(append(service, nftables.TypeMark)...),
			DataType: nftables.MustConcatSetType(s.address, nftables.TypeInetService)},
	}, s.placeMaps(t)...)
}

// hostChains are the chains of the machine's own table, but those that pick a backend.
func hostChains(s side) []chain {
	dispatch := []rule{
		{"names are not published", join(destination(host(Resolver.Addr())), accept())},
		{"published ports", dispatchPort()},
		{"at some addresses", dispatchPlace(s)},
	}
	if s.v == 1 { // nothing with an address of one link is forwarded to another
		dispatch[0] = rule{"link-local addresses are not published", join(destination(linkLocal), accept())}
	}
	dispatchIn := append(slices.Clone(dispatch), rule{"at some links", dispatchLink()})
	chains := []chain{
		{name: "raw", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, prio: nftables.ChainPriorityRaw, rules: []rule{
			// gw0 routes loopback addresses, for 127.0.0.1:port on this machine, and a published port is translated before the kernel would
			// see that such an address cannot come by a link: neither a task nor a neighbour must reach them.
			{"nobody else to loopback", join(inLink("lo", false), destination(s.loopback), drop())},
		}},
		{name: "prerouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, prio: nftables.ChainPriorityNATDest, rules: dispatchIn},
		{name: "output", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookOutput, prio: nftables.ChainPriorityNATDest, rules: dispatch},
		// A change may come between two steps of a packet through these chains, which then finds an element or a chain no more, and would be
		// refused by the machine. It gets a second chance, as with virtual addresses: a chain that begins after the change.
		{name: "prerouting_again", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, prio: new(*nftables.ChainPriorityNATDest + 1), rules: dispatchIn},
		{name: "output_again", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookOutput, prio: new(*nftables.ChainPriorityNATDest + 1), rules: dispatch},
		{name: "forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, prio: nftables.ChainPriorityFilter, rules: append(strayReplies(s), []rule{
			{"replies", join(outLink(hostLink, true), connection(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())},
			{"by a published port", join(outLink(hostLink, true), connection(expr.CtKeySTATUS, statusDNAT), accept())},
			{"nobody straight to a task", join(outLink(hostLink, true), drop())},
		}...)},
		{name: "filter_output", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookOutput, prio: nftables.ChainPriorityFilter, rules: []rule{
			// A task that uses a port published here is sent back through the link it came by, which is what we want.
			{"no redirects to tasks", join(outLink(hostLink, true), s.redirect(), drop())},
		}},
		{name: "postrouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, prio: nftables.ChainPriorityNATSource, rules: []rule{
			// Else the backend would answer the task directly, from an address that it never asked.
			{"task to a port published here", join(inLink(hostLink, true), outLink(hostLink, true), connection(expr.CtKeySTATUS, statusDNAT), s.sourceNAT())},
			{"loopback to a port published here", join(outLink(hostLink, true), source(s.loopback), s.sourceNAT())},
			{"out of the swarm", join(outLink(hostLink, false), source(s.block), []expr.Any{&expr.Masq{}})},
		}},
	}
	for n := range standingPicks {
		chains = append(chains, pickChain(s, n+1))
	}
	if s.v == 0 {
		return append(chains, chain{name: "input", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookInput, prio: nftables.ChainPriorityFilter, rules: resolverGuard(s)})
	}
	if s.kept {
		forward := &chains[slices.IndexFunc(chains, func(c chain) bool { return c.name == "forward" })]
		forward.rules = append(forward.rules, rule{"nothing of others", join(inLink(hostLink, false), outLink(hostLink, false), notOfBridge(), drop())})
	}
	return chains
}

// linkLocal are the addresses that IPv6 has on each link.
var linkLocal = netip.MustParsePrefix("fe80::/10")

// metaInKind is NFT_META_IIFKIND, which the nftables package does not name: the kind of link that a packet came by.
const metaInKind = 26

// notOfBridge is true for packets that came by no bridge: those of its machines may be shown to the rules though nothing forwards them.
func notOfBridge() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: metaInKind, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: padded("bridge")},
	}
}

// strayReplies are rules against replies that this machine knows no connection of, since it was forgotten or they make no sense: they
// would leave with an address that means nothing outside.
func strayReplies(s side) []rule {
	fromPool := join(inLink(hostLink, true), source(s.pool))
	return []rule{
		{"nothing untranslated", join(fromPool, connection(expr.CtKeySTATE, expr.CtStateBitINVALID), drop())},
		{"only replies of other nodes' tasks", join(fromPool, notFrom(s.block), connection(expr.CtKeySTATE, expr.CtStateBitNEW), drop())},
	}
}

// standingPicks is up to which number of backends a table always has the chain that picks one. The kernel goes through all backends for each rule
// that comes to look one up, and services of few have one less, and one more again, all the time.
const standingPicks = 16

// pickName is the name of the chain that picks one of n backends.
func pickName(n int) string { return fmt.Sprintf("pick%d", n) }

// pickChain picks one of n backends for the packet's protocol and port. A packet may find its chain before a change and look for the
// backend after it: where there are fewer by then it gets the first, which a port has for as long as it is there.
func pickChain(s side, n int) chain {
	rules := []rule{{"one of them", s.pickOf(n)}}
	if n > 1 {
		rules = append(rules, rule{"the first where there are fewer now", s.pickOf(1)})
	}
	return chain{name: pickName(n), rules: rules}
}

func (s side) pickOf(n int) []expr.Any {
	to := uint32(register + 4)
	return append(s.hashOf(n, register+2, register+3),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Payload{DestRegister: register + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: register, DestRegister: to, IsDestRegSet: true, SetName: mapBackends},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: s.proto, RegAddrMin: to, RegProtoMin: to + s.words(), Specified: true})
}

// dispatchPort goes to the pick chain of a packet to a port that answers at all of this machine's addresses.
func dispatchPort() []expr.Any {
	return append(toPort(),
		&expr.Lookup{SourceRegister: register, DestRegister: verdictRegister, IsDestRegSet: true, SetName: mapPorts})
}

// statusDNAT is IPS_DST_NAT: the connection's destination was translated.
const statusDNAT = 1 << 5

func join(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func inLink(name string, is bool) []expr.Any  { return link(expr.MetaKeyIIFNAME, name, is) }
func outLink(name string, is bool) []expr.Any { return link(expr.MetaKeyOIFNAME, name, is) }

func link(key expr.MetaKey, name string, is bool) []expr.Any {
	op := expr.CmpOpNeq
	if is {
		op = expr.CmpOpEq
	}
	return []expr.Any{&expr.Meta{Key: key, Register: unix.NFT_REG_1}, &expr.Cmp{Op: op, Register: unix.NFT_REG_1, Data: padded(name)}}
}

// padded is a link's name as the kernel compares it.
func padded(name string) []byte {
	all := make([]byte, unix.IFNAMSIZ)
	copy(all, name)
	return all
}

func source(p netip.Prefix) []expr.Any      { return address(familyOfPrefix(p).source, expr.CmpOpEq, p) }
func notFrom(p netip.Prefix) []expr.Any     { return address(familyOfPrefix(p).source, expr.CmpOpNeq, p) }
func destination(p netip.Prefix) []expr.Any { return address(familyOfPrefix(p).dest, expr.CmpOpEq, p) }

func familyOfPrefix(p netip.Prefix) overlayFamily { return overlayFamilies[version(p.Addr())] }

func address(offset uint32, op expr.CmpOp, p netip.Prefix) []expr.Any {
	size := familyOfPrefix(p).size
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: size, Mask: ipNet(p).Mask, Xor: make([]byte, size)},
		&expr.Cmp{Op: op, Register: register, Data: p.Masked().Addr().AsSlice()},
	}
}

// connection is true if any of the bits is set in what conntrack knows by the key.
func connection(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

// redirect is true for a message that tells of a better way.
func (s side) redirect() []expr.Any {
	return s.message([2]byte{5, 137}) // ICMP_REDIRECT, NDISC_REDIRECT
}

// echo is true for a message that asks for an echo.
func (s side) echo() []expr.Any {
	return s.message([2]byte{8, 128}) // ICMP_ECHO, ICMPV6_ECHO_REQUEST
}

// message is true for one of ICMP of a kind, by IP version.
func (s side) message(kind [2]byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{s.icmp()}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{kind[s.v]}},
	}
}

func (s side) sourceNAT() []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register, Data: s.face.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: s.proto, RegAddrMin: register},
	}
}

// reject tells the sender at once, where drop would make it wait.
func (s side) reject() []expr.Any { return s.unreachable(s.prohibited) }

func drop() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }
func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
