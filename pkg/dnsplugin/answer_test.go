package dnsplugin

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// TestAnswers asks for names and shows what comes. What ends in "SERVFAIL" was to be forwarded: there is no nameserver.
func TestAnswers(t *testing.T) {
	s := newInside(t, Options{}, sample())
	const forwarded = "SERVFAIL"
	for _, test := range []struct {
		from  netip.Addr
		name  string
		qtype uint16
		want  string
	}{
		// A virtual address, by every name.
		{one, "web", dns.TypeA, "NOERROR\nweb. A 10.0.1.2"},
		{one, "WeB", dns.TypeA, "NOERROR\nWeB. A 10.0.1.2"},
		{one, "web.front", dns.TypeA, "NOERROR\nweb.front. A 10.0.1.2"},
		{one, "WEB.FRONT", dns.TypeA, "NOERROR\nWEB.FRONT. A 10.0.1.2"},
		{one, "web.back-end", dns.TypeA, "NOERROR\nweb.back-end. A 10.0.2.2"},
		{one, "www", dns.TypeA, "NOERROR\nwww. A 10.0.1.2"},
		// Tasks.
		{one, "tasks.web", dns.TypeA, "NOERROR\ntasks.web. A 10.0.1.11\ntasks.web. A 10.0.1.12"},
		{one, "tasks.web.front", dns.TypeA, "NOERROR\ntasks.web.front. A 10.0.1.11\ntasks.web.front. A 10.0.1.12"},
		{one, "web.1", dns.TypeA, "NOERROR\nweb.1. A 10.0.1.11"},
		{one, "web.1.abc", dns.TypeA, "NOERROR\nweb.1.abc. A 10.0.1.11"},
		{one, "web.1.abc.front", dns.TypeA, "NOERROR\nweb.1.abc.front. A 10.0.1.11"},
		{one, "rr", dns.TypeA, "NOERROR\nrr. A 10.0.1.21\nrr. A 10.0.1.22\nrr. A 10.0.1.23"},
		// The order of the asker's networks decides; a name without addresses in the first leads on to the next.
		{two, "web", dns.TypeA, "NOERROR\nweb. A 10.0.2.2"},
		{two, "www", dns.TypeA, "NOERROR\nwww. A 10.0.1.2"},
		{one, "both", dns.TypeA, "NOERROR\nboth. A 10.0.2.4"},
		{one, "both.front", dns.TypeA, "NOERROR\nns both.front. SOA"},
		// Families.
		{one, "dual", dns.TypeA, "NOERROR\ndual. A 10.0.1.31"},
		{one, "dual", dns.TypeAAAA, "NOERROR\ndual. AAAA fd00:1::31"},
		{one, "six", dns.TypeAAAA, "NOERROR\nsix. AAAA fd00:1::41"},
		{one, "six", dns.TypeA, "NOERROR\nns six. SOA"},
		{one, "web", dns.TypeAAAA, "NOERROR\nns web. SOA"}, // not what another network has
		// Known, but without what is asked.
		{one, "gone", dns.TypeA, "NOERROR\nns gone. SOA"},
		{one, "nothing", dns.TypeAAAA, "NOERROR\nns nothing. SOA"},
		{one, "web", dns.TypeMX, "NOERROR\nns web. SOA"},
		{one, "web", dns.TypeHTTPS, "NOERROR\nns web. SOA"},
		{one, "web", dns.TypeSOA, "NOERROR\nns web. SOA"},
		{one, "web", 65280, "NOERROR\nns web. SOA"},
		{one, "web", dns.TypeANY, "NOERROR\nweb. HINFO \"RFC8482\" \"\""},
		// Not ours, or not this asker's.
		{one, "secret", dns.TypeA, forwarded},
		{three, "secret", dns.TypeA, "NOERROR\nsecret. A 10.0.1.78"},
		{three, "web", dns.TypeA, "NOERROR\nweb. A 10.0.1.77"},
		{three, "www", dns.TypeA, forwarded},
		{three, "web.front", dns.TypeA, forwarded},
		{one, "front", dns.TypeA, forwarded},
		{one, "nosuch", dns.TypeA, forwarded},
		{one, "nosuch.front", dns.TypeA, forwarded},
		{one, "web.example.com", dns.TypeA, forwarded},
		{one, "xweb", dns.TypeA, forwarded},
		{one, ".", dns.TypeNS, forwarded},
		// Addresses.
		{one, "11.1.0.10.in-addr.arpa", dns.TypePTR, "NOERROR\n11.1.0.10.in-addr.arpa. PTR web.1.abc.front."},
		{one, "11.1.0.10.IN-ADDR.arpa", dns.TypePTR, "NOERROR\n11.1.0.10.IN-ADDR.arpa. PTR web.1.abc.front."},
		{three, "11.1.0.10.in-addr.arpa", dns.TypePTR, "NOERROR\n11.1.0.10.in-addr.arpa. PTR secret.other."},
		{one, "3.2.0.10.in-addr.arpa", dns.TypePTR, "NOERROR\n3.2.0.10.in-addr.arpa. PTR db.back-end."},
		{one, "1.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa", dns.TypePTR,
			"NOERROR\n1.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa. PTR dual.front."},
		{one, "11.1.0.10.in-addr.arpa", dns.TypeA, "NOERROR\nns 11.1.0.10.in-addr.arpa. SOA"},
		{one, "12.12.0.10.in-addr.arpa", dns.TypePTR, forwarded},
		{one, "1.0.10.in-addr.arpa", dns.TypePTR, forwarded},
		{one, "x.1.0.10.in-addr.arpa", dns.TypePTR, forwarded},
		{one, "arpa", dns.TypePTR, forwarded},
		{one, "0.11.1.0.10.in-addr.arpa", dns.TypePTR, forwarded},
		{one, "11.1.0.::ffff:10.in-addr.arpa", dns.TypePTR, forwarded},
		{one, "x.1.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa", dns.TypePTR, forwarded},
		{one, "b.0.1.0.0.0.a.0.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa", dns.TypePTR, forwarded},
		// Ports.
		{one, "_http._tcp.web", dns.TypeSRV, "NOERROR\n_http._tcp.web. SRV 0 0 80 web.front.\nextra web.front. A 10.0.1.2"},
		{one, "_HTTP._Tcp.Web", dns.TypeSRV, "NOERROR\n_HTTP._Tcp.Web. SRV 0 0 80 web.front.\nextra web.front. A 10.0.1.2"},
		{one, "_http._udp.web.front", dns.TypeSRV, "NOERROR\n_http._udp.web.front. SRV 0 0 443 web.front.\nextra web.front. A 10.0.1.2"},
		{one, "_9090._tcp.web", dns.TypeSRV, "NOERROR\n_9090._tcp.web. SRV 0 0 9090 web.front.\nextra web.front. A 10.0.1.2"},
		{one, "_80._tcp.tasks.web", dns.TypeSRV, "NOERROR\n" +
			"_80._tcp.tasks.web. SRV 0 0 80 web.1.abc.front.\n_80._tcp.tasks.web. SRV 0 0 80 web.2.def.front.\n" +
			"extra web.1.abc.front. A 10.0.1.11\nextra web.2.def.front. A 10.0.1.12"},
		{one, "_5060._udp.rr", dns.TypeSRV, "NOERROR\n" + // one of three has a name that leads nowhere
			"_5060._udp.rr. SRV 0 0 5060 rr.\n_5060._udp.rr. SRV 0 0 5060 rr.1.\n_5060._udp.rr. SRV 0 0 5060 rr.2.\n" +
			"extra rr. A 10.0.1.23\nextra rr.1. A 10.0.1.21\nextra rr.2. A 10.0.1.22"},
		{one, "_9000._tcp.rr.front", dns.TypeSRV, "NOERROR\n" + // once, though it is published in two ways
			"_9000._tcp.rr.front. SRV 0 0 9000 rr.1.\n_9000._tcp.rr.front. SRV 0 0 9000 rr.2.\n_9000._tcp.rr.front. SRV 0 0 9000 rr.front.\n" +
			"extra rr.1. A 10.0.1.21\nextra rr.2. A 10.0.1.22\nextra rr.front. A 10.0.1.23"},
		{one, "_admin._tcp.rr.1", dns.TypeSRV, "NXDOMAIN\nns rr.1. SOA"},
		{one, "_http._tcp.web", dns.TypeA, "NOERROR\nns _http._tcp.web. SOA"},
		{one, "_http._tcp.gone", dns.TypeSRV, "NOERROR\nns _http._tcp.gone. SOA"},
		{one, "_nosuch._tcp.web", dns.TypeSRV, "NXDOMAIN\nns web. SOA"},
		{one, "_http._sctp.web", dns.TypeSRV, "NXDOMAIN\nns web. SOA"},
		{one, "_0._tcp.web", dns.TypeSRV, "NXDOMAIN\nns web. SOA"},
		{one, "_._tcp.web", dns.TypeSRV, "NXDOMAIN\nns web. SOA"},
		{one, "_080._tcp.web", dns.TypeSRV, "NXDOMAIN\nns web. SOA"},
		{one, `_a\.b._tcp.web`, dns.TypeSRV, "NXDOMAIN\nns web. SOA"},
		{one, `_http\._tcp.web`, dns.TypeSRV, forwarded},
		{one, "_http._tcp.db", dns.TypeSRV, "NXDOMAIN\nns db. SOA"},
		{one, "_http._tcp.nosuch", dns.TypeSRV, forwarded},
		{one, "_http.web", dns.TypeSRV, forwarded},
		{one, "_", dns.TypeSRV, forwarded},
		{one, "_a._b", dns.TypeSRV, forwarded},
		// Nobody.
		{stranger, "web", dns.TypeA, "REFUSED"},
		{stranger, "example.com", dns.TypeA, "REFUSED"},
		{netip.MustParseAddr("127.0.0.1"), "web", dns.TypeA, "REFUSED"},
	} {
		got := s.ask(t, udpFrom(test.from), question(test.name, test.qtype))
		if diff := cmp.Diff(test.want, show(got)); diff != "" {
			t.Errorf("%s asks for %s %s: %s", test.from, test.name, dns.TypeToString[test.qtype], diff)
		}
		for _, rr := range append(got.Answer, got.Extra...) {
			if ttl := rr.Header().Ttl; ttl != positiveTTL {
				t.Errorf("%s: %s is kept for %d s", test.name, rr, ttl)
			}
		}
		for _, rr := range got.Ns {
			if soa := rr.(*dns.SOA); soa.Hdr.Ttl != negativeTTL || soa.Minttl != negativeTTL || !dns.IsSubDomain(soa.Hdr.Name, dns.Fqdn(test.name)) {
				t.Errorf("%s: %s", test.name, rr)
			}
		}
		if ours := test.want != forwarded && test.want != "REFUSED"; ours != got.Authoritative {
			t.Errorf("%s: authoritative is %t", test.name, got.Authoritative)
		}
	}
}

