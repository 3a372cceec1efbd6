package dnsplugin

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

var packets = flag.Int("packets", 200_000, "how many random packets TestPackets throws at the handler")

// generator makes packets: pure noise, questions for names of ours and others, and such questions with something broken.
type generator struct{ random *rand.Rand }

var (
	words = []string{"web", "tasks", "www", "rr", "dual", "six", "gone", "both", "big", "db", "secret", "nothing", "1", "2", "abc", "front",
		"Back-End", "other", "example", "com", "_http", "_tcp", "_udp", "_80", "_", "in-addr", "ip6", "arpa", "10", "0", "11", "WEB", "", "xn--x"}
	known = []string{"web", "tasks.web", "www", "web.1", "web.1.abc", "rr", "dual", "six", "gone", "both", "big", "db", "secret", "nothing",
		"web.front", "web.back-end", "WEB.Back-End", "db.back-end", "secret.other", "11.1.0.10.in-addr.arpa", "3.2.0.10.in-addr.arpa",
		"1.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa", "x.11.1.0.10.in-addr.arpa",
		"_http._tcp.web", "_9090._tcp.web.front", "_5060._udp.rr", "_http._tcp.gone", "_80._tcp.tasks.web", "_no._tcp.web", "example.com", "nosuch"}
	types = []uint16{dns.TypeA, dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR, dns.TypeANY, dns.TypeSOA, dns.TypeTXT,
		dns.TypeAXFR, dns.TypeOPT, dns.TypeTSIG, 0, 65, 65535}
)

func (g generator) packet() []byte {
	if g.random.IntN(8) == 0 {
		noise := make([]byte, g.random.IntN(600))
		for i := range noise {
			noise[i] = byte(g.random.Uint32())
		}
		return noise
	}
	p := g.question()
	if g.random.IntN(2) == 0 {
		return p
	}
	for range 1 + g.random.IntN(4) {
		switch at := g.random.IntN(len(p)); g.random.IntN(5) {
		case 0:
			p[at] ^= 1 << g.random.IntN(8)
		case 1:
			p[at] = byte(g.random.Uint32())
		case 2:
			p = p[:at+1]
		case 3:
			p = append(p[:at:at], append([]byte{0xc0, byte(g.random.IntN(16))}, p[at:]...)...) // a pointer, maybe to itself
		case 4:
			p = append(p, p[at:]...)
		}
	}
	return p
}

func (g generator) question() []byte {
	m := new(dns.Msg)
	m.Id, m.RecursionDesired = uint16(g.random.Uint32()), true
	name := known[g.random.IntN(len(known))]
	if g.random.IntN(3) == 0 {
		labels := make([]string, 1+g.random.IntN(5))
		for i := range labels {
			labels[i] = words[g.random.IntN(len(words))]
		}
		name = strings.Join(labels, ".")
	}
	m.Question = []dns.Question{{Name: dns.Fqdn(name), Qtype: types[g.random.IntN(len(types))], Qclass: dns.ClassINET}}
	if g.random.IntN(2) == 0 {
		m.SetEdns0(uint16(g.random.Uint32()), g.random.IntN(2) == 0)
	}
	wire, err := m.Pack()
	if err != nil { // an empty label
		m.Question[0].Name = "web."
		wire, _ = m.Pack()
	}
	return wire
}

// model knows by itself, and in the plainest way, what each asker is to be told: it writes out every name that there is.
type model map[netip.Addr]*told

// told is what there is for one asker, by name in lower case.
type told struct {
	hosts    map[string]host
	pointers map[string]string        // the name of an address, by its name in the tree of addresses
	records  map[string]map[lead]bool // of ports, such as _http._tcp.web
}

// host are the addresses of a name, and the network that it is found in.
type host struct {
	addresses map[netip.Addr]bool
	zone      *Zone
}

// lead is what a port's record leads to.
type lead struct {
	target string
	port   uint16
}

func newModel(n *Names) model {
	m := model{}
	for from, asker := range n.Askers {
		to := &told{map[string]host{}, map[string]string{}, map[string]map[lead]bool{}}
		for _, id := range asker.Zones {
			if z := n.Zones[id]; z != nil {
				to.learn(z)
			}
		}
		for name, at := range to.hosts {
			to.learnPorts(name, at)
		}
		m[from] = to
	}
	return m
}

