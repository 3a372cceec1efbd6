package netplugin

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The maps of an overlay router's tables, one table for each IP version that the network has. What changes are the elements of
// these maps, and a chain for each distinct number of backends; the number of rules does not depend on that of VIPs.
const (
	mapVIPs     = "vips"     // VIP → mark of its number of backends
	mapDispatch = "dispatch" // mark → chain; one for each number that has one
	mapHairpin  = "hairpin"  // task's address . the same → gateway, for tasks of this machine
	// and mapBackends: VIP . index → task's address
)

// refuseName is the chain that refuses what goes to a VIP without backends.
const refuseName = "refuse"

// overlayLink is the name of an overlay router's link to other nodes.
const overlayLink = "vx"

// overlayFamily is what differs between the IP versions.
type overlayFamily struct {
	table        nftables.TableFamily
	proto        uint32
	address      nftables.SetDatatype
	size         uint32 // of an address
	source, dest uint32 // where in the header they are
	portUnreach  uint8
	hostUnreach  uint8
	prohibited   uint8 // "communication administratively prohibited"
}

// overlayFamilies are by version.
var overlayFamilies = [2]overlayFamily{
	{nftables.TableFamilyIPv4, unix.NFPROTO_IPV4, nftables.TypeIPAddr, 4, 12, 16, 3, 1, 13},
	{nftables.TableFamilyIPv6, unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 16, 8, 24, 4, 3, 1},
}

// words is the size of an address in registers of 4 bytes.
func (f overlayFamily) words() uint32 { return f.size / 4 }

// newTransaction queues changes of the family's table.
func (f overlayFamily) newTransaction(c *nftables.Conn) *transaction {
	t := &nftables.Table{Name: tableName, Family: f.table}
	return &transaction{Conn: c, table: t, maps: f.maps(t)}
}

func (f overlayFamily) maps(t *nftables.Table) []*nftables.Set {
	return []*nftables.Set{
		{Table: t, Name: mapVIPs, IsMap: true, KeyType: f.address, DataType: nftables.TypeMark},
		{Table: t, Name: mapDispatch, IsMap: true, KeyType: nftables.TypeMark, DataType: nftables.TypeVerdict},
		{Table: t, Name: mapBackends, IsMap: true, KeyType: nftables.MustConcatSetType(f.address, nftables.TypeMark), DataType: f.address},
		{Table: t, Name: mapHairpin, IsMap: true, KeyType: nftables.MustConcatSetType(f.address, f.address), DataType: f.address},
	}
}

// chains are those of the table, but for the ones that pick a backend. That the mark leads to a chain in two steps keeps a change of
// a number of backends as cheap as any other: the kernel checks a map of chains anew, whole, when one is added.
func (f overlayFamily) chains() []chain {
	toServices := []rule{{"services", f.markVIP()}, {"number of backends", dispatchMark()}}
	chains := []chain{
		{name: refuseName, rules: []rule{
			{"no backends", join(f.tcp(), []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})},
			{"no backends", f.unreachable(f.portUnreach)},
		}},
		{"raw", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, []rule{
			{"no address but the task's own", join(fromTask(), noWayBack(), drop())},
		}},
		{"prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, toServices},
		// A change may come between two lookups of a packet, which then finds no backend of the index that it has, or a new chain that is
		// still empty for a packet that set out before. The packet gets a second chance, in a chain that begins after the change.
		{"prerouting_again", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, new(*nftables.ChainPriorityNATDest + 1), toServices},
		{"forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, []rule{
			{"nothing back to other nodes", join(inLink(overlayLink, true), outLink(overlayLink, true), f.unreachable(f.hostUnreach))},
		}},
		{"postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, []rule{
			// Else a task that is its own backend would get packets from its own address, and answer itself.
			{"task to itself", f.hairpin()},
		}},
	}
	for n := range standingPicks {
		chains = append(chains, f.pick(n+1))
	}
	return chains
}

// pick is the chain that picks one of n backends of the packet's VIP.
func (f overlayFamily) pick(n int) chain {
	index, to := register+f.words(), register+2*f.words()+4
	return chain{name: pickName(n), rules: []rule{{"one of them", join(setMark(0), f.hashOf(n, index, index+1), []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: f.dest, Len: f.size},
		&expr.Lookup{SourceRegister: register, DestRegister: to, IsDestRegSet: true, SetName: mapBackends},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: f.proto, RegAddrMin: to},
	})}}}
}

// hashOf puts a number below n into a register that is the same for all packets of a connection's way, out of its source and its ports. So a
// connection that was idle until the kernel forgot it goes to the backend that it had. The registers from scratch on are used up.
func (f overlayFamily) hashOf(n int, to, scratch uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: scratch, Base: expr.PayloadBaseNetworkHeader, Offset: f.source, Len: f.size},
		&expr.Payload{DestRegister: scratch + f.words(), Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 4},
		&expr.Hash{SourceRegister: scratch, DestRegister: to, Length: f.size + 4, Modulus: uint32(n), Seed: hashSeed, Type: expr.HashTypeJenkins},
	}
}

// hashSeed is any number that stays: left out, the kernel would take another for each chain.
const hashSeed = 1

// markVIP marks a packet to a VIP with its number of backends.
func (f overlayFamily) markVIP() []expr.Any {
	to := register + f.words()
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: f.dest, Len: f.size},
		&expr.Lookup{SourceRegister: register, DestRegister: to, IsDestRegSet: true, SetName: mapVIPs},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: to},
	}
}

func dispatchMark() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Lookup{SourceRegister: register, DestRegister: verdictRegister, IsDestRegSet: true, SetName: mapDispatch},
	}
}

// setMark is for pick chains: the mark must not choose a route for what VXLAN makes of the packet.
func setMark(n uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register, Data: []byte(native(n))},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
	}
}

func (f overlayFamily) hairpin() []expr.Any {
	to := register + 2*f.words()
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: f.source, Len: f.size},
		&expr.Payload{DestRegister: register + f.words(), Base: expr.PayloadBaseNetworkHeader, Offset: f.dest, Len: f.size},
		&expr.Lookup{SourceRegister: register, DestRegister: to, IsDestRegSet: true, SetName: mapHairpin},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: f.proto, RegAddrMin: to},
	}
}

func (f overlayFamily) tcp() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{unix.IPPROTO_TCP}},
	}
}

func (f overlayFamily) unreachable(code uint8) []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}
}

// fromTask is true for packets that come by a task's link: its name begins with "t", see linkName.
func fromTask() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte("t")},
	}
}

// noWayBack is true for packets whose source has no route by the link that they came by.
func noWayBack() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: register, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: make([]byte, 4)},
	}
}
