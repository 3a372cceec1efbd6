// Package apiserver is the swarm's door: the resources over HTTP with lists, filters, watches and events, the sessions of
// the nodes' agents, their status reports and log streams, the daemon's own doors, and the raw doors of the store.
//
// It owns what a request may ask and how it is answered: limits, decoding, checks across objects, names, problem documents,
// OpenAPI, metrics. It is the one writer of specs (for users) and of status (for agents). It never decides what runs where,
// never opens a listener, and keeps nothing that a restart must not lose.
package apiserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Host is the machine's daemon, for the doors that work before there is a swarm. What it refuses it should refuse with a
// *v1.Problem; any other error is answered as an internal one.
type Host interface {
	// Info fills in all but the counts and the cluster of Swarm, which the server knows.
	Info(ctx context.Context) (v1.Info, error)
	Version(ctx context.Context) (v1.VersionInfo, error)
	// Init makes a swarm and attaches its store to the server before it returns the node's ID.
	Init(ctx context.Context, r v1.InitRequest) (nodeID string, err error)
	// Leave leaves the swarm and detaches the store.
	Leave(ctx context.Context, force bool) error
	Images(ctx context.Context) ([]v1.Image, error)
	// LoadImages reads an archive to its end, without keeping it in memory.
	LoadImages(ctx context.Context, archive io.Reader) ([]v1.Image, error)
	Joiner
}

// Joiner is the part of a Host that takes it into a swarm that there is.
type Joiner interface {
	// Join makes the daemon's node a node of the swarm of the managers that the request names. What it refuses leaves the machine
	// as it was.
	Join(ctx context.Context, r v1.JoinRequest) (v1.JoinResult, error)
	// Unlock brings the unlock key to a locked daemon.
	Unlock(ctx context.Context, key string) error
	// Restore makes the daemon the first manager of the swarm of a backup, and reads the archive to its end.
	Restore(ctx context.Context, r v1.InitRequest, archive io.Reader) (nodeID string, err error)
}

// ImageResolver finds what an image reference means now, so that all tasks of a service run the same bits.
type ImageResolver interface {
	// Resolve is the reference with its digest, and the platforms that the image runs on. A reference that is no
	// registry's business, such as that of a loaded image, is returned as it is. A login without a server is none.
	Resolve(ctx context.Context, ref string, login v1.RegistryLogin) (pinned string, platforms []v1.Platform, err error)
	// TryLogin tells whether the login's registry lets it in. An error is a registry that cannot be asked.
	TryLogin(ctx context.Context, login v1.RegistryLogin) (accepted bool, err error)
}

// Options are what a Server is made of. All may be left out.
type Options struct {
	// Store is attached from the beginning; without one, the Host's doors alone are open until Attach.
	Store store.Store
	// Host opens the doors of the machine's daemon.
	Host Host
	// Resolver pins images; without one they stay as they were written.
	Resolver ImageResolver
	// Reach finds out whether something listens at host:port, as other managers have to reach one that is to be a member; without one
	// nobody looks.
	Reach func(ctx context.Context, addr string) error
	// Registry gets the server's metrics, and is what /metrics shows.
	Registry *prometheus.Registry
	Log      *slog.Logger
	// Clock is the time that is written into objects.
	Clock  func() time.Time
	Limits Limits
	// AuditFile is where the audit log goes, beside which older parts of it are kept; none is kept without one.
	AuditFile string
}

// Limits bound what clients may cost. Zero stands for the default.
type Limits struct {
	// Watches is how many watches, and LogReaders how many log requests, may be open at once; default 2,000 and 200. Root's of this
	// machine and those of users are counted apart.
	Watches, LogReaders int
	// Sessions is how many nodes may be connected; default 20,000.
	Sessions int
	// Requests is how many other requests of root of this machine, of nodes and of users may be under way, each counted apart;
	// default 4,000. Those of nobody are 64.
	Requests int
	// Keepalive is how often an idle stream says that it is alive; default 5 s.
	Keepalive time.Duration
	// BodyTimeout is how long a request's body may take to arrive, WriteTimeout how long a client may take to read one
	// write; default 30 s each.
	BodyTimeout, WriteTimeout time.Duration
	// StrangerTimeout is BodyTimeout for callers without an identity; default 5 s.
	StrangerTimeout time.Duration
	// SessionGap is what the least time between two messages of a session grows to with the number of sessions, so that
	// changes gather; default 250 ms.
	SessionGap time.Duration
	// StreamWait is how long a node has to open a log stream; default 10 s.
	StreamWait time.Duration
	// WithdrawWait is how long nodes have to confirm that they send nothing to a task any more; default v1.WithdrawWithin, after which its
	// node waits no more.
	WithdrawWait time.Duration
	// ResolveTimeout is how long a registry has to tell a digest; default 10 s.
	ResolveTimeout time.Duration
}

