package dnsplugin

import (
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/coredns/coredns/plugin/pkg/dnsutil"
	"github.com/miekg/dns"
)

// Times to live in seconds. Who asks is on this machine, so asking again costs some 20 µs and no packet on a wire, while an answer that is
// kept leads to a task that is gone. 2 s is no longer than what Docker gives a task between leaving the names and its end.
const (
	positiveTTL = 2
	negativeTTL = 1
)

// smallestRecord is the least that an address record takes in a packet: a pointer to its name, type, class, TTL, length, address.
const smallestRecord = 16

// reply is what an answer says.
type reply struct {
	rcode             int
	answer, ns, extra []dns.RR
}

// answer answers a question for the names of the view; nil where the name is none of them. It makes at most as many records as most: more
// would not go into the packet.
func (v view) answer(q dns.Question, most int) *reply {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if _, addresses, ok := v.host(name); ok {
		return existing(q, q.Name, addressRecords(q.Name, addresses, q.Qtype, most))
	}
	switch {
	case strings.HasPrefix(name, "_"):
		return v.service(q, name, most)
	case strings.HasSuffix(name, ".arpa"):
		return v.pointer(q, name)
	default:
		return nil
	}
}

// pointer answers for the name of an address, such as 7.0.0.10.in-addr.arpa. What can be read as an address and is not its name, such as one
// with a label more, is none of ours.
func (v view) pointer(q dns.Question, name string) *reply {
	address, err := netip.ParseAddr(dnsutil.ExtractAddressFromReverse(name + "."))
	if err != nil {
		return nil
	}
	if arpa, err := dns.ReverseAddr(address.String()); err != nil || arpa != name+"." {
		return nil
	}
	host, ok := v.reverse(address)
	if !ok {
		return nil
	}
	var records []dns.RR
	if q.Qtype == dns.TypePTR {
		records = []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR, positiveTTL), Ptr: dns.Fqdn(host)}}
	}
	return existing(q, q.Name, records)
}

// service answers for the name of a service's port, such as _http._tcp.web. What lies below a service of ours in this way is ours as
// well, so that a port that does not exist does not exist, and nobody else is asked.
func (v view) service(q dns.Question, name string, most int) *reply {
	port, rest := cutLabel(name)
	protocol, service := cutLabel(rest)
	if !strings.HasPrefix(protocol, "_") {
		return nil
	}
	zone, addresses, ok := v.host(service)
	if !ok {
		return nil
	}
	apex := q.Name[len(port)+1+len(protocol)+1:]
	ports := zone.ports(service, port[1:], protocol[1:])
	if len(ports) == 0 {
		return &reply{rcode: dns.RcodeNameError, ns: []dns.RR{authority(apex)}}
	}
	if q.Qtype != dns.TypeSRV {
		return existing(q, q.Name, nil)
	}
	r := &reply{}
	targets := zone.targets(service, addresses)
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	for _, t := range targets[:min(len(targets), most)] {
		for _, p := range ports {
			r.answer = append(r.answer, &dns.SRV{Hdr: header(q.Name, dns.TypeSRV, positiveTTL), Port: p, Target: dns.Fqdn(t.name)})
		}
		r.extra = append(r.extra, addressRecords(dns.Fqdn(t.name), t.addresses, dns.TypeA, most)...)
		r.extra = append(r.extra, addressRecords(dns.Fqdn(t.name), t.addresses, dns.TypeAAAA, most)...)
	}
	if len(r.answer) == 0 { // the service has no addresses now
		return existing(q, q.Name, nil)
	}
	return r
}

// cutLabel is the first label of a name, which may have a dot of its own behind a backslash, and the name without it.
func cutLabel(name string) (label, rest string) {
	next, end := dns.NextLabel(name, 0)
	if end {
		return name, ""
	}
	return name[:next-1], name[next:]
}

// existing is the reply for a name that is there: its records, or that it has none of the type that was asked for. Who asks for
// everything gets as little as RFC 8482 allows.
func existing(q dns.Question, apex string, records []dns.RR) *reply {
	if q.Qtype == dns.TypeANY {
		records = []dns.RR{&dns.HINFO{Hdr: header(q.Name, dns.TypeHINFO, positiveTTL), Cpu: "RFC8482"}}
	}
	if len(records) == 0 {
		return &reply{ns: []dns.RR{authority(apex)}}
	}
	return &reply{answer: records}
}

// addressRecords are the addresses of the type in a random order, which is what spreads the connections of those who take the first.
func addressRecords(name string, addresses []netip.Addr, qtype uint16, most int) []dns.RR {
	if qtype != dns.TypeA && qtype != dns.TypeAAAA || len(addresses) == 0 {
		return nil
	}
	records, n := make([]dns.RR, 0, min(len(addresses), most)), len(addresses)
	start := rand.IntN(n) // of very many, any part may be the one that fits
	for i := 0; i < n && len(records) < most; i++ {
		switch a := addresses[(start+i)%n].Unmap(); {
		case qtype == dns.TypeA && a.Is4():
			records = append(records, &dns.A{Hdr: header(name, qtype, positiveTTL), A: a.AsSlice()})
		case qtype == dns.TypeAAAA && a.Is6():
			records = append(records, &dns.AAAA{Hdr: header(name, qtype, positiveTTL), AAAA: a.AsSlice()})
		}
	}
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	return records
}

// authority says for how long it may be remembered that something is not there. Each name is a zone of its own, because what lies beside
// it may be somebody else's.
func authority(apex string) dns.RR {
	return &dns.SOA{Hdr: header(apex, dns.TypeSOA, negativeTTL), Ns: "ns.swarm.invalid.", Mbox: "hostmaster.swarm.invalid.",
		Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: negativeTTL}
}

func header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
