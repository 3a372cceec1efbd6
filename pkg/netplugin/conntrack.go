package netplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// flows are connections that pass through the machine, all that have what is set.
type flows struct {
	// from is the address that the first packet came from.
	from netip.Addr
	// to is the address that answers, after translation, and toPort its port.
	to     netip.Addr
	toPort uint16
	// published is the port that the first packet was sent to, before translation.
	published portKey
}

// family is that of the flows' addresses.
func (f flows) family() int {
	if f.from.Is6() || f.to.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// request is one message that removes flows of IPv4: the kernel does the looking.
func (f flows) request() *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(subsystemTracking<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_INET, Version: nl.NFNETLINK_V0})
	for _, a := range f.filter() {
		req.AddData(a)
	}
	return req
}

// filter is what the kernel looks for them by, and none where they are all that there are.
func (f flows) filter() (all []*nl.RtAttr) {
	var orig, reply uint32
	if f.from.IsValid() {
		orig |= filterSource
	}
	if f.to.IsValid() {
		reply |= filterSource
	}
	if f.published.port != 0 {
		orig |= filterProtocol | filterDestPort
		reply |= filterProtocol
	}
	if f.toPort != 0 {
		reply |= filterSourcePort
	}
	if orig != 0 {
		all = append(all, tuple(nl.CTA_TUPLE_ORIG, uint8(f.published.protocol), leg{netip.AddrPortFrom(f.from, 0), netip.AddrPortFrom(netip.Addr{}, f.published.port)}))
	}
	if reply != 0 {
		all = append(all, tuple(nl.CTA_TUPLE_REPLY, uint8(f.published.protocol), leg{src: netip.AddrPortFrom(f.to, f.toPort)}))
	}
	if len(all) == 0 {
		return nil
	}
	return append(all, filterBy(orig, reply))
}

// match tells whether a flow is one of them.
func (f flows) match(one flow) bool {
	return (!f.from.IsValid() || one.sent.src.Addr() == f.from) && (!f.to.IsValid() || one.answer.src.Addr() == f.to) &&
		(f.toPort == 0 || one.answer.src.Port() == f.toPort) &&
		(f.published.port == 0 || uint16(one.protocol) == f.published.protocol && one.sent.dst.Port() == f.published.port)
}

// listsAtOnce bounds how many lists of flows are asked for one after the other, each of some ports', for which the kernel goes through all
// that it tracks.
const listsAtOnce = 4

// forget removes flows from what the namespace tracks. Their next packet is taken for a new connection's: a TCP client is
// reset at once, by another backend or the machine itself, instead of waiting for one that is gone.
func (n *namespace) forget(all []flows) error {
	var errs []error
	var six []flows
	for _, f := range all {
		if f.family() == unix.AF_INET6 {
			six = append(six, f)
			continue
		}
		err := n.request(unix.NETLINK_NETFILTER, f.request())
		if err == nil || errors.Is(err, unix.ENOENT) {
			continue
		}
		// Kernels before 5.8 do not know the filter, and take the request for one about a single flow.
		errs = append(errs, n.forgetEach(unix.AF_INET, f.match))
	}
	return errors.Join(append(errs, n.forgetSix(six))...)
}

// forgetSix is forget for IPv6. Kernels up to 6.18 at least take the filter's IPv6 addresses for those of connections to keep: all others
// would go. So they are asked for those with the ports, and what they have is looked at here.
func (n *namespace) forgetSix(all []flows) error {
	byPorts := map[flows][]flows{}
	for _, f := range all {
		ports := flows{toPort: f.toPort, published: f.published}
		byPorts[ports] = append(byPorts[ports], f)
	}
	if _, any := byPorts[flows{}]; any || len(byPorts) > listsAtOnce {
		byPorts = map[flows][]flows{{}: all}
	}
	var errs []error
	for ports, some := range byPorts {
		match := func(one flow) bool { return slices.ContainsFunc(some, func(f flows) bool { return f.match(one) }) }
		errs = append(errs, n.forgetEach(unix.AF_INET6, match, ports.filter()...))
	}
	return errors.Join(errs...)
}

// strangers matches the flows of addresses of the block that no task has: those whose task went while nobody looked.
type strangers struct {
	side  side
	block netip.Prefix
	tasks map[netip.Addr]bool // by their IPv4 addresses
}

func (s strangers) match(f flow) bool {
	return s.stranger(f.sent.src.Addr()) || s.stranger(f.answer.src.Addr())
}

func (s strangers) stranger(a netip.Addr) bool {
	if !s.block.Contains(a) {
		return false
	}
	own, _ := s.side.gatewayOf(a)
	return !s.tasks[own]
}

// untranslated matches the flows to ports of the machine's own addresses that began before the ports were published. As long
// as the client goes on sending, as UDP clients may, they would never see a backend. A TCP client is reset, and begins anew.
type untranslated struct {
	ports map[portKey]bool
	own   map[netip.Addr]bool
}

func (u untranslated) match(f flow) bool {
	to := f.sent.dst
	return u.ports[portKey{uint16(f.protocol), to.Port()}] && f.answer.src.Addr() == to.Addr() && (to.Addr().IsLoopback() || u.own[to.Addr()])
}

// forgetUntranslated removes flows that would keep clients from ports that are published now and were not before, or not there.
func (n *namespace) forgetUntranslated(s side, before, now publication) error {
	u := untranslated{map[portKey]bool{}, map[netip.Addr]bool{}}
	for k := range now.ports {
		if _, was := before.ports[k]; (!was || !slices.Equal(before.places[k], now.places[k])) && k.protocol != unix.IPPROTO_TCP {
			u.ports[k] = true
		}
	}
	if len(u.ports) == 0 {
		return nil
	}
	list, err := dump(func() ([]netlink.Addr, error) { return n.AddrList(nil, s.family()) })
	if err != nil {
		return fmt.Errorf("list addresses in %s: %w", n.name, err)
	}
	for _, a := range list {
		u.own[prefixOf(a.IPNet).Addr()] = true
	}
	if err := n.forgetEach(s.family(), u.match); err != nil {
		return fmt.Errorf("forget connections to ports not published before: %w", err)
	}
	return nil
}
