package netplugin

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// plan is an Overlay that was checked: what its router holds, but for this machine's own tasks. It is kept for as long as the Config
// has the same Overlay, peers and underlay.
type plan struct {
	source  *Overlay
	subnets []Subnet
	vteps   []vtep          // of the nodes that have a task there and can be reached, by node
	remote  []RemoteAddress // those that the VTEPs lead to, by address
	vips    []VIP           // by address, each with its backends in order
	err     error           // what was left out
}

// vtep is where another node's end of the networks is.
type vtep struct {
	node uint32
	addr netip.Addr
	key  PublicKey // zero but for encrypted networks
}

// wanted is what an overlay's router has to hold. Its remote addresses are the plan's but for those that are members'.
type wanted struct {
	*plan
	remote  []RemoteAddress
	members map[string]member     // by task
	owner   map[netip.Addr]string // of members' addresses: the task
}

// The limits of what can be asked for.
const (
	routerName = "gw" // is the gateway router's in the directory of the overlays'
	gatewayVNI = 1
	mostVNI    = 1<<24 - 1
	mostNode   = 1<<28 - 2
	leastMTU   = 576
	leastMTU6  = 1280 // of a link that is to have IPv6 at all
	mostMTU    = 65535
)

// addOverlays adds the overlays of a Config whose tasks were added. Plans made before are taken where the Overlay is the same. A
// task whose attachments cannot be as they should is refused, with all that is its own.
func (d *desired) addOverlays(c Config, before map[string]*plan) error {
	d.overlays, d.kept = map[string]*wanted{}, map[string]error{}
	peers := map[uint32]Peer{}
	for _, p := range c.Peers {
		p.Underlay = p.Underlay.Unmap()
		peers[p.Node] = p
	}
	var errs []error
	owner := map[uint32]string{}
	for _, o := range c.Overlays {
		if o == nil {
			continue
		}
		p, err := before[o.ID], error(nil)
		if p == nil || p.source != o {
			if p = p.next(o, d.underlay.node); p == nil {
				p, err = d.planOverlay(o, peers)
			}
		}
		switch {
		case err != nil:
		case d.overlays[o.ID] != nil || d.kept[o.ID] != nil:
			err = errors.New("it is there twice")
		case owner[o.VNI] != "":
			err = fmt.Errorf("VNI %d is that of network %s", o.VNI, owner[o.VNI])
		}
		if err != nil {
			d.kept[o.ID] = err
			errs = append(errs, &OverlayError{o.ID, err})
			continue
		}
		if p.err != nil {
			errs = append(errs, &OverlayError{o.ID, p.err})
		}
		owner[o.VNI] = o.ID
		d.overlays[o.ID] = &wanted{p, p.remote, map[string]member{}, map[netip.Addr]string{}}
	}
	return errors.Join(append(errs, d.addMembers(c)...)...)
}

// planOverlay checks an Overlay. With an error it cannot be at all; what was left out of it is in the plan.
func (d *desired) planOverlay(o *Overlay, peers map[uint32]Peer) (*plan, error) {
	if !isID(o.ID) || o.ID == routerName {
		return nil, fmt.Errorf("its ID is no file name: letters, digits, dots, dashes and underscores, 128 at most, and not %q", routerName)
	}
	if o.VNI <= gatewayVNI || o.VNI > mostVNI {
		return nil, fmt.Errorf("VNI %d is not between %d and %d", o.VNI, gatewayVNI+1, mostVNI)
	}
	if o.Encrypted {
		if _, err := wirePort(o.VNI); err != nil {
			return nil, err
		}
	}
	if err := checkSubnets(o.Subnets); err != nil {
		return nil, err
	}
	p := &plan{source: o, subnets: o.Subnets}
	least := leastMTU
	if p.has(true) {
		least = leastMTU6
	}
	if o.MTU != 0 && (o.MTU < least || o.MTU > mostMTU) {
		return nil, fmt.Errorf("MTU %d is not between %d and %d", o.MTU, least, mostMTU)
	}
	var left problems
	p.remote = ordered(o.Remote, func(a, b RemoteAddress) int { return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Node, b.Node)) })
	p.remote = sieve(p.remote, &left, func(before *RemoteAddress, one RemoteAddress) error {
		return p.checkRemote(before, one, d.underlay.node)
	})
	p.addVIPs(&left)
	p.findVTEPs(d.underlay, peers, &left)
	p.keepReachable()
	p.err = left.error()
	return p, nil
}

// has tells whether the network has a subnet of IPv6, or of IPv4.
func (p *plan) has(six bool) bool {
	return slices.ContainsFunc(p.subnets, func(s Subnet) bool { return s.Gateway.Is6() == six })
}

// subnet is the one that an address is of, and may be given to a task or service of.
func (p *plan) subnet(a netip.Addr) (Subnet, error) {
	for _, s := range p.subnets {
		if s.Prefix.Contains(a) {
			if a == s.Gateway {
				return s, fmt.Errorf("address %s is the network's gateway", a)
			}
			return s, nil
		}
	}
	return Subnet{}, fmt.Errorf("address %s is in none of the network's subnets %v", a, prefixes(p.subnets))
}

func prefixes(all []Subnet) []netip.Prefix {
	list := make([]netip.Prefix, 0, len(all))
	for _, s := range all {
		list = append(list, s.Prefix)
	}
	return list
}

