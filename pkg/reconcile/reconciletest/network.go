package reconciletest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// network makes a network, with subnets or without, or removes it.
func (w *World) network(name string, args []string) error {
	if args[0] == "remove" {
		o, err := w.Snapshot().Resolve(v1.KindNetwork, name)
		if err != nil {
			return err
		}
		return w.Commit(store.Op{Kind: v1.KindNetwork, ID: o.GetMeta().ID, Section: v1.SectionSpec})
	}
	o := &v1.Network{Meta: v1.Meta{ID: name, Name: name, CreatedAt: w.Now}, Spec: &v1.NetworkSpec{}}
	for _, subnet := range args {
		if subnet != "" {
			o.Spec.Subnets = append(o.Spec.Subnets, v1.SubnetSpec{Subnet: subnet})
		}
	}
	v1.Default(o)
	return w.Commit(opsOf(v1.Networks, o)...)
}

// pool sets what networks' subnets are cut from, and how large they are.
func (w *World) pool(size string, pools []string) error {
	n, err := strconv.ParseUint(size, 10, 32)
	if err != nil {
		return err
	}
	pools = slices.DeleteFunc(slices.Clone(pools), func(p string) bool { return p == "" })
	return w.Commit(store.Op{Kind: v1.KindCluster, ID: v1.ClusterName, Section: v1.SectionSpec, If: store.Always(),
		Value: &v1.ClusterSpec{DefaultAddrPool: pools, SubnetSize: uint32(n)}, Meta: &v1.Meta{ID: v1.ClusterName, Name: v1.ClusterName}})
}

func (w *World) networks() string {
	rows := [][]string{{"NETWORK", "VNI", "SUBNET", "GATEWAY", "PROBLEM"}}
	for n := range store.All(w.Snapshot(), v1.Networks) {
		d := v1.NetworkDesired{}
		if n.Desired != nil {
			d = *n.Desired
		}
		var subnets, gateways []string
		for _, s := range d.Subnets {
			subnets, gateways = append(subnets, s.Subnet), append(gateways, s.Gateway)
		}
		rows = append(rows, []string{n.Meta.Name, fmt.Sprint(d.VNI), cmp.Or(strings.Join(subnets, " "), "-"), cmp.Or(strings.Join(gateways, " "), "-"), d.Problem})
	}
	return table(rows)
}

// held is an address and who holds it.
type held struct {
	network string
	address netip.Prefix
	holder  store.Holder
	name    string
	leaving bool // a task that is to stop
}

// heldOf is all that is held, from the objects alone.
func heldOf(s *store.Snapshot) []held {
	var all []held
	add := func(on []v1.NetworkAddress, h held) {
		for _, n := range on {
			for _, text := range n.Addresses {
				h.network = n.Network
				h.address, _ = netip.ParsePrefix(text)
				all = append(all, h)
			}
		}
	}
	for o := range store.All(s, v1.Services) {
		if o.Desired != nil {
			add(o.Desired.VIPs, held{holder: store.Holder{Kind: v1.KindService, ID: o.Meta.ID}, name: o.Meta.Name})
		}
	}
	for t := range store.All(s, v1.Tasks) {
		if !v1.Observed(t).Terminal() {
			add(t.Desired.Networks, held{holder: store.Holder{Kind: v1.KindTask, ID: t.Meta.ID}, leaving: t.Desired.State > v1.TaskComplete,
				name: fmt.Sprintf("%s@%d", v1.TaskName(t.Desired), t.Desired.Attempt)})
		}
	}
	slices.SortFunc(all, func(a, b held) int {
		return cmp.Or(cmp.Compare(a.network, b.network), a.address.Addr().Compare(b.address.Addr()), cmp.Compare(a.name, b.name))
	})
	return all
}

func (w *World) addresses(network string) string {
	rows := [][]string{{"NETWORK", "ADDRESS", "HOLDER"}}
	for _, h := range heldOf(w.Snapshot()) {
		if network == "" || network == h.network {
			rows = append(rows, []string{h.network, h.address.String(), h.name})
		}
	}
	return table(rows)
}

func (w *World) ports(name string) (string, error) {
	o, err := w.service(name)
	if err != nil {
		return "", err
	}
	rows := [][]string{{"PUBLISHED", "TARGET", "MODE"}}
	for _, p := range v1.PublishedPorts(o) {
		rows = append(rows, []string{fmt.Sprint(p.Published), fmt.Sprintf("%d/%s", p.Target, p.Protocol), string(p.Mode)})
	}
	return table(rows), nil
}

