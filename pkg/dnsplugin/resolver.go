package dnsplugin

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

const (
	// pluginName is what CoreDNS calls us.
	pluginName = "swarm"
	// maxUDPSize is the most that goes into a UDP packet, whatever the asker would take: more might be cut into fragments, which get lost.
	maxUDPSize = 1232
)

// resolver is our plugin of CoreDNS: it answers the names that the asker may know, and gives other questions to the forwarder.
type resolver struct {
	server    *Server
	forwarder *forwarder
}

// Name implements plugin.Handler.
func (*resolver) Name() string { return pluginName }

// ServeDNS implements plugin.Handler.
func (r *resolver) ServeDNS(ctx context.Context, w dns.ResponseWriter, m *dns.Msg) (int, error) {
	start := time.Now()
	seen := &witness{ResponseWriter: w}
	source, rcode, err := r.answer(ctx, seen, m)
	if seen.wrote {
		rcode = seen.rcode
	}
	r.server.metrics.observe(source, rcode, time.Since(start))
	if seen.wrote { // and nobody else is to write
		return dns.RcodeSuccess, err
	}
	return rcode, err
}

// answer answers by itself or has it done, and tells which.
func (r *resolver) answer(ctx context.Context, w dns.ResponseWriter, m *dns.Msg) (source, int, error) {
	if m.Opcode != dns.OpcodeQuery {
		return refused, dns.RcodeNotImplemented, nil
	}
	q := m.Question[0]
	if r.forwarder.cameBack(q) {
		return refused, dns.RcodeNameError, w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeNameError))
	}
	from, _ := addrOf(w.RemoteAddr())
	asker, sees := r.server.asker(from)
	if asker == nil {
		return refused, dns.RcodeRefused, nil
	}
	if opt := m.IsEdns0(); opt != nil && opt.UDPSize() > maxUDPSize {
		opt.SetUDPSize(maxUDPSize)
	}
	state := request.Request{W: w, Req: m}
	if a := sees.answer(q, state.Size()/smallestRecord+1); a != nil {
		if err := w.WriteMsg(a.message(m)); err != nil {
			return local, dns.RcodeServerFailure, err
		}
		return local, a.rcode, nil
	}
	if asker.Internal {
		return refused, dns.RcodeNameError, w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeNameError))
	}
	if q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR { // has more than one message for an answer
		return refused, dns.RcodeNotImplemented, nil
	}
	nameservers := asker.Nameservers
	if len(nameservers) == 0 && r.server.options.Nameservers != nil {
		nameservers = r.server.options.Nameservers()
	}
	return forwarded, dns.RcodeServerFailure, r.forwarder.serve(ctx, w, m, asker.Task, nameservers)
}

// message makes the reply the answer to a question.
func (a *reply) message(question *dns.Msg) *dns.Msg {
	m := new(dns.Msg).SetRcode(question, a.rcode)
	m.Authoritative, m.RecursionAvailable = true, true
	m.Answer, m.Ns, m.Extra = a.answer, a.ns, a.extra
	return m
}

// witness sees what is written.
type witness struct {
	dns.ResponseWriter
	wrote bool
	rcode int
}

// WriteMsg implements dns.ResponseWriter.
func (w *witness) WriteMsg(m *dns.Msg) error {
	rcode := m.Rcode
	err := w.ResponseWriter.WriteMsg(m)
	if err == nil {
		w.wrote, w.rcode = true, rcode
	}
	return err
}

// addrOf is the IP address of a peer.
func addrOf(a net.Addr) (netip.Addr, bool) {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return at.Addr().Unmap().WithZone(""), at.IsValid()
}

// network is how the question came, and so is how it goes on.
func network(w dns.ResponseWriter) string {
	if _, tcp := w.RemoteAddr().(*net.TCPAddr); tcp {
		return "tcp"
	}
	return "udp"
}
