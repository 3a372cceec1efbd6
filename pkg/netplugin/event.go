package netplugin

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Kinds of what somebody may change.
const (
	kindTable     = "table"
	kindLink      = "link"
	kindAddress   = "address"
	kindRoute     = "route"
	kindRule      = "rule"
	kindNeighbour = "neighbour"
	kindSetting   = "setting"
	// kindMTU is of a link of the machine's that our packets leave by.
	kindMTU = "mtu"
	// kindUnknown is of messages that came too fast to be read.
	kindUnknown = "unknown"
)

// What the netlink packages do not name; see linux/netfilter/nf_tables.h, linux/rtnetlink.h and linux/netconf.h.
const (
	subsystemTables = 10     // NFNL_SUBSYS_NFTABLES
	tableOfMessage  = 1      // the attribute of every message about a part of a table that names the table
	attributeType   = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
	routeCloned     = 0x200  // RTM_F_CLONED
	// The attributes of settings: of which link they are, or of all, and whether packets are forwarded.
	configIndex, configForwarding, configForce = 1, 2, 9
	configOfAll                                = -1
	loopbackIndex                              = 1 // in every namespace
	sizeofNetconf                              = 4 // struct netconfmsg, aligned
)

// facts are what is known of a link, by which a message about it is news.
type facts struct {
	name             string
	up               bool
	carrier, carried bool // it carries packets, or did once
	mtu, master      int
	mac, alias       string
}

// scene is a namespace as its messages are judged: the machine's own, in which little is ours, or a router's, in which all is.
type scene struct {
	// own is the index of the one link of ours in the machine's namespace; 0 is a router's namespace.
	own   uint32
	inner bool
	// routes are where routes of ours lead to from the machine's namespace: one that takes the place of ours is told of, and that ours went is not.
	routes map[netip.Prefix]bool
	// below are the MTUs of the machine's links that our packets leave by, which ours follow.
	below map[uint32]int
	// byLinks is whether the machine forwards IPv6 by its links' settings.
	byLinks bool
	links   map[uint32]facts
	// task is whether it is a task's, inner too. Its links may have been made before anybody listened: that one is up is no news.
	task bool
	// going are links of which nothing is news, for they are to go.
	going map[uint32]bool
}

// judge tells of what kind something of ours is that a message says was changed, or "".
func (s *scene) judge(m *syscall.NetlinkMessage) string {
	if m.Header.Type>>8 == subsystemTables {
		return s.judgeTables(m)
	}
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return s.judgeLink(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return s.judgeAddress(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return s.judgeRoute(m)
	case unix.RTM_NEWRULE, unix.RTM_DELRULE:
		if s.inner {
			return kindRule
		}
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return s.judgeNeighbour(m)
	case unix.RTM_NEWNETCONF:
		return s.judgeSetting(m.Data)
	}
	return ""
}

// judgeTables heeds what is done to our tables, and in a router's namespace to any: each message but that of the end of a transaction is about a
// table, and names it.
func (s *scene) judgeTables(m *syscall.NetlinkMessage) string {
	if len(m.Data) < nl.SizeofNfgenmsg || m.Header.Type&0xff == unix.NFT_MSG_NEWGEN {
		return ""
	}
	if s.inner {
		return kindTable
	}
	attrs, err := nl.ParseRouteAttr(m.Data[nl.SizeofNfgenmsg:])
	if err != nil {
		return ""
	}
	for _, a := range attrs {
		if a.Attr.Type&attributeType != tableOfMessage {
			continue
		}
		if name := nl.BytesToString(a.Value); name == tableName || name == zoneTableName {
			return kindTable
		}
	}
	return ""
}

// judgeLink heeds links that come, go, or are not as they were. That a link begins to carry packets is told as well, some time after it
// was made, and is no news.
func (s *scene) judgeLink(m *syscall.NetlinkMessage) string {
	if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] == unix.AF_BRIDGE {
		return ""
	}
	link, err := netlink.LinkDeserialize(&unix.NlMsghdr{Type: m.Header.Type, Flags: m.Header.Flags}, m.Data)
	if err != nil {
		return ""
	}
	index := uint32(link.Attrs().Index)
	if !s.inner && link.Attrs().Name != hostLink {
		was, below := s.below[index]
		if now := mtuOf(link); below && m.Header.Type == unix.RTM_NEWLINK && now != 0 && now != was { // some messages do not tell it
			return kindMTU
		}
		return ""
	}
	going := s.going[index]
	if m.Header.Type == unix.RTM_DELLINK {
		delete(s.links, index)
		delete(s.going, index) // it is told last
	}
	if going {
		return ""
	}
	if m.Header.Type == unix.RTM_DELLINK {
		return kindLink
	}
	if !s.inner {
		s.own = index // it may have been made anew
	}
	now := factsOf(link)
	was, known := s.links[index]
	now.carried = now.carried || was.carried
	s.links[index] = now
	if now.carrier {
		was.carrier, was.carried = true, true
	}
	if known && was == now || !known && s.task && now.up {
		return ""
	}
	return kindLink
}