// learn writes down the names of a network, where none before it has them.
func (to *told) learn(z *Zone) {
	for text, all := range z.Hosts.All() {
		for _, name := range []string{text, text + "." + strings.ToLower(z.Name)} {
			if before, there := to.hosts[name]; there && (len(before.addresses) > 0 || len(all) == 0) {
				continue
			}
			at := host{map[netip.Addr]bool{}, z}
			for _, a := range all {
				at.addresses[a] = true
			}
			to.hosts[name] = at
		}
	}
	for text, name := range z.Reverse.All() {
		if arpa := arpaOf(netip.MustParseAddr(text)); to.pointers[arpa] == "" {
			to.pointers[arpa] = name
		}
	}
}

// arpaOf is the name of an address in the tree of addresses: its bytes, or halves of them, the last one first.
func arpaOf(a netip.Addr) string {
	text := "in-addr.arpa"
	if a.Is6() {
		text = "ip6.arpa"
	}
	for _, b := range a.AsSlice() {
		if a.Is4() {
			text = fmt.Sprintf("%d.%s", b, text)
		} else {
			text = fmt.Sprintf("%x.%x.%s", b&15, b>>4, text)
		}
	}
	return text
}

// learnPorts writes down the records of a name, if it is one of a service with ports in the network that it is found in.
func (to *told) learnPorts(name string, at host) {
	for service, ports := range at.zone.Ports {
		behind := "." + strings.ToLower(at.zone.Name)
		if !slices.Contains([]string{service, "tasks." + service, service + behind, "tasks." + service + behind}, name) {
			continue
		}
		for _, p := range ports {
			for _, label := range []string{p.Name, fmt.Sprint(p.Port)} {
				record := strings.ToLower(fmt.Sprintf("_%s._%s.%s", label, p.Protocol, name))
				if label == "" {
					continue
				}
				if to.records[record] == nil {
					to.records[record] = map[lead]bool{}
				}
				for a := range at.addresses {
					to.records[record][lead{targetOf(a, name, at.zone), p.Port}] = true
				}
			}
		}
	}
}

// targetOf is the name by which a record leads to an address: the address's own, where that leads back to it, or the name that was asked for.
func targetOf(a netip.Addr, asked string, z *Zone) string {
	own, _ := z.Reverse.Get(a.String())
	for _, name := range []string{own, strings.TrimSuffix(own, "."+z.Name)} {
		if back, _ := z.Hosts.Get(name); slices.Contains(back, a) {
			return own
		}
	}
	return asked
}

// throw hands a packet to CoreDNS's server as its reader does, and returns what comes back: nil for nothing.
func throw(core interface {
	ServeDNS(context.Context, dns.ResponseWriter, *dns.Msg)
}, w *recorder, packet []byte) (question, answer *dns.Msg, err error) {
	if len(packet) < 12 {
		return nil, nil, nil
	}
	h := dns.Header{Id: binary.BigEndian.Uint16(packet), Bits: binary.BigEndian.Uint16(packet[2:]), Qdcount: binary.BigEndian.Uint16(packet[4:]),
		Ancount: binary.BigEndian.Uint16(packet[6:]), Nscount: binary.BigEndian.Uint16(packet[8:]), Arcount: binary.BigEndian.Uint16(packet[10:])}
	if dns.DefaultMsgAcceptFunc(h) != dns.MsgAccept {
		return nil, nil, nil
	}
	m := new(dns.Msg)
	if m.Unpack(packet) != nil {
		return nil, nil, nil
	}
	if len(m.Question) > 0 {
		question = m.Copy()
	}
	core.ServeDNS(context.Background(), w, m)
	switch {
	case w.writes > 1:
		return nil, nil, fmt.Errorf("%d answers", w.writes)
	case w.writes == 0:
		return question, nil, nil
	}
	answer = new(dns.Msg)
	return question, answer, answer.Unpack(w.wire)
}

