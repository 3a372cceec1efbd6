package netplugin

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// setTargets is the router's set of what connections by way of other nodes may lead to: address . protocol . port.
const setTargets = "targets"

func targetSet(t *nftables.Table, s side) *nftables.Set {
	return &nftables.Set{Table: t, Name: setTargets, KeyType: nftables.MustConcatSetType(s.address, nftables.TypeInetProto, nftables.TypeInetService)}
}

// routerChains are the chains of the gateway router's table.
func routerChains(s side) []chain {
	fromTask := join(inLink(routerLink, false), inLink(meshLink, false))
	chains := []chain{
		{name: "raw", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, prio: nftables.ChainPriorityRaw, rules: []rule{
			// The reverse path filter of tasks' links would see to it, but only after the packet passed as another task's here.
			{"no task with another's address", join(fromTask, noWayBack(), drop())},
		}},
		// It is empty, and must be there: with it the kernel gives a connection another source port where it would look like one that is
		// there, as two of one client's may that came by way of two nodes to one backend.
		{name: "postrouting", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPostrouting, prio: nftables.ChainPriorityNATSource},
	}
	if s.v == 0 {
		chains = append(chains, chain{name: "dns", kind: nftables.ChainTypeNAT, hook: nftables.ChainHookPrerouting, prio: nftables.ChainPriorityNATDest, rules: resolverTranslation(fromTask)})
	}
	forward := append([]rule{sealedRule(s, fromTask)}, internalRules(s, fromTask)...)
	forward = append(forward, rule{"nothing back to where it came from", join(inLink(routerLink, true), outLink(routerLink, true), drop())})
	if s.base.wire.up() {
		chains[0].rules = append(chains[0].rules, rule{"none of our tasks elsewhere", join(inLink(meshLink, true), source(s.block), drop())})
		chains = append(chains,
			chain{name: "mesh", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookPrerouting, prio: nftables.ChainPriorityMangle, rules: meshRules(s)},
			// What the router itself says about such a connection, such as that its task is gone.
			chain{name: "output", kind: nftables.ChainTypeRoute, hook: nftables.ChainHookOutput, prio: nftables.ChainPriorityMangle, rules: []rule{
				{"errors by way of the ingress", join(reply(), markPacket())},
			}})
		forward = append(forward,
			rule{"no way through from node to node", join(inLink(meshLink, true), outLink(meshLink, true), drop())},
			rule{"from other nodes", join(inLink(meshLink, true), accept())}, // looked at in chain mesh
			rule{"replies to other nodes", join(outLink(meshLink, true), marked(), accept())})
	}
	forward = append(forward, rule{"no task to task", join(inLink(routerLink, false), outLink(routerLink, false), s.reject())})
	return append(chains, chain{name: "forward", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookForward, prio: nftables.ChainPriorityFilter, rules: forward})
}

// meshRules let in what other nodes send, and have replies remember the way. They come before the routes are looked up: what has
// none is not answered, since the answer would leave by the wrong machine.
func meshRules(s side) []rule {
	fromNode := inLink(meshLink, true)
	return []rule{
		{"known connections", join(fromNode, connection(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())},
		// By which the doctor sees that the way between the nodes is open. They go to the router itself, and to no task.
		{"echoes for the router", join(fromNode, destination(host(s.gateway)), s.echo(), accept())},
		// By which an agent that reaches no manager finds out who is there. A node lets out no such question of its tasks.
		{"echoes for tasks", join(fromNode, destination(s.block), s.echo(), markConnection(), accept())},
		{"no task of other nodes", join(fromNode, source(s.pool), drop())},
		{"to published ports only", join(fromNode, s.notTarget(), drop())},
		{"remember the ingress", join(fromNode, markConnection())},
		{"no reply to nothing", join(inLink(meshLink, false), inLink(routerLink, false), connection(expr.CtKeySTATE, expr.CtStateBitINVALID), drop())},
		{"replies by way of the ingress", join(inLink(meshLink, false), reply(), markPacket())},
	}
}

// egressTable is of the one chain that gives replies the ingress's link address. The link's number is in the rule's comment: with
// another link the chain must be made anew.
func egressTable() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyNetdev}
}

func egressChain(link int) chain {
	return chain{name: "egress", kind: nftables.ChainTypeFilter, hook: nftables.ChainHookEgress, prio: nftables.ChainPriorityFilter, rules: []rule{
		{fmt.Sprintf("replies of link %d to the ingress", link), join(marked(), []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
			&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: register, Base: expr.PayloadBaseLLHeader, Offset: 2, Len: 4},
		})},
	}}
}

// notTarget is true if the packet goes to none of the targets.
func (s side) notTarget() []expr.Any {
	protocol := register + s.words()
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: s.dest, Len: s.size},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: protocol},
		&expr.Payload{DestRegister: protocol + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: register, SetName: setTargets, Invert: true},
	}
}

// markConnection gives the connection its ingress's mark, out of the sender's link address.
func markConnection() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseLLHeader, Offset: 6 + 2, Len: 4},
		&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderNtoh, Len: 4, Size: 4},
		&expr.Ct{Key: expr.CtKeyMARK, Register: register, SourceRegister: true},
	}
}

// markPacket gives the packet its connection's mark.
func markPacket() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: register},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register, SourceRegister: true},
	}
}

// marked is true for a packet that has an ingress's mark.
func marked() []expr.Any {
	bit := binaryutil.NativeEndian.PutUint32(markBit)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: bit, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

// reply is true for a packet that goes the other way than its connection's first.
func reply() []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{1}}, // IP_CT_DIR_REPLY
	}
}