func (l Limits) orDefaults() Limits {
	for _, n := range []struct {
		at    *int
		value int
	}{{&l.Watches, 2000}, {&l.LogReaders, 200}, {&l.Sessions, 20_000}, {&l.Requests, 4000}} {
		if *n.at == 0 {
			*n.at = n.value
		}
	}
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
	}{
		{&l.Keepalive, 5 * time.Second}, {&l.BodyTimeout, 30 * time.Second}, {&l.WriteTimeout, 30 * time.Second},
		{&l.SessionGap, 250 * time.Millisecond}, {&l.StrangerTimeout, 5 * time.Second},
		{&l.StreamWait, 10 * time.Second}, {&l.WithdrawWait, v1.WithdrawWithin}, {&l.ResolveTimeout, 10 * time.Second},
	} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	return l
}

// Server answers requests. Make one with New, and close it.
type Server struct {
	host     Host
	resolver ImageResolver
	reaches  func(ctx context.Context, addr string) error // nil where nobody looks
	registry *prometheus.Registry
	metrics  *metrics
	log      *slog.Logger
	now      func() time.Time
	limits   Limits
	handler  http.Handler
	door     http.Handler
	openapi  func() ([]byte, error)

	places              map[callerKind]*places
	confirms            *shared
	admissions, backups gate

	audit    *auditor  // nil where there is none
	attempts *attempts // to be let in

	mu      sync.Mutex // of attaching and detaching
	closed  bool
	current atomic.Pointer[backend]
}

// New is a server. It starts no listener: Handler is for http.Server, best one made by NewHTTPServer.
func New(o Options) *Server {
	s := &Server{
		host: o.Host, resolver: o.Resolver, reaches: o.Reach, registry: o.Registry, log: o.Log, now: o.Clock, limits: o.Limits.orDefaults(),
	}
	if s.registry == nil {
		s.registry = prometheus.NewRegistry()
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.metrics = newMetrics(s)
	s.audit = newAuditor(o.AuditFile, s.log, s.registry, s.now)
	s.places = newPlaces(s.limits)
	s.confirms = newShared(maxConfirms, confirmsEach, "requests of those that are not known yet")
	s.admissions = newGate(maxAdmissions, "requests for certificates")
	s.backups = newGate(maxBackups, "backups")
	s.attempts = newAttempts(maxTries, s.now)
	s.handler, s.door = s.routes()
	if o.Store != nil {
		s.Attach(o.Store, Backing{})
	}
	return s
}

// Handler answers the requests of root of this machine, who may do everything. It is for the socket that only root can open.
func (s *Server) Handler() http.Handler { return s.handler }

// Door answers requests over TLS, from anywhere: what they may do depends on their certificate or token. It is for a listener
// with the TLS settings of the Backing's Identity. What the members of etcd ask each other on the same port is theirs to answer.
func (s *Server) Door() http.Handler { return s.door }

// Attach opens the doors that need a store, in place of the store that was attached before, if any. The store stays its
// owner's to close, after Detach.
func (s *Server) Attach(st store.Store, b Backing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detach()
	if s.closed {
		return
	}
	s.current.Store(newBackend(s, st, b))
}

// Detach closes the doors that need a store, and ends all watches and sessions. Nodes are not taken for lost by that.
func (s *Server) Detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.detach()
}

func (s *Server) detach() {
	if b := s.current.Swap(nil); b != nil {
		b.close()
	}
}

// Close is Detach for good. Requests that are under way are answered.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.detach()
	if s.audit != nil {
		s.audit.close()
	}
}

// errDetached ends what needs a store when the store goes.
var errDetached = errors.New("apiserver: the server is stopping or has left the swarm")

// maxStreams is how many requests one connection carries at a time; clients that have more make more connections.
const maxStreams = 100

// NewHTTPServer is an http.Server for the handler with the timeouts and header limits that a door should have. Bodies and
// answers have their own, in the handler.
func NewHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
