package dnsplugin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/prometheus/client_golang/prometheus"
)

// Options are what a Server needs.
type Options struct {
	// Listen are the addresses that it answers on, over UDP and TCP. They need not be there yet.
	Listen []netip.AddrPort
	// Keeper has the sockets of the address, of which there is one then, outlive this process; nil for none.
	Keeper Keeper
	// Nameservers tells the machine's own nameservers, in their order; it is called for each question that is not for the swarm's names
	// and must not block. Nil, or an empty list: such questions fail.
	Nameservers func() []netip.AddrPort
	// Host is who asks when the machine itself does, from a loopback address or one of those in Listen. It sees all zones, whatever its
	// Zones say. Nil: the machine is refused like everybody who is no asker.
	Host *Asker
	// Log is told of what is unusual; nil for slog's default.
	Log *slog.Logger
	// Registry takes the metrics; nil for none. Servers that share one share the metrics.
	Registry *prometheus.Registry
}

// Server is the resolver of a machine's tasks. Its methods may be called from any goroutine. Several Servers in one process do not
// know of each other.
type Server struct {
	options Options
	log     *slog.Logger
	metrics *metrics
	own     map[netip.Addr]bool
	names   atomic.Pointer[published]
	named   chan struct{} // closed by the first Set
	begin   sync.Once

	mu    sync.Mutex
	bound map[int]netip.AddrPort // by place in Listen
	ready chan struct{}          // closed when all are bound for the first time
}

// published are Names with what is asked of them as a whole.
type published struct {
	*Names
	all view
}

// New makes a Server that answers nobody until the first Set: who asks a Server that runs waits for that, rather than be refused, as the
// tasks of a machine whose daemon just started ask it before it can know them.
func New(o Options) *Server {
	s := &Server{options: o, log: o.Log, metrics: newMetrics(o.Registry), own: map[netip.Addr]bool{},
		bound: map[int]netip.AddrPort{}, ready: make(chan struct{}), named: make(chan struct{})}
	if s.log == nil {
		s.log = slog.Default()
	}
	for _, l := range o.Listen {
		s.own[l.Addr().Unmap()] = true
	}
	return s
}

// Set has all questions from now on answered from these names; each is answered from one Names alone. It takes a moment, whatever there
// is in them.
func (s *Server) Set(n *Names) {
	p := &published{Names: n}
	ids := make([]string, 0, len(n.Zones))
	for id, z := range n.Zones {
		if z != nil {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(n.Zones[a].Name, n.Zones[b].Name), cmp.Compare(a, b))
	})
	for _, id := range ids {
		p.all = append(p.all, n.Zones[id])
	}
	s.names.Store(p)
	s.begin.Do(func() { close(s.named) })
}

// asker finds who asks from an address, and what it sees; nil if it is nobody that we answer.
func (s *Server) asker(address netip.Addr) (*Asker, view) {
	names := s.names.Load()
	if a := names.Askers[address]; a != nil {
		v := make(view, 0, len(a.Zones))
		for _, id := range a.Zones {
			if z := names.Zones[id]; z != nil {
				v = append(v, z)
			}
		}
		return a, v
	}
	if s.options.Host != nil && (address.IsLoopback() || s.own[address]) {
		return s.options.Host, names.all
	}
	return nil, nil
}

// Run answers until the context ends, and has closed its sockets when it returns. An address that is taken by somebody else is tried
// again until it is free. The error is for what no waiting can mend.
func (s *Server) Run(ctx context.Context) error {
	if len(s.options.Listen) == 0 {
		return errors.New("dns: there is no address to listen on")
	}
	f := newForwarder(ctx, s.log, s.options.Listen)
	defer f.probes.running.Wait()
	handler := &resolver{server: s, forwarder: f}
	var running sync.WaitGroup
	for i := range s.options.Listen {
		running.Go(func() { s.keepServing(ctx, i, handler) })
	}
	running.Wait()
	return nil
}

// Bound waits until the server listens on all of its addresses and returns them, with the ports that the system chose where one is 0.
func (s *Server) Bound(ctx context.Context) ([]netip.AddrPort, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.ready:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	addresses := make([]netip.AddrPort, len(s.options.Listen))
	for i, a := range s.bound {
		addresses[i] = a
	}
	return addresses, nil
}

// keepServing serves one address, and again when that ended with an error: after a pause that grows up to 2 s. The same error in a row
// is told once.
func (s *Server) keepServing(ctx context.Context, i int, handler plugin.Handler) {
	const first, longest = 20 * time.Millisecond, 2 * time.Second
	pause, told := first, ""
	for {
		start := time.Now()
		err := s.serve(ctx, i, handler)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > longest { // it did serve
			pause, told = first, ""
		}
		if err.Error() != told {
			told = err.Error()
			s.log.Error("names are not answered on an address: trying again", "listen", s.options.Listen[i], "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longest)
	}
}

// serve has CoreDNS serve one address until the context ends or a socket fails.
func (s *Server) serve(ctx context.Context, i int, handler plugin.Handler) error {
	sockets, err := listen(ctx, s.options.Listen[i], s.options.Keeper)
	if err != nil {
		return err
	}
	defer sockets.close()
	s.nowBound(i, sockets.addr)
	select {
	case <-s.named: // until then the sockets hold what is asked
	case <-ctx.Done():
		return nil
	}
	config := &dnsserver.Config{Zone: ".", Transport: "dns", Plugin: []plugin.Plugin{func(plugin.Handler) plugin.Handler { return handler }}}
	server, err := dnsserver.NewServer("dns://"+sockets.addr.String(), []*dnsserver.Config{config})
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	failed := make(chan error, 2)
	running.Go(func() { failed <- server.ServePacket(sockets.udp) })
	running.Go(func() { failed <- server.Serve(sockets.tcp) })
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = cmp.Or(err, errors.New("the server stopped"))
	}
	if stop := server.Stop(); stop != nil {
		s.log.Warn("questions were under way when the resolver stopped", "err", stop)
	}
	sockets.close() // also what had not begun to serve when it was stopped
	running.Wait()
	return err
}

func (s *Server) nowBound(i int, addr netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.bound)
	s.bound[i] = addr
	if before < len(s.bound) && len(s.bound) == len(s.options.Listen) {
		close(s.ready)
	}
}