// TestOrder looks at the order of addresses: over many questions, each comes as often as the others.
func TestOrder(t *testing.T) {
	s := newInside(t, Options{}, sample())
	const rounds = 6000
	for name, n := range map[string]int{"rr": 6, "tasks.web": 2, "web": 1} {
		orders := map[string]int{}
		for range rounds {
			order := ""
			for _, rr := range s.ask(t, udpFrom(one), question(name, dns.TypeA)).Answer {
				order += rr.(*dns.A).A.String() + " "
			}
			orders[order]++
		}
		if len(orders) != n {
			t.Errorf("%s: %v", name, orders)
		}
		for order, times := range orders {
			if want := rounds / n; times < want*8/10 || times > want*12/10 {
				t.Errorf("%s: %s came %d times of %d", name, order, times, rounds)
			}
		}
	}
	// Of more than go into a packet, all get their turn.
	seen := map[string]bool{}
	for range 200 {
		for _, rr := range s.ask(t, udpFrom(one), question("big", dns.TypeA)).Answer {
			seen[rr.(*dns.A).A.String()] = true
		}
	}
	if len(seen) != 300 {
		t.Errorf("%d of 300 addresses were ever told", len(seen))
	}
}

// TestHost has the machine itself ask: it sees all networks, in the order of their names.
func TestHost(t *testing.T) {
	own := netip.MustParseAddrPort("169.254.77.53:53")
	s := newInside(t, Options{Host: &Asker{Task: "host"}, Listen: []netip.AddrPort{own}}, sample())
	for _, from := range []netip.Addr{own.Addr(), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("::ffff:127.0.0.1")} {
		for name, want := range map[string]string{
			"web": "web. A 10.0.2.2", "www": "www. A 10.0.1.2", "secret": "secret. A 10.0.1.78", "web.other": "web.other. A 10.0.1.77",
			"web.front": "web.front. A 10.0.1.2",
		} {
			if got := show(s.ask(t, udpFrom(from), question(name, dns.TypeA))); got != "NOERROR\n"+want {
				t.Errorf("%s from %s: %s", name, from, got)
			}
		}
	}
	if got := show(s.ask(t, udpFrom(netip.MustParseAddr("192.0.2.1")), question("web", dns.TypeA))); got != "REFUSED" {
		t.Errorf("a stranger: %s", got)
	}
	if got := show(s.ask(t, udpFrom(three), question("www", dns.TypeA))); got != "SERVFAIL" {
		t.Errorf("a task with a loopback address sees more than its own: %s", got)
	}
}