// wrong says what is wrong with an answer.
func (m model) wrong(from netip.Addr, wire []byte, question, answer *dns.Msg) error {
	if question == nil {
		return nil
	}
	if answer == nil {
		return fmt.Errorf("%v: no answer", question.Question)
	}
	size := 512
	if opt := question.IsEdns0(); opt != nil {
		size = min(max(int(opt.UDPSize()), 512), maxUDPSize)
	}
	q := question.Question[0]
	to, known := m[from]
	plain := question.Opcode == dns.OpcodeQuery && q.Qclass == dns.ClassINET && (question.IsEdns0() == nil || question.IsEdns0().Version() == 0)
	switch {
	case len(wire) > size:
		return fmt.Errorf("%v: %d bytes where %d are allowed", q, len(wire), size)
	case answer.Id != question.Id || !answer.Response || len(answer.Question) != 1 || !equal(answer.Question[0], q):
		return fmt.Errorf("%v: answers something else: %v", q, answer)
	case (!known || !plain) && len(answer.Answer)+len(answer.Ns) > 0:
		return fmt.Errorf("%v: is answered: %v", q, answer)
	case !plain:
		return nil
	case !known:
		return expect(q, answer, dns.RcodeRefused)
	default:
		return to.wrong(q, answer)
	}
}

// wrong says what is wrong with an answer to who may ask.
func (to *told) wrong(q dns.Question, answer *dns.Msg) error {
	name := strings.TrimSuffix(strings.ToLower(q.Name), ".")
	at, isHost := to.hosts[name]
	records, isPort := to.records[name]
	pointer, isAddress := to.pointers[name]
	switch {
	case isHost:
		return addressesWrong(q, at.addresses, answer)
	case isPort:
		return to.recordsWrong(q, records, answer)
	case isAddress:
		want := map[string]bool{}
		if q.Qtype == dns.TypePTR {
			want[pointer+"."] = true
		}
		return textsWrong(q, want, answer, func(rr dns.RR) string { return rr.(*dns.PTR).Ptr })
	}
	if labels := dns.SplitDomainName(name); len(labels) > 2 && labels[0][0] == '_' && labels[1][0] == '_' {
		if _, below := to.hosts[strings.Join(labels[2:], ".")]; below {
			if len(answer.Answer) > 0 {
				return fmt.Errorf("%v: a port that does not exist has %v", q, answer)
			}
			return expect(q, answer, dns.RcodeNameError)
		}
	}
	if answer.Rcode != dns.RcodeServerFailure && answer.Rcode != dns.RcodeNotImplemented { // it was to be forwarded
		return fmt.Errorf("%v: is not ours: %v", q, answer)
	}
	return none(q, answer)
}

// recordsWrong says what is wrong with the records of a port, and with the addresses that come with them.
func (to *told) recordsWrong(q dns.Question, records map[lead]bool, answer *dns.Msg) error {
	want := map[string]bool{}
	for r := range records {
		if q.Qtype == dns.TypeSRV {
			want[fmt.Sprintf("%s. %d", r.target, r.port)] = true
		}
	}
	for _, rr := range answer.Extra {
		a, is := addressIn(rr)
		if !is {
			continue
		}
		if !to.hosts[strings.TrimSuffix(rr.Header().Name, ".")].addresses[a] {
			return fmt.Errorf("%v: %v comes with it", q, rr)
		}
	}
	return textsWrong(q, want, answer, func(rr dns.RR) string {
		srv := rr.(*dns.SRV)
		return fmt.Sprintf("%s %d", srv.Target, srv.Port)
	})
}

// addressIn is the address that a record tells, if it is of that kind.
func addressIn(rr dns.RR) (a netip.Addr, is bool) {
	switch rr := rr.(type) {
	case *dns.A:
		return netip.AddrFromSlice(rr.A.To4())
	case *dns.AAAA:
		return netip.AddrFromSlice(rr.AAAA)
	}
	return a, false
}

