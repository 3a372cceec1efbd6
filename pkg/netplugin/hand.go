package netplugin

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A flow of UDP has no end. While its client goes on sending from one port, the kernel leads it to the backend that it began with, also
// to one that is being stopped, until that is gone: no drain delay would do. So a backend that leaves others behind hands its flows over.
// They are forgotten, and the next datagram goes to one of the others. What the backend still has to answer needs to be translated as
// before: each flow leaves one behind that is of answers alone.

// What the netlink package does not name; see linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h.
const (
	ctaNatSource   = 6
	ctaNatDest     = 13
	ctaNatV4       = 1
	ctaNatPort     = 3
	ctaNatV6       = 4
	ctaNatPortLow  = 1
	statusAnswered = 1 << 1 // IPS_SEEN_REPLY: its packets are an established connection's
	statusEntered  = 1 << 3 // IPS_CONFIRMED
)

// answersFor is how long a backend may take to answer what it got before it left, and what the kernel waits for the next datagram of a
// flow that went both ways.
const answersFor = 120 // seconds

// handover is of the flows that were sent to some places, and which of them are to go elsewhere.
type handover struct {
	family int
	// to is the only place, where there is one: an address, a port, or both.
	to   netip.AddrPort
	left func(flow) bool
}

// filter is what the kernel looks for the flows by.
func (h handover) filter() []*nl.RtAttr {
	flags := uint32(filterProtocol)
	if h.to.Addr().Is4() { // see forgetSix
		flags |= filterDest
	}
	if h.to.Port() != 0 {
		flags |= filterDestPort
	}
	return []*nl.RtAttr{tuple(nl.CTA_TUPLE_ORIG, unix.IPPROTO_UDP, leg{dst: h.to}), filterBy(flags, 0)}
}

func (n *namespace) handOver(h handover) error {
	list, err := n.flowsOf(h.family, func(f flow) bool {
		return f.protocol == unix.IPPROTO_UDP && !f.zoned && f.answer.src != f.sent.dst && h.left(f)
	}, h.filter()...)
	if err != nil {
		return err
	}
	// No packet is in it. Of one client's flow that is handed over time and again, what is left behind must not look the same.
	zone := uint16(1 + rand.IntN(1<<16-1))
	var errs []error
	for _, f := range list {
		if err := n.request(unix.NETLINK_NETFILTER, removal(f.sent, f.id)); err != nil {
			if !errors.Is(err, unix.ENOENT) { // else it ended meanwhile
				errs = append(errs, fmt.Errorf("forget the flow of UDP from %s to %s in %s: %w", f.sent.src, f.answer.src, n.name, err))
			}
			continue
		}
		// Without it, an answer that is on its way is lost, as any datagram may be.
		if err := n.request(unix.NETLINK_NETFILTER, f.answers(zone)); errors.Is(err, unix.EEXIST) {
			// The backend answered between the two, which began a flow that would lead its client there again.
			_ = n.request(unix.NETLINK_NETFILTER, removal(f.answer, nil))
			_ = n.request(unix.NETLINK_NETFILTER, f.answers(zone))
		}
	}
	return errors.Join(errs...)
}

// removal is the message that removes one flow. Without an ID it is whichever looks so.
func removal(sent leg, id []byte) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(subsystemTracking<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(familyOf(sent.src.Addr())), Version: nl.NFNETLINK_V0})
	req.AddData(tuple(nl.CTA_TUPLE_ORIG, unix.IPPROTO_UDP, sent))
	if id != nil {
		req.AddData(nl.NewRtAttr(nl.CTA_ID, id))
	}
	return req
}

// answers is the message that makes the flow of a backend's answers: from where it answers, to whom it takes the client for, and
// translated to what the client sent to and from. The way back of it is in a zone of its own, in which the kernel looks for no packet:
// what the client sends is not led by it.
func (f flow) answers(zone uint16) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(subsystemTracking<<8|nl.IPCTNL_MSG_CT_NEW, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(familyOf(f.answer.src.Addr())), Version: nl.NFNETLINK_V0})
	req.AddData(tuple(nl.CTA_TUPLE_ORIG, unix.IPPROTO_UDP, f.answer))
	back := tuple(nl.CTA_TUPLE_REPLY, unix.IPPROTO_UDP, leg{f.answer.dst, f.answer.src})
	back.AddRtAttr(ctaTupleZone, nl.BEUint16Attr(zone))
	req.AddData(back)
	req.AddData(nl.NewRtAttr(nl.CTA_STATUS, nl.BEUint32Attr(statusEntered|statusAnswered)))
	req.AddData(nl.NewRtAttr(nl.CTA_TIMEOUT, nl.BEUint32Attr(answersFor)))
	req.AddData(translation(ctaNatSource, f.sent.dst))
	req.AddData(translation(ctaNatDest, f.sent.src))
	if f.mark != nil {
		req.AddData(nl.NewRtAttr(nl.CTA_MARK, f.mark))
	}
	return req
}