// TestSizes asks for more than fits.
func TestSizes(t *testing.T) {
	s := newInside(t, Options{}, sample())
	for _, test := range []struct {
		name      string
		tcp       bool
		edns      uint16
		bytes     int
		truncated bool
		records   int
	}{
		{"big", false, 0, 512, true, 30},
		{"big", false, 100, 512, true, 30},
		{"big", false, 1024, 1024, true, 62},
		{"big", false, 1232, 1232, true, 75},
		{"big", false, 65535, 1232, true, 75},
		{"big", true, 0, 65535, false, 300},
		{"big", true, 512, 65535, false, 300},
		{"huge", false, 0, 512, true, 30},
		{"huge", true, 0, 65535, true, 4094},
		{"rr", false, 512, 512, false, 3},
	} {
		m, w := question(test.name, dns.TypeA), udpFrom(one)
		if test.tcp {
			w = tcpFrom(one)
		}
		if test.edns > 0 {
			m.SetEdns0(test.edns, true)
		}
		got := s.ask(t, w, m)
		if len(w.wire) > test.bytes || got.Truncated != test.truncated || len(got.Answer) < test.records-1 || len(got.Answer) > test.records {
			t.Errorf("%+v: %d bytes, truncated %t, %d records", test, len(w.wire), got.Truncated, len(got.Answer))
		}
		seen := map[string]bool{}
		for _, rr := range got.Answer {
			seen[rr.String()] = true
		}
		if len(seen) != len(got.Answer) {
			t.Errorf("%+v: %d of %d records are different", test, len(seen), len(got.Answer))
		}
		switch opt := got.IsEdns0(); {
		case (opt != nil) != (test.edns > 0):
			t.Errorf("%+v: EDNS0 is %v", test, opt)
		case opt != nil && (!opt.Do() || opt.Version() != 0 || len(opt.Option) != 0):
			t.Errorf("%+v: EDNS0 is %v", test, opt)
		}
	}
}

