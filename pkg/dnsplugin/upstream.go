package dnsplugin

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	// tryTime is what one nameserver gets for one try, and askTime what all get together: less than the 5 s after which resolvers ask
	// again.
	tryTime = 2 * time.Second
	askTime = 4 * time.Second
	// downTime is how long a nameserver that did not answer is asked after the others, loopTime how long one that led back to us is not
	// asked at all, and also how often at most that is looked for.
	downTime = 10 * time.Second
	loopTime = time.Minute
	// loopZone is where the names lie that are asked to find out whether they come back. No name below invalid exists.
	loopZone = ".loop.swarm.invalid."
)

// upstream is a nameserver. Times are nanoseconds since 1970.
type upstream struct {
	addr  netip.AddrPort
	down  atomic.Int64 // until when it is asked last
	loops atomic.Int64 // until when it is not asked
	probe atomic.Int64 // when it may be probed again
}

// outgoing is a question as it is sent: nothing of the asker's but the question and what is to be done with it.
type outgoing struct {
	msg     *dns.Msg
	network string
}

func newOutgoing(r *dns.Msg, network string) outgoing {
	m := new(dns.Msg)
	m.Question = []dns.Question{r.Question[0]}
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = r.RecursionDesired, r.CheckingDisabled, r.AuthenticatedData
	if opt := r.IsEdns0(); opt != nil {
		m.SetEdns0(max(opt.UDPSize(), dns.MinMsgSize), opt.Do())
	}
	return outgoing{m, network}
}

// key is equal for questions that have the same answer.
func (o outgoing) key() string {
	q := o.msg.Question[0]
	key := []string{o.network, strings.ToLower(q.Name), strconv.Itoa(int(q.Qtype)), strconv.FormatBool(o.msg.RecursionDesired),
		strconv.FormatBool(o.msg.CheckingDisabled)}
	if opt := o.msg.IsEdns0(); opt != nil {
		key = append(key, strconv.Itoa(int(opt.UDPSize())), strconv.FormatBool(opt.Do()))
	}
	return strings.Join(key, " ")
}

// exchange asks the nameservers, in their order but for those that did not answer lately, until one gives an answer: twice each, within
// askTime. One that says that it cannot or will not answer is believed only if all others say so, too, or are silent.
func (rt *route) exchange(ctx context.Context, out outgoing) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var refusal *dns.Msg
	var failure error
	for range 2 {
		for _, u := range rt.order(time.Now()) {
			reply, err := u.exchange(ctx, out)
			switch {
			case err != nil && ctx.Err() != nil: // the time of all is over, or the server ends: no fault of this one
				return refusal, orNil(refusal, cmp.Or(failure, err))
			case err != nil:
				failure = fmt.Errorf("nameserver %s: %w", u.addr, err)
				rt.forwarder.failed(u, err)
			case refuses(reply.Rcode):
				refusal = reply
			default:
				rt.forwarder.worked(u)
				return reply, nil
			}
		}
		if refusal != nil {
			break
		}
	}
	return refusal, orNil(refusal, cmp.Or(failure, errLoop))
}

// orNil is the failure, unless there is a reply after all.
func orNil(reply *dns.Msg, failure error) error {
	if reply != nil {
		return nil
	}
	return failure
}

func refuses(rcode int) bool {
	return rcode == dns.RcodeServerFailure || rcode == dns.RcodeRefused || rcode == dns.RcodeNotImplemented
}

// order is in which order to ask: as they are given, as everybody's resolver does it; one that did not answer lately after the others; one that leads
// back to us not at all.
func (rt *route) order(now time.Time) []*upstream {
	first, last := make([]*upstream, 0, len(rt.upstreams)), []*upstream(nil)
	for _, u := range rt.upstreams {
		switch {
		case u.loops.Load() > now.UnixNano():
		case u.down.Load() > now.UnixNano():
			last = append(last, u)
		default:
			first = append(first, u)
		}
	}
	return append(first, last...)
}

// exchange asks one nameserver, from a port of its own, so that nobody can guess where an answer is waited for.
func (u *upstream) exchange(ctx context.Context, out outgoing) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	client := dns.Client{Net: out.network, Timeout: tryTime, UDPSize: 4096} // also of those that send more than they may
	conn, err := client.DialContext(ctx, u.addr.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	m := out.msg.Copy()
	m.Id = dns.Id()
	reply, _, err := client.ExchangeWithConnContext(ctx, m, conn)
	switch {
	case err != nil:
		return nil, err
	case !reply.Response || len(reply.Question) != 1 || !equal(reply.Question[0], m.Question[0]):
		return nil, errors.New("the answer is for another question")
	case reply.Rcode > 0xf: // it talks of EDNS0, which ends here
		return nil, fmt.Errorf("the answer has the code %d", reply.Rcode)
	}
	reply.Extra = slices.DeleteFunc(reply.Extra, func(rr dns.RR) bool {
		return rr.Header().Rrtype == dns.TypeOPT || rr.Header().Rrtype == dns.TypeTSIG
	})
	return reply, nil
}

func equal(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

// failed notes that a nameserver gave no answer, and has it looked at whether it led back to us.
func (f *forwarder) failed(u *upstream, err error) {
	now := time.Now()
	if f.ctx.Err() != nil {
		return
	}
	if u.down.Swap(now.Add(downTime).UnixNano()) == 0 {
		f.log.Warn("a nameserver does not answer", "nameserver", u.addr, "err", err)
	}
	if at := u.probe.Load(); at < now.UnixNano() && u.probe.CompareAndSwap(at, now.Add(loopTime).UnixNano()) {
		f.probes.start(f, u)
	}
}

func (f *forwarder) worked(u *upstream) {
	if u.down.Load() != 0 && u.down.Swap(0) != 0 {
		f.log.Info("a nameserver answers again", "nameserver", u.addr)
	}
}

// probes are the names that were sent to find out whether a nameserver leads back to us, and that did not come back yet. A nameserver
// has one at a time.
type probes struct {
	running sync.WaitGroup
	waiting atomic.Int32
	mu      sync.Mutex
	names   map[string]*upstream
}

// start asks a nameserver for a name that nobody else asks for, and only now: a nameserver that answers leads nowhere else.
func (p *probes) start(f *forwarder, u *upstream) {
	var token [12]byte
	rand.Read(token[:])
	name := hex.EncodeToString(token[:]) + loopZone
	p.mu.Lock()
	p.names[name] = u
	p.mu.Unlock()
	p.waiting.Add(1)
	p.running.Go(func() {
		defer func() {
			p.mu.Lock()
			delete(p.names, name)
			p.mu.Unlock()
			p.waiting.Add(-1)
		}()
		m := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
		_, _ = u.exchange(f.ctx, outgoing{m, "udp"}) // whether it comes back is what tells
	})
}

// cameBack tells whether the question is a probe of ours, and has its nameserver left alone for a while.
func (f *forwarder) cameBack(q dns.Question) bool {
	if f.probes.waiting.Load() == 0 {
		return false
	}
	f.probes.mu.Lock()
	u := f.probes.names[strings.ToLower(q.Name)]
	f.probes.mu.Unlock()
	if u == nil {
		return false
	}
	u.loops.Store(time.Now().Add(loopTime).UnixNano())
	f.log.Warn("a nameserver leads back to this resolver: it is not asked", "nameserver", u.addr, "for", loopTime)
	return true
}
