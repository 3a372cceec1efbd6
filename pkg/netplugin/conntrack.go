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

// What the netlink package does not name; see linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaFilter           = 25
	ctaFilterOrigFlags  = 1
	ctaFilterReplyFlags = 2

	filterSource      = 1 << 0
	filterDest        = 1 << 1
	filterProtocol    = 1 << 3
	filterSourcePort  = 1 << 4
	filterDestPort    = 1 << 5
	subsystemTracking = 1
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
		req.AddData(tuple(nl.CTA_TUPLE_ORIG, uint8(f.published.protocol), leg{netip.AddrPortFrom(f.from, 0), netip.AddrPortFrom(netip.Addr{}, f.published.port)}))
	}
	if reply != 0 {
		req.AddData(tuple(nl.CTA_TUPLE_REPLY, uint8(f.published.protocol), leg{src: netip.AddrPortFrom(f.to, f.toPort)}))
	}
	req.AddData(filterBy(orig, reply))
	return req
}

// filterBy says which parts of the tuples of a message flows are to have.
func filterBy(orig, reply uint32) *nl.RtAttr {
	filter := nl.NewRtAttr(unix.NLA_F_NESTED|ctaFilter, nil)
	filter.AddRtAttr(ctaFilterOrigFlags, nl.Uint32Attr(orig))
	filter.AddRtAttr(ctaFilterReplyFlags, nl.Uint32Attr(reply))
	return filter
}

// tuple is one direction of a flow, with what is known of it.
func tuple(kind int, protocol uint8, l leg) *nl.RtAttr {
	t := nl.NewRtAttr(unix.NLA_F_NESTED|kind, nil)
	if l.src.Addr().IsValid() || l.dst.Addr().IsValid() {
		ip := t.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_IP, nil)
		if a := l.src.Addr(); a.IsValid() {
			ip.AddRtAttr([2]int{nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC}[version(a)], a.AsSlice())
		}
		if a := l.dst.Addr(); a.IsValid() {
			ip.AddRtAttr([2]int{nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST}[version(a)], a.AsSlice())
		}
	}
	if protocol != 0 {
		p := t.AddRtAttr(unix.NLA_F_NESTED|nl.CTA_TUPLE_PROTO, nil)
		p.AddRtAttr(nl.CTA_PROTO_NUM, []byte{protocol})
		if port := l.src.Port(); port != 0 {
			p.AddRtAttr(nl.CTA_PROTO_SRC_PORT, nl.BEUint16Attr(port))
		}
		if port := l.dst.Port(); port != 0 {
			p.AddRtAttr(nl.CTA_PROTO_DST_PORT, nl.BEUint16Attr(port))
		}
	}
	return t
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter, for kernels that do not filter themselves.
func (f flows) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	from, _ := netip.AddrFromSlice(c.Forward.SrcIP)
	to, _ := netip.AddrFromSlice(c.Reverse.SrcIP)
	return (!f.from.IsValid() || from.Unmap() == f.from) && (!f.to.IsValid() || to.Unmap() == f.to) &&
		(f.toPort == 0 || c.Reverse.SrcPort == f.toPort) &&
		(f.published.port == 0 || uint16(c.Forward.Protocol) == f.published.protocol && c.Forward.DstPort == f.published.port)
}

// forget removes flows from what the namespace tracks. Their next packet is taken for a new connection's: a TCP client is
// reset at once, by another backend or the machine itself, instead of waiting for one that is gone.
func (n *namespace) forget(all []flows) error {
	var errs []error
	var six anyOf
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
		if err = n.forgetOneByOne(f); err != nil {
			errs = append(errs, fmt.Errorf("forget connections to %s: %w", f.to, err))
		}
	}
	if len(six) > 0 {
		// Kernels up to 6.18 at least take the filter's IPv6 addresses for those of connections to keep: all others would go.
		if err := n.forgetFamily(unix.AF_INET6, six); err != nil {
			errs = append(errs, fmt.Errorf("forget connections to %s: %w", six[0].to, err))
		}
	}
	return errors.Join(errs...)
}

// anyOf matches what any of the flows does.
type anyOf []flows

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (a anyOf) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	return slices.ContainsFunc(a, func(f flows) bool { return f.MatchConntrackFlow(c) })
}

// forgetOneByOne lists what the namespace tracks and removes what matches.
func (n *namespace) forgetOneByOne(filter netlink.CustomConntrackFilter) error {
	return n.forgetFamily(unix.AF_INET, filter)
}

func (n *namespace) forgetFamily(family int, filter netlink.CustomConntrackFilter) (err error) {
	if n.tracking == nil {
		if n.tracking, err = netlink.NewHandleAt(n.fd, unix.NETLINK_NETFILTER); err != nil {
			return err
		}
	}
	// What a list that changed meanwhile left out is in the next one.
	for range dumpAttempts {
		if _, err = n.tracking.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(family), filter); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return err
}

// strangers matches the flows of addresses of the block that no task has: those whose task went while nobody looked.
type strangers struct {
	side  side
	block netip.Prefix
	tasks map[netip.Addr]bool // by their IPv4 addresses
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s strangers) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	from, _ := netip.AddrFromSlice(c.Forward.SrcIP)
	to, _ := netip.AddrFromSlice(c.Reverse.SrcIP)
	return s.stranger(from.Unmap()) || s.stranger(to.Unmap())
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

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (u untranslated) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	to, _ := netip.AddrFromSlice(c.Forward.DstIP)
	return u.ports[portKey{uint16(c.Forward.Protocol), c.Forward.DstPort}] && c.Reverse.SrcIP.Equal(c.Forward.DstIP) &&
		(to.Unmap().IsLoopback() || u.own[to.Unmap()])
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
	if err := n.forgetFamily(s.family(), u); err != nil {
		return fmt.Errorf("forget connections to ports not published before: %w", err)
	}
	return nil
}
