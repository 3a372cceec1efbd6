package reconcile

import (
	"cmp"
	"net/netip"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// An address with two holders is nothing that rules make. Where it is there all the same, one keeps it, whoever decides about the
// others: tasks that are placed come first, in the order in which they were, then services, then tasks that are not placed.

// claim is what a holder's right to an address goes by.
type claim struct {
	class int
	at    time.Time
	id    string
}

func claimOf(s *store.Snapshot, h store.Holder) claim {
	c := claim{class: 2, id: h.ID}
	if h.Kind == v1.KindService {
		c.class = 1
	} else if t, ok := store.Get(s, v1.Tasks, h.ID); ok && v1.TaskNode(t) != "" {
		c.class, c.at = 0, t.Desired.Placement.At
	}
	return c
}

func (c claim) compare(o claim) int {
	return cmp.Or(cmp.Compare(c.class, o.class), c.at.Compare(o.at), cmp.Compare(c.id, o.id))
}

// Prevails tells whether nobody has a better claim to an address on a network than one of its holders.
func Prevails(s *store.Snapshot, h store.Holder, network string, a netip.Addr) bool {
	if !s.Contested(network, a) {
		return true
	}
	mine := claimOf(s, h)
	for other := range s.AddressHolders(network, a) {
		if other != h && claimOf(s, other).compare(mine) < 0 {
			return false
		}
	}
	return true
}

// Displaced is the address of a placed task that somebody else has a better claim to, or "". It cannot be given another: what runs
// has the one that it was started with.
func Displaced(s *store.Snapshot, t *v1.Task) string {
	if !v1.HoldsAddresses(t) || v1.TaskNode(t) == "" {
		return ""
	}
	for _, on := range t.Desired.Networks {
		for _, text := range on.Addresses {
			p, err := netip.ParsePrefix(text)
			if err == nil && !Prevails(s, store.Holder{Kind: v1.KindTask, ID: t.Meta.ID}, on.Network, p.Addr()) {
				return p.Addr().String()
			}
		}
	}
	return ""
}

// Contestants are the services that have a part in an address with two holders, themselves or by their tasks.
func Contestants(s *store.Snapshot) []string {
	var keys []string
	for c := range s.Contests() {
		for h := range s.AddressHolders(c.Network, c.Address) {
			if t, ok := store.Get(s, v1.Tasks, h.ID); ok && h.Kind == v1.KindTask {
				keys = append(keys, t.Desired.Service)
			} else if h.Kind == v1.KindService {
				keys = append(keys, h.ID)
			}
		}
	}
	return keys
}