func factsOf(l netlink.Link) facts {
	a := l.Attrs()
	carrier := a.RawFlags&unix.IFF_LOWER_UP != 0
	return facts{a.Name, a.RawFlags&unix.IFF_UP != 0, carrier, carrier, a.MTU, a.MasterIndex, a.HardwareAddr.String(), a.Alias}
}

// judgeAddress heeds addresses that go, and IPv4 ones that come; that an IPv6 address is no duplicate is told like that it came.
func (s *scene) judgeAddress(m *syscall.NetlinkMessage) string {
	if len(m.Data) < unix.SizeofIfAddrmsg || m.Header.Type == unix.RTM_NEWADDR && m.Data[0] != unix.AF_INET {
		return ""
	}
	if s.going[nativeUint32(m.Data[4:])] {
		return ""
	}
	if s.inner || nativeUint32(m.Data[4:]) == s.own {
		return kindAddress
	}
	return ""
}

// judgeRoute heeds routes, those that the kernel makes itself only where somebody asked for the change.
func (s *scene) judgeRoute(m *syscall.NetlinkMessage) string {
	data := m.Data
	if len(data) < unix.SizeofRtMsg {
		return ""
	}
	r := nl.DeserializeRtMsg(data)
	made := r.Protocol == unix.RTPROT_KERNEL && (m.Header.Pid == 0 || s.task && m.Header.Type == unix.RTM_NEWROUTE)
	if r.Flags&routeCloned != 0 || made {
		return ""
	}
	if s.inner && len(s.going) == 0 {
		return kindRoute
	}
	attrs, err := nl.ParseRouteAttr(data[unix.SizeofRtMsg:])
	if err != nil {
		return ""
	}
	link := uint32(0) // of none where it is unreachable
	var dst netip.Addr
	for _, a := range attrs {
		switch {
		case a.Attr.Type == unix.RTA_OIF && len(a.Value) >= 4:
			link = nativeUint32(a.Value)
		case a.Attr.Type == unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(a.Value)
		}
	}
	replaced := m.Header.Flags&unix.NLM_F_REPLACE != 0 && s.routes[netip.PrefixFrom(dst, int(r.Dst_len))]
	if s.inner && !s.going[link] || !s.inner && (replaced || link == s.own && link != 0) {
		return kindRoute
	}
	return ""
}

// judgeNeighbour heeds neighbours that go or become others, and whatever somebody asked for. Ours are permanent: what the kernel learns and forgets
// is not ours.
func (s *scene) judgeNeighbour(m *syscall.NetlinkMessage) string {
	const size = 12 // struct ndmsg
	if len(m.Data) < size || !s.inner && nativeUint32(m.Data[4:]) != s.own || s.going[nativeUint32(m.Data[4:])] {
		return ""
	}
	if m.Header.Pid != 0 || m.Data[0] == unix.AF_BRIDGE { // of where a node is, the kernel learns nothing
		return kindNeighbour
	}
	state := binary.NativeEndian.Uint16(m.Data[8:])
	if state&netlink.NUD_NOARP != 0 {
		return "" // a group's, which the kernel forgets some time after its link's last report
	}
	if m.Header.Type == unix.RTM_DELNEIGH || state&(netlink.NUD_PERMANENT|netlink.NUD_FAILED) != 0 {
		return kindNeighbour
	}
	return ""
}

// judgeSetting heeds the settings of links and of the namespace that the kernel tells of: forwarding and the filters of sources. Of
// the machine's own, only that it forwards is needed. That IPv6's force_forwarding of a link changed, the kernel tells with the link and
// nothing else, not even how it is now.
func (s *scene) judgeSetting(data []byte) string {
	if len(data) < sizeofNetconf {
		return ""
	}
	if s.inner {
		return kindSetting
	}
	settings := readSettings(data)
	if settings == nil {
		return ""
	}
	_, forwards := settings[configForwarding]
	all, force := settings[configIndex] == configOfAll, s.byLinks && data[0] == unix.AF_INET6 && settings[configIndex] != loopbackIndex
	for kind := range settings {
		force = force && (kind == configIndex || kind == configForce)
	}
	// Of IPv6 also that it forwards: what else comes to be forwarded then is not kept from it.
	if force || all && (forwards && data[0] == unix.AF_INET || data[0] == unix.AF_INET6) {
		return kindSetting
	}
	return ""
}

// readSettings are the numbers in a message about settings, by their attributes; nil where it cannot be read.
func readSettings(data []byte) map[uint16]int32 {
	if len(data) < sizeofNetconf {
		return nil
	}
	attrs, err := nl.ParseRouteAttr(data[sizeofNetconf:])
	if err != nil {
		return nil
	}
	found := map[uint16]int32{}
	for _, a := range attrs {
		if len(a.Value) >= 4 {
			found[a.Attr.Type] = int32(nativeUint32(a.Value))
		}
	}
	return found
}

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
