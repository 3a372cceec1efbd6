package netplugin

import (
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// All tasks of a machine ask at one socket. What one of them asks is bounded before it gets there, for a socket that is full drops
// whatever comes next, whoever sent it.
//
// The resolver answers some 20,000 questions for each second of a processor. askerRate leaves most of that to the others, and is two
// questions, IPv4 and IPv6, for each of 2,500 requests a second. askerBurst takes a quarter of the socket's buffer, and less than all of it
// where questions are as large as packets may be. A connection costs more than a question, and is there for answers that do not go into a packet.
const (
	askerRate   = 5000
	askerBurst  = 2500
	callerRate  = 1000
	callerBurst = 500
	// askerMemory is how long an asker is remembered that asks no more: longer than it takes to have the whole burst again.
	askerMemory = 10 * time.Second
)

// The sets of who asked lately, with what each of them has left. The kernel fills them while packets pass, tells nobody of that, and forgets by
// itself; so what is in them is no part of what a table should be.
const (
	setAskers  = "askers"  // by UDP
	setCallers = "callers" // by TCP
)

// askerRules drop what one task asks too much, by UDP and of new connections. Where a set were full, nobody new would be bounded.
func askerRules(s side, byUDP, byTCP []expr.Any) []rule {
	begins := connection(expr.CtKeySTATE, expr.CtStateBitNEW)
	return []rule{
		{"too many questions of one task", join(byUDP, over(s, setAskers, askerRate, askerBurst), drop())},
		{"too many connections of one task", join(byTCP, begins, over(s, setCallers, callerRate, callerBurst), drop())},
	}
}

// over is true for packets that are more than their source may send.
func over(s side, set string, rate uint64, burst uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: s.source, Len: s.size},
		&expr.Dynset{SrcRegKey: register, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: askerMemory, Exprs: []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst, Over: true},
		}},
	}
}

// askerSets are the sets, which have room for all tasks of the machine.
func (s side) askerSets(t *nftables.Table) (all []*nftables.Set) {
	if s.v == 1 || s.unlimited {
		return nil // nobody asks by IPv6
	}
	for _, name := range []string{setAskers, setCallers} {
		all = append(all, &nftables.Set{Table: t, Name: name, KeyType: s.address, Dynamic: true, HasTimeout: true,
			Size: 1 << (s.block.Addr().BitLen() - s.block.Bits())})
	}
	return all
}

// kernelLimits tries, in a namespace of its own and once, whether the kernel can bound what each task asks.
var kernelLimits = sync.OnceValue(func() error {
	n := &namespace{name: "a trial"}
	return onThread(func() error {
		if err := n.unshare(); err != nil {
			return err
		}
		defer n.close()
		c, err := n.firewall()
		if err != nil {
			return err
		}
		block := netip.MustParsePrefix("192.0.2.0/24")
		s := base{block: block, pool: block}.side(0)
		t := s.newTransaction(c)
		t.replaceTable(s.askerSets(t.table), []chain{{name: "input", rules: resolverGuard(s)}})
		if err := t.commit(); err != nil {
			return fmt.Errorf("this kernel lacks limits by source in nftables: %w", err)
		}
		return nil
	})
})