// translation makes one end of a flow another.
func translation(kind int, to netip.AddrPort) *nl.RtAttr {
	t := nl.NewRtAttr(unix.NLA_F_NESTED|kind, nil)
	t.AddRtAttr([2]int{ctaNatV4, ctaNatV6}[version(to.Addr())], to.Addr().AsSlice())
	t.AddRtAttr(unix.NLA_F_NESTED|ctaNatPort, nil).AddRtAttr(ctaNatPortLow, nl.BEUint16Attr(to.Port()))
	return t
}

// handOverPorts has flows to published ports go elsewhere whose backend left them and left others.
func (l *Linux) handOverPorts(s side, before, resting ports, want *desired) error {
	now := want.answers(s.v).ports
	some := map[uint16][]netip.AddrPort{}
	h := handover{family: s.family()}
	for k, backends := range now {
		had := before[k]
		if len(had) == 0 {
			had = resting[k] // there was nobody else until now
		}
		if k.protocol == unix.IPPROTO_UDP && !sameList(had, backends) && leaves(had, backends, netip.AddrPort.Compare) {
			some[k.port] = backends
			h.to = netip.AddrPortFrom(netip.Addr{}, k.port)
		}
	}
	if len(some) == 0 {
		return nil
	}
	if len(some) > 1 {
		h.to = netip.AddrPort{}
	}
	h.left = func(f flow) bool {
		backends, one := some[f.sent.dst.Port()]
		own, _ := s.gatewayOf(f.answer.src.Addr())
		_, stays := slices.BinarySearchFunc(backends, netip.AddrPortFrom(own, f.answer.src.Port()), netip.AddrPort.Compare)
		return one && !stays && s.swarm().Contains(f.answer.src.Addr())
	}
	return l.host.handOver(h)
}

// handOver has flows to virtual addresses go elsewhere whose backend left them and left others.
func (o *overlay) handOver(w *wanted, edits []edit) error {
	there := o.present(w)
	var errs []error
	for _, v := range w.versions() {
		some := map[netip.Addr]func() map[netip.Addr]bool{} // backends, for flows are few and changes many
		h := handover{family: family(v)}
		for _, e := range edits {
			if version(e.vip) == v && len(e.now) > 0 && (slices.ContainsFunc(e.gone(), there) || e.old != nil && len(e.old) == 0) {
				some[e.vip] = sync.OnceValue(func() map[netip.Addr]bool { return setOf(e.now) })
				h.to = netip.AddrPortFrom(e.vip, 0)
			}
		}
		if len(some) == 0 {
			continue
		}
		if len(some) > 1 {
			h.to = netip.AddrPort{}
		}
		h.left = func(f flow) bool {
			backends, one := some[f.sent.dst.Addr()]
			return one && !backends()[f.answer.src.Addr()]
		}
		errs = append(errs, o.space.handOver(h))
	}
	return errors.Join(errs...)
}

// gone are the backends that the change takes away. Those that stay have their slots but for a few, so only slots that differ are looked at.
func (e edit) gone() []netip.Addr {
	var left, come []netip.Addr
	for i := range max(len(e.old), len(e.now)) {
		switch {
		case i >= len(e.now):
			left = append(left, e.old[i])
		case i >= len(e.old):
			come = append(come, e.now[i])
		case e.old[i] != e.now[i]:
			left, come = append(left, e.old[i]), append(come, e.now[i])
		}
	}
	moved := setOf(come)
	return slices.DeleteFunc(left, func(a netip.Addr) bool { return moved[a] })
}

func setOf(list []netip.Addr) map[netip.Addr]bool {
	set := make(map[netip.Addr]bool, len(list))
	for _, a := range list {
		set[a] = true
	}
	return set
}

// leaves tells whether any of had is not among now. Both are in order.
func leaves[T any](had, now []T, compare func(a, b T) int) bool {
	return slices.ContainsFunc(had, func(one T) bool {
		_, stays := slices.BinarySearchFunc(now, one, compare)
		return !stays
	})
}