func checkSubnets(all []Subnet) error {
	if len(all) == 0 {
		return errors.New("it has no subnet")
	}
	for i, s := range all {
		if !s.Prefix.IsValid() || s.Prefix != s.Prefix.Masked() || s.Prefix.Addr().Is4In6() || s.Prefix.Bits() > s.Prefix.Addr().BitLen()-2 {
			return fmt.Errorf("subnet %s: it must be a network of at least 4 addresses, such as 10.0.1.0/24 or fd00:1::/64", s.Prefix)
		}
		if !s.Prefix.Contains(s.Gateway) || s.Gateway.Zone() != "" || s.Gateway == s.Prefix.Addr() {
			return fmt.Errorf("subnet %s: gateway %s is not an address in it", s.Prefix, s.Gateway)
		}
		for _, other := range all[:i] {
			if other.Prefix.Overlaps(s.Prefix) {
				return fmt.Errorf("subnets %s and %s overlap", other.Prefix, s.Prefix)
			}
		}
	}
	return nil
}

func (p *plan) checkRemote(before *RemoteAddress, one RemoteAddress, self uint32) error {
	if _, err := p.subnet(one.Address); err != nil {
		return fmt.Errorf("remote task: %w", err)
	}
	if one.Node == 0 || one.Node > mostNode || one.Node == self {
		return fmt.Errorf("remote address %s: %d is not another node's index", one.Address, one.Node)
	}
	if before == nil || before.Address != one.Address {
		return nil
	}
	if before.Node == one.Node {
		return errUnsaid
	}
	return fmt.Errorf("remote address %s is on node %d and on node %d", one.Address, before.Node, one.Node)
}

// addVIPs takes what can be had of the Overlay's VIPs.
func (p *plan) addVIPs(left *problems) {
	vips := ordered(p.source.VIPs, func(a, b VIP) int { return a.Address.Compare(b.Address) })
	cloned := false
	for i, v := range vips {
		backends := sieve(ordered(v.Backends, netip.Addr.Compare), left, func(before *netip.Addr, one netip.Addr) error {
			if before != nil && *before == one {
				return errUnsaid
			}
			if _, err := p.subnet(one); err != nil || one.Is6() != v.Address.Is6() {
				return fmt.Errorf("backend %s of VIP %s is not an address of the same IP version in the network", one, v.Address)
			}
			return nil
		})
		if len(backends) == len(v.Backends) && (len(backends) == 0 || &backends[0] == &v.Backends[0]) {
			continue
		}
		if !cloned {
			vips, cloned = slices.Clone(vips), true
		}
		vips[i].Backends = backends
	}
	p.vips = sieve(vips, left, func(before *VIP, one VIP) error {
		if _, err := p.subnet(one.Address); err != nil {
			return fmt.Errorf("VIP: %w", err)
		}
		if before != nil && before.Address == one.Address {
			return fmt.Errorf("VIP %s is there twice", one.Address)
		}
		if _, taken := slices.BinarySearchFunc(p.remote, RemoteAddress{Address: one.Address}, byAddress); taken {
			return fmt.Errorf("VIP %s is also a task's address", one.Address)
		}
		return nil
	})
}

// findVTEPs finds the nodes that have a task on the network, among the peers. A node that is none is not reached.
func (p *plan) findVTEPs(u underlay, peers map[uint32]Peer, left *problems) {
	if !u.addr.IsValid() {
		return
	}
	if !u.usable() {
		left.add(fmt.Errorf("it reaches no other node: index %d or underlay address %s is not one of a node", u.node, u.addr))
		return
	}
	seen := map[uint32]bool{}
	for _, r := range p.remote {
		if seen[r.Node] {
			continue
		}
		seen[r.Node] = true
		v := vtep{node: r.Node, addr: peers[r.Node].Underlay}
		a, known := v.addr, v.addr.IsValid()
		switch {
		case known && a.Is6() == u.addr.Is6() && p.source.Encrypted:
			v.key = peers[r.Node].Key
			if err := v.checkKey(p.vteps); err != nil {
				left.add(fmt.Errorf("node %d is not reached: %w", r.Node, err))
				continue
			}
			p.vteps = append(p.vteps, v)
		case known && a.Is6() == u.addr.Is6():
			p.vteps = append(p.vteps, v)
		case known:
			left.add(fmt.Errorf("node %d is not reached: its address %s is not of the same IP version as this machine's %s", r.Node, a, u.addr))
		}
	}
	slices.SortFunc(p.vteps, vtep.compare)
}

// checkKey refuses a node without a key, with one that makes no secret, or with that of one of the others.
func (v vtep) checkKey(others []vtep) error {
	if v.key == (PublicKey{}) {
		return errors.New("it has not told its key for encrypted networks yet")
	}
	if err := v.key.check(); err != nil {
		return fmt.Errorf("its key for encrypted networks: %w", err)
	}
	for _, o := range others {
		if o.key.lasting() == v.key.lasting() {
			return fmt.Errorf("its key for encrypted networks is node %d's too", o.node)
		}
	}
	return nil
}

func (v vtep) compare(o vtep) int { return cmp.Compare(v.node, o.node) }

// keepReachable leaves those remote addresses that a VTEP leads to.
func (p *plan) keepReachable() {
	p.remote = sieve(p.remote, nil, func(_ *RemoteAddress, one RemoteAddress) error {
		if _, there := slices.BinarySearchFunc(p.vteps, vtep{node: one.Node}, vtep.compare); !there {
			return errUnsaid
		}
		return nil
	})
}
