package network

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// An address with two holders is nothing that the rules make. Where it is there all the same, one keeps it, and the others get
// another: tasks that are placed come first, in the order in which they were, then services, then tasks that are not placed. A
// placed task cannot change its address: it is stopped, and replaced.

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

func compareClaims(a, b claim) int {
	return cmp.Or(cmp.Compare(a.class, b.class), a.at.Compare(b.at), cmp.Compare(a.id, b.id))
}

// prevails tells whether nobody has a better claim to an address than its holder.
func (d *decision) prevails(h store.Holder, network string, a netip.Addr) bool {
	if !slices.Contains(d.contests, store.Contest{Network: network, Address: a}) {
		return true
	}
	mine := claimOf(d.snapshot, h)
	for other := range d.snapshot.AddressHolders(network, a) {
		if other != h && compareClaims(claimOf(d.snapshot, other), mine) < 0 {
			return false
		}
	}
	return true
}

// undisputed is prevails for all addresses of a holder on a network.
func (d *decision) undisputed(h store.Holder, on v1.NetworkAddress) bool {
	return !slices.ContainsFunc(on.Addresses, func(text string) bool {
		p, err := netip.ParsePrefix(text)
		return err != nil || !d.prevails(h, on.Network, p.Addr())
	})
}

// settle stops the service's placed tasks whose address is another's.
func (d *decision) settle() {
	for _, c := range d.contests {
		for h := range d.snapshot.AddressHolders(c.Network, c.Address) {
			t, ok := store.Get(d.snapshot, v1.Tasks, h.ID)
			if !ok || h.Kind != v1.KindTask || t.Desired.Service != d.key || v1.TaskNode(t) == "" || t.Desired.State > v1.TaskComplete ||
				d.prevails(h, c.Network, c.Address) || d.stopped[h.ID] {
				continue
			}
			d.stopped[h.ID] = true
			next := *t.Desired
			next.State = v1.TaskShutdown
			next.Reason = "another has its address " + c.Address.String()
			d.set(t, &next)
		}
	}
}

// contestants are the services that have a part in an address with two holders.
func contestants(s *store.Snapshot) []string {
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
