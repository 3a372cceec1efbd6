package netplugin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What the netlink package does not name; see linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaFilter           = 25
	ctaFilterOrigFlags  = 1
	ctaFilterReplyFlags = 2
	ctaTupleZone        = 3
	messageStats        = 5 // IPCTNL_MSG_CT_GET_STATS
	ctaStatsEntries     = 1

	filterSource      = 1 << 0
	filterDest        = 1 << 1
	filterProtocol    = 1 << 3
	filterSourcePort  = 1 << 4
	filterDestPort    = 1 << 5
	subsystemTracking = 1
)

// flow is one that the kernel tracks: what its first packet was, and what comes back before that is translated.
type flow struct {
	protocol     uint8
	sent, answer leg
	id, mark     []byte
	zoned        bool   // in a zone, or one of its directions is
	raw          []byte // all that the kernel told of it
}

// leg is one direction of a flow. Protocols without ports have none.
type leg struct{ src, dst netip.AddrPort }

// tracks tells whether the namespace tracks anything. To list what there is, the kernel goes through a table that all namespaces share.
func (n *namespace) tracks() (bool, error) {
	req := nl.NewNetlinkRequest(subsystemTracking<<8|messageStats, unix.NLM_F_ACK) // the answer says that more follows
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	list, err := n.query(unix.NETLINK_NETFILTER, req)
	if err != nil {
		return false, fmt.Errorf("count what is tracked in %s: %w", n.name, err)
	}
	for _, message := range list {
		for kind, value := range attributes(message[min(nl.SizeofNfgenmsg, len(message)):]) {
			if kind == ctaStatsEntries {
				return !slices.Equal(value, make([]byte, 4)), nil
			}
		}
	}
	return true, nil
}

// flowsOf are the flows of an IP version that match. only are what the kernel itself is to look for, and may be none: kernels before 5.8
// do not look.
func (n *namespace) flowsOf(family int, match func(flow) bool, only ...*nl.RtAttr) ([]flow, error) {
	if some, err := n.tracks(); !some {
		return nil, err
	}
	list, err := dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(subsystemTracking<<8|nl.IPCTNL_MSG_CT_GET, unix.NLM_F_DUMP)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family), Version: nl.NFNETLINK_V0})
		for _, a := range only {
			req.AddData(a)
		}
		return n.query(unix.NETLINK_NETFILTER, req)
	})
	if err != nil {
		return nil, fmt.Errorf("list what is tracked in %s: %w", n.name, err)
	}
	var all []flow
	for _, message := range list {
		if f, ok := parseFlow(message); ok && match(f) {
			all = append(all, f)
		}
	}
	return all, nil
}

// removeFlow removes one. It returns unix.ENOENT where that ended meanwhile.
func (n *namespace) removeFlow(f flow) error {
	req := nl.NewNetlinkRequest(subsystemTracking<<8|nl.IPCTNL_MSG_CT_DELETE, unix.NLM_F_ACK)
	req.AddRawData(f.raw)
	return n.request(unix.NETLINK_NETFILTER, req)
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

// parseFlow reads a flow as the kernel tells it. ok is false for what is none.
func parseFlow(message []byte) (f flow, ok bool) {
	if len(message) < nl.SizeofNfgenmsg {
		return f, false
	}
	f.raw = message
	for kind, value := range attributes(message[nl.SizeofNfgenmsg:]) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			f.parse(&f.sent, value)
		case nl.CTA_TUPLE_REPLY:
			f.parse(&f.answer, value)
		case nl.CTA_ID:
			f.id = value
		case nl.CTA_MARK:
			f.mark = value
		case nl.CTA_ZONE:
			f.zoned = true
		}
	}
	return f, f.sent.whole() && f.answer.whole()
}

// parse reads one direction.
func (f *flow) parse(l *leg, tuple []byte) {
	var src, dst netip.Addr
	var ports [2]uint16
	for part, all := range attributes(tuple) {
		f.zoned = f.zoned || part == ctaTupleZone
		for kind, value := range attributes(all) {
			switch {
			case part == nl.CTA_TUPLE_IP && (kind == nl.CTA_IP_V4_SRC || kind == nl.CTA_IP_V6_SRC):
				src, _ = netip.AddrFromSlice(value)
			case part == nl.CTA_TUPLE_IP && (kind == nl.CTA_IP_V4_DST || kind == nl.CTA_IP_V6_DST):
				dst, _ = netip.AddrFromSlice(value)
			case part == nl.CTA_TUPLE_PROTO && kind == nl.CTA_PROTO_NUM && len(value) == 1:
				f.protocol = value[0]
			case part == nl.CTA_TUPLE_PROTO && len(value) == 2 && (kind == nl.CTA_PROTO_SRC_PORT || kind == nl.CTA_PROTO_DST_PORT):
				ports[kind-nl.CTA_PROTO_SRC_PORT] = binary.BigEndian.Uint16(value)
			}
		}
	}
	*l = leg{netip.AddrPortFrom(src, ports[0]), netip.AddrPortFrom(dst, ports[1])}
}

func (l leg) whole() bool { return l.src.IsValid() && l.dst.IsValid() }

// attributes are those in a message or in one of its attributes, by kind. The netlink package makes a list of them, which takes several
// times as long, for each of many flows.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) || !yield(binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// forgetEach removes the flows of an IP version that match, as flowsOf finds them.
func (n *namespace) forgetEach(family int, match func(flow) bool, only ...*nl.RtAttr) error {
	list, err := n.flowsOf(family, match, only...)
	errs := []error{err}
	for _, f := range list {
		if err := n.removeFlow(f); err != nil && !errors.Is(err, unix.ENOENT) { // else it ended meanwhile
			errs = append(errs, fmt.Errorf("forget the connection from %s to %s in %s: %w", f.sent.src, f.answer.src, n.name, err))
		}
	}
	return errors.Join(errs...)
}
