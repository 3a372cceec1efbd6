package dnsplugin

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/cache"
	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	// maxRoutes bounds the lists of nameservers that have a cache at a time; CoreDNS's holds 10,000 answers, and as many that say no.
	maxRoutes = 64
	// maxForwarded and maxForwardedPerAsker bound the questions that others are being asked, so that one task that asks very much
	// does not take the others' turns.
	maxForwarded         = 1024
	maxForwardedPerAsker = 256
	// shortest is the least time that CoreDNS's cache keeps an answer, whatever the answer says; what is to be kept for less goes
	// past it. longestDenial is how long a denial is kept at most; that of a name of one label, by which a service may come, as
	// long as our own.
	shortest      = 5
	longestDenial = 30
)

var (
	errNoNameserver = errors.New("no nameserver is known for names that are not the swarm's")
	errLoop         = errors.New("the only nameservers lead back to this resolver")
	errTooMany      = errors.New("too many questions are waiting for other nameservers")
)

// forwarder asks others for what is not the swarm's. For each list of nameservers there is a chain of CoreDNS's cache and a route, so
// that what one task's nameservers say is not told to those who have others.
type forwarder struct {
	ctx    context.Context // ends what is under way when the server ends
	log    *slog.Logger
	own    []netip.AddrPort
	probes probes
	turns  turns
	told   atomic.Int64 // when it may be told again that there are too many

	mu     sync.Mutex
	routes map[string]*route
}

func newForwarder(ctx context.Context, log *slog.Logger, own []netip.AddrPort) *forwarder {
	return &forwarder{ctx: ctx, log: log, own: own, routes: map[string]*route{},
		probes: probes{names: map[string]*upstream{}}, turns: turns{by: map[netip.Addr]int{}}}
}

// route is the way to a list of nameservers: a plugin of CoreDNS, behind its cache.
type route struct {
	forwarder *forwarder
	cache     *cache.Cache
	upstreams []*upstream
	looped    bool // the list had this resolver in it
	flight    singleflight.Group
	used      time.Time // guarded by the forwarder's mutex
}

// origin is what a context says of a question on its way through the cache: whose it is, and where to write what the cache is not to keep.
type origin struct {
	task   string
	writer dns.ResponseWriter
}

// originKey is where a context has it.
type originKey struct{}

// serve asks the nameservers. It writes an answer in any case.
func (f *forwarder) serve(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, task string, nameservers []netip.AddrPort) error {
	rt := f.route(nameservers)
	if len(rt.upstreams) == 0 {
		if rt.looped {
			return fail(w, r, errLoop)
		}
		return fail(w, r, errNoNameserver)
	}
	ctx = context.WithValue(ctx, originKey{}, origin{task, w})
	rcode, err := plugin.NextOrFailure(pluginName, rt.cache, ctx, w, r)
	if plugin.ClientWrite(rcode) {
		return err
	}
	return fail(w, r, err)
}

