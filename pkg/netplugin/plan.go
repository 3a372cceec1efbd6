package netplugin

import (
	"net/netip"
	"slices"
)

// Of ten thousand addresses mostly one changes at a time. What was checked and is still there is not checked again: a change costs a look at
// where the lists differ, and what it is itself.

// next is the plan of an Overlay that differs little from that of this plan, of which nothing was left out; nil where all has to be looked at.
func (p *plan) next(o *Overlay, self uint32) *plan {
	if p == nil || p.err != nil || !p.whole() || !slices.Equal(p.subnets, o.Subnets) {
		return nil
	}
	if was := p.source; was.VNI != o.VNI || was.MTU != o.MTU || was.Encrypted != o.Encrypted {
		return nil
	}
	now := &plan{source: o, subnets: o.Subnets, vteps: p.vteps, remote: o.Remote, vips: o.VIPs}
	remote, vips := apart(p.remote, o.Remote, equal[RemoteAddress]), apart(p.vips, o.VIPs, sameVIP)
	if !now.remoteFits(remote, self) || !now.reaches(p.remote[remote.from:remote.have], o.Remote[remote.from:remote.want]) || !now.vipsFit(vips) {
		return nil
	}
	for _, r := range o.Remote[remote.from:remote.want] {
		if now.hasVIP(r.Address) {
			return nil
		}
	}
	return now
}

// whole tells whether the lists are those of the Overlay, as they are there.
func (p *plan) whole() bool {
	return sameList(p.remote, p.source.Remote) && sameList(p.vips, p.source.VIPs)
}

// sameList tells whether two lists are one: in the same place, and as long.
func sameList[T any](a, b []T) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

func sameVIP(a, b *VIP) bool { return a.Address == b.Address && sameList(a.Backends, b.Backends) }

// remoteFits tells whether a part of the remote addresses, and where it meets the rest, is as it should be.
func (p *plan) remoteFits(changed part, self uint32) bool {
	for i := max(changed.from-1, 0); i < min(changed.want+1, len(p.remote)); i++ {
		if i > 0 && p.remote[i-1].Address.Compare(p.remote[i].Address) >= 0 || p.checkRemote(nil, p.remote[i], self) != nil {
			return false
		}
	}
	return true
}

// reaches tells whether the VTEPs are those of the nodes that have a task, after some remote addresses went and some came.
func (p *plan) reaches(gone, came []RemoteAddress) bool {
	for _, r := range came {
		if _, there := slices.BinarySearchFunc(p.vteps, vtep{node: r.Node}, vtep.compare); !there {
			return false
		}
	}
	still := map[uint32]bool{}
	for _, r := range gone {
		if !still[r.Node] && !slices.ContainsFunc(p.remote, func(o RemoteAddress) bool { return o.Node == r.Node }) {
			return false
		}
		still[r.Node] = true
	}
	return true
}

// vipsFit tells whether a part of the VIPs, and where it meets the rest, is as it should be.
func (p *plan) vipsFit(changed part) bool {
	for i := max(changed.from-1, 0); i < min(changed.want+1, len(p.vips)); i++ {
		v := p.vips[i]
		if i > 0 && p.vips[i-1].Address.Compare(v.Address) >= 0 {
			return false
		}
		if i < changed.from || i >= changed.want {
			continue
		}
		if _, err := p.subnet(v.Address); err != nil || !p.backendsFit(v) {
			return false
		}
		if _, taken := slices.BinarySearchFunc(p.remote, RemoteAddress{Address: v.Address}, byAddress); taken {
			return false
		}
	}
	return true
}

func (p *plan) backendsFit(v VIP) bool {
	for i, b := range v.Backends {
		if i > 0 && v.Backends[i-1].Compare(b) >= 0 || b.Is6() != v.Address.Is6() {
			return false
		}
		if _, err := p.subnet(b); err != nil {
			return false
		}
	}
	return true
}

// hasVIP tells whether an address is that of a VIP.
func (p *plan) hasVIP(a netip.Addr) bool {
	_, is := slices.BinarySearchFunc(p.vips, a, func(v VIP, a netip.Addr) int { return v.Address.Compare(a) })
	return is
}