// TestMessages sends what is no plain question.
func TestMessages(t *testing.T) {
	s := newInside(t, Options{}, sample())
	for name, test := range map[string]struct {
		change func(m *dns.Msg)
		want   string
	}{
		"plain":          {func(*dns.Msg) {}, "NOERROR\nweb. A 10.0.1.2"},
		"another class":  {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED"},
		"any class":      {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }, "REFUSED"},
		"no class":       {func(m *dns.Msg) { m.Question[0].Qclass = 0 }, "REFUSED"},
		"notify":         {func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, "NOTIMP"},
		"update":         {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, "NOTIMP"},
		"a transfer":     {func(m *dns.Msg) { m.Question[0] = dns.Question{Name: "example.com.", Qtype: dns.TypeAXFR, Qclass: 1} }, "NOTIMP"},
		"ours to copy":   {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }, "NOERROR\nns web. SOA"},
		"EDNS version 1": {func(m *dns.Msg) { m.SetEdns0(1232, false).IsEdns0().SetVersion(1) }, dns.RcodeToString[dns.RcodeBadVers]},
		"EDNS options": {func(m *dns.Msg) {
			opt := m.SetEdns0(1232, false).IsEdns0()
			opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")})
		}, "NOERROR\nweb. A 10.0.1.2"},
		"with a signature": {func(m *dns.Msg) { m.SetTsig("key.", dns.HmacSHA256, 300, 1) }, "NOERROR\nweb. A 10.0.1.2"},
		"with records":     {func(m *dns.Msg) { m.Answer = says(m, "web. 1 IN A 192.0.2.66").Answer }, "NOERROR\nweb. A 10.0.1.2"},
	} {
		m := question("web", dns.TypeA)
		test.change(m)
		if got := show(s.ask(t, udpFrom(one), m)); got != test.want && !strings.HasPrefix(got, test.want+"\n") {
			t.Errorf("%s: %s", name, got)
		}
	}
}