// checkNetworks tells which address has two holders that are to stay, which VNI two networks have, which port of the mesh two
// services, and which task has no address and does not say why.
func checkNetworks(s *store.Snapshot) error {
	var before held
	for _, h := range heldOf(s) {
		if h.leaving {
			continue
		}
		if h.network == before.network && h.address.Addr() == before.address.Addr() && h.holder != before.holder {
			return fmt.Errorf("%s and %s both have %s on %s", before.name, h.name, h.address, h.network)
		}
		before = h
	}
	vnis := make(map[uint32]string)
	for n := range store.All(s, v1.Networks) {
		if n.Desired == nil || n.Desired.VNI == 0 {
			continue
		}
		if other := vnis[n.Desired.VNI]; other != "" {
			return fmt.Errorf("the networks %s and %s both have the VNI %d", other, n.Meta.ID, n.Desired.VNI)
		}
		vnis[n.Desired.VNI] = n.Meta.ID
	}
	for t := range store.All(s, v1.Tasks) {
		r, ok := store.Get(s, v1.ServiceRevisions, t.Desired.Revision)
		if ok && v1.WaitsForNode(t) && !v1.HasAddresses(t, &r.Spec.Task) && t.Desired.Pending == "" {
			return fmt.Errorf("%s has not the addresses that it needs, and does not say why", v1.TaskName(t.Desired))
		}
	}
	return checkPorts(s)
}

func checkPorts(s *store.Snapshot) error {
	chosen := make(map[v1.PortConfig]string)
	for o := range store.All(s, v1.Services) {
		if o.Desired == nil || !o.Meta.Deleting.IsZero() {
			continue
		}
		for _, p := range v1.PublishedPorts(o) {
			key := v1.PortConfig{Protocol: p.Protocol, Published: p.Published}
			if p.Published == 0 || p.Mode == v1.PublishHost {
				continue
			}
			if other := chosen[key]; other != "" {
				return fmt.Errorf("the services %s and %s both publish %d/%s", other, o.Meta.Name, p.Published, p.Protocol)
			}
			chosen[key] = o.Meta.Name
		}
	}
	return nil
}

// checkGiven tells which operations, that led from one snapshot to the next, give an address, or a VNI, that somebody else had
// before, whether or not it is given up in the same go, or place a task without its addresses.
func checkGiven(before, after *store.Snapshot, ops []store.Op) error {
	for _, op := range ops {
		var on []v1.NetworkAddress
		switch d := op.Value.(type) {
		case *v1.TaskDesired:
			if t, ok := store.Get(after, v1.Tasks, op.ID); ok && v1.HoldsAddresses(t) {
				on = d.Networks
			}
			if err := checkPlaced(before, after, op.ID, d); err != nil {
				return err
			}
		case *v1.ServiceDesired:
			on = d.VIPs
		case *v1.NetworkDesired:
			for id := range before.NetworksWithVNI(d.VNI) {
				if old, ok := store.Get(before, v1.Networks, op.ID); id != op.ID && d.VNI != 0 && (!ok || old.Desired == nil || old.Desired.VNI != d.VNI) {
					return fmt.Errorf("network %s is given the VNI %d, which %s has", op.ID, d.VNI, id)
				}
			}
		}
		self := store.Holder{Kind: op.Kind, ID: op.ID}
		for _, n := range on {
			for _, text := range n.Addresses {
				if err := checkFree(before, self, n.Network, text); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func checkFree(before *store.Snapshot, self store.Holder, network, text string) error {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return err
	}
	holders := slices.Collect(before.AddressHolders(network, p.Addr()))
	if !slices.Contains(holders, self) && len(holders) > 0 {
		return fmt.Errorf("%s %s is given %s on %s, which %s %s has", self.Kind, self.ID, text, network, holders[0].Kind, holders[0].ID)
	}
	n, ok := store.Get(before, v1.Networks, network)
	if !ok || slices.Contains(holders, self) {
		return nil
	}
	for _, s := range n.Desired.Subnets {
		subnet, err := netip.ParsePrefix(s.Subnet)
		if err == nil && subnet.Contains(p.Addr()) && (s.Gateway == p.Addr().String() || p.Addr() == subnet.Addr() || p.Addr().Is4() && !subnet.Contains(p.Addr().Next())) {
			return fmt.Errorf("%s %s is given %s on %s, which is nobody's", self.Kind, self.ID, text, network)
		}
	}
	return nil
}

func checkPlaced(before, after *store.Snapshot, id string, d *v1.TaskDesired) error {
	was, existed := store.Get(before, v1.Tasks, id)
	if d.Placement == nil || existed && was.Desired.Placement != nil {
		return nil
	}
	r, ok := store.Get(after, v1.ServiceRevisions, d.Revision)
	if ok && !v1.HasAddresses(&v1.Task{Desired: d}, &r.Spec.Task) {
		return fmt.Errorf("%s is placed without the addresses that it needs: it has %v", v1.TaskName(d), d.Networks)
	}
	return nil
}