// route finds or makes the way to the nameservers. Beyond maxRoutes, the one that was not used for the longest time is forgotten.
func (f *forwarder) route(nameservers []netip.AddrPort) *route {
	var key strings.Builder
	for _, n := range nameservers {
		key.WriteString(n.String())
		key.WriteByte(' ')
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	rt := f.routes[key.String()]
	if rt == nil {
		if len(f.routes) >= maxRoutes {
			f.forgetOldest()
		}
		rt = f.newRoute(nameservers)
		f.routes[key.String()] = rt
	}
	rt.used = time.Now()
	return rt
}

func (f *forwarder) forgetOldest() {
	oldest := ""
	for key, rt := range f.routes {
		if oldest == "" || rt.used.Before(f.routes[oldest].used) {
			oldest = key
		}
	}
	delete(f.routes, oldest)
}

func (f *forwarder) newRoute(nameservers []netip.AddrPort) *route {
	rt := &route{forwarder: f, cache: cache.New()}
	rt.cache.Next = rt
	for _, n := range nameservers {
		if !n.IsValid() || slices.ContainsFunc(rt.upstreams, func(u *upstream) bool { return u.addr == n }) {
			continue
		}
		if slices.ContainsFunc(f.own, func(own netip.AddrPort) bool { return same(own, n) }) {
			rt.looped = true
			f.log.Info("a nameserver is this resolver itself: it is not asked", "nameserver", n)
			continue
		}
		rt.upstreams = append(rt.upstreams, &upstream{addr: n})
	}
	return rt
}

// same tells whether an address leads to the one that is listened on.
func same(own, other netip.AddrPort) bool {
	return own.Port() == other.Port() && (own.Addr() == other.Addr() || own.Addr().IsUnspecified() && other.Addr().IsLoopback())
}

// Name implements plugin.Handler.
func (*route) Name() string { return "forward" }

// ServeDNS implements plugin.Handler: it has the nameservers asked, once for all who ask the same at the same time. What goes to w is
// kept by the cache.
func (rt *route) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	from, ok := ctx.Value(originKey{}).(origin)
	if !ok {
		from.writer = w
	}
	asker, _ := addrOf(w.RemoteAddr())
	if !rt.forwarder.turns.take(asker) {
		rt.forwarder.tooMany(from.task)
		return dns.RcodeSuccess, fail(from.writer, r, errTooMany)
	}
	defer rt.forwarder.turns.give(asker)
	reply, err := rt.ask(newOutgoing(r, network(w)))
	if err != nil {
		return dns.RcodeServerFailure, err
	}
	reply.Id, reply.Question = r.Id, r.Question
	longest := uint32(longestDenial)
	if dns.CountLabel(r.Question[0].Name) == 1 {
		longest = negativeTTL
	}
	if bounded(reply, longest) < shortest {
		w = from.writer
	}
	return dns.RcodeSuccess, w.WriteMsg(reply)
}

// tooMany tells of a task that asks too much, at most every 10 s.
func (f *forwarder) tooMany(task string) {
	if at, now := f.told.Load(), time.Now(); at < now.UnixNano() && f.told.CompareAndSwap(at, now.Add(10*time.Second).UnixNano()) {
		f.log.Warn("questions fail because too many are waiting for other nameservers", "task.id", task,
			"most", maxForwarded, "most.per.task", maxForwardedPerAsker)
	}
}

// ask is one flight for all who ask the same. That bounds a loop as well: a question that comes back as itself waits for itself, and
// both end with the time.
func (rt *route) ask(out outgoing) (*dns.Msg, error) {
	got, err, _ := rt.flight.Do(out.key(), func() (any, error) {
		return rt.exchange(rt.forwarder.ctx, out)
	})
	if err != nil {
		return nil, err
	}
	return got.(*dns.Msg).Copy(), nil
}

// bounded cuts the time of a denial, in seconds, and returns the shortest time to live of the message in seconds.
func bounded(m *dns.Msg, longest uint32) uint32 {
	least, denies := uint32(1<<31), m.Rcode == dns.RcodeNameError || slices.ContainsFunc(m.Ns, isAuthority)
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			h := rr.Header()
			if denies {
				h.Ttl = min(h.Ttl, longest)
			}
			least = min(least, h.Ttl)
		}
	}
	return least
}

func isAuthority(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA }

// fail says that the question could not be answered, and to those who understand it, why.
func fail(w dns.ResponseWriter, r *dns.Msg, why error) error {
	m := new(dns.Msg).SetRcode(r, dns.RcodeServerFailure)
	m.RecursionAvailable = true
	if r.IsEdns0() != nil && why != nil {
		m.SetEdns0(maxUDPSize, false)
		opt := m.IsEdns0()
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeNetworkError, ExtraText: why.Error()})
	}
	if err := w.WriteMsg(m); err != nil {
		return err
	}
	return why
}

// turns counts the questions under way, by who asked.
type turns struct {
	mu  sync.Mutex
	all int
	by  map[netip.Addr]int
}

func (t *turns) take(asker netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all >= maxForwarded || t.by[asker] >= maxForwardedPerAsker {
		return false
	}
	t.all++
	t.by[asker]++
	return true
}

func (t *turns) give(asker netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.by[asker]--; t.by[asker] == 0 {
		delete(t.by, asker)
	}
}