// textsWrong says what is wrong with an answer that is to have just these records, of the type that was asked for. Who asks for all types is
// told that nobody answers that.
func textsWrong(q dns.Question, want map[string]bool, answer *dns.Msg, text func(dns.RR) string) error {
	seen := map[string]bool{}
	for _, rr := range answer.Answer {
		switch {
		case q.Qtype == dns.TypeANY && rr.Header().Rrtype == dns.TypeHINFO:
			continue
		case rr.Header().Rrtype != q.Qtype || !strings.EqualFold(rr.Header().Name, q.Name) || len(want) == 0:
			return fmt.Errorf("%v: %v is wrong", q, rr)
		}
		is := text(rr)
		if !want[is] || seen[is] {
			return fmt.Errorf("%v: %v is wrong, or there twice: want %v", q, rr, want)
		}
		seen[is] = true
	}
	if answer.Rcode != dns.RcodeSuccess || len(seen) != len(want) && !answer.Truncated {
		return fmt.Errorf("%v: %v, want %v", q, answer, want)
	}
	return nil
}

func expect(q dns.Question, answer *dns.Msg, rcode int) error {
	if answer.Rcode != rcode {
		return fmt.Errorf("%v: %v", q, answer)
	}
	return nil
}

func none(q dns.Question, answer *dns.Msg) error {
	if len(answer.Answer)+len(answer.Ns) > 0 {
		return fmt.Errorf("%v: %v", q, answer)
	}
	return nil
}

func addressesWrong(q dns.Question, want map[netip.Addr]bool, answer *dns.Msg) error {
	count, told := 0, map[netip.Addr]bool{}
	for a := range want {
		if q.Qtype == dns.TypeA && a.Is4() || q.Qtype == dns.TypeAAAA && a.Is6() {
			count++
		}
	}
	for _, rr := range answer.Answer {
		a, _ := addressIn(rr)
		if _, is := rr.(*dns.HINFO); is {
			continue
		}
		if !want[a] || told[a] || rr.Header().Rrtype != q.Qtype || !strings.EqualFold(rr.Header().Name, q.Name) {
			return fmt.Errorf("%v: %v is wrong", q, rr)
		}
		told[a] = true
	}
	if answer.Rcode != dns.RcodeSuccess || len(told) != count && !answer.Truncated {
		return fmt.Errorf("%v: %v", q, answer)
	}
	return nil
}

// TestPackets throws random packets at the server and holds each answer against the model. For 10 million: -args -packets 10000000.
func TestPackets(t *testing.T) {
	n := sample()
	n.Zones["f"].Hosts.Delete("huge") // takes all the time
	s, m := newInside(t, Options{}, n), newModel(n)
	froms := []netip.Addr{one, one, two, three, stranger}
	var running sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	counts := make([]int, workers)
	for worker := range workers {
		running.Go(func() {
			g := generator{rand.New(rand.NewPCG(42, uint64(worker)))}
			for i := range *packets / workers {
				packet, from := g.packet(), froms[g.random.IntN(len(froms))]
				w := udpFrom(from)
				question, answer, err := throw(s.core, w, packet)
				if err == nil {
					err = m.wrong(from, w.wire, question, answer)
				}
				if err != nil {
					t.Errorf("packet %d of worker %d, %x: %v", i, worker, packet, err)
					return
				}
				if answer != nil {
					counts[worker]++
				}
			}
		})
	}
	running.Wait()
	answered := 0
	for _, c := range counts {
		answered += c
	}
	t.Logf("%d packets, %d of them questions that were answered", *packets, answered)
	if answered < *packets/3 {
		t.Error("the packets are hardly ever questions")
	}
}

// FuzzPacket has the fuzzer make the packets.
func FuzzPacket(f *testing.F) {
	g := generator{rand.New(rand.NewPCG(1, 1))}
	for range 200 {
		f.Add(g.question())
	}
	f.Add(bytes.Repeat([]byte{0xc0, 0x0c}, 20))
	n := sample()
	n.Zones["f"].Hosts.Delete("huge")
	s, m := newInside(f, Options{}, n), newModel(n)
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, from := range []netip.Addr{one, three, stranger} {
			w := udpFrom(from)
			question, answer, err := throw(s.core, w, packet)
			if err == nil {
				err = m.wrong(from, w.wire, question, answer)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
}
