package apiserver

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what /metrics shows of this server.
type metrics struct {
	server   *Server
	requests *prometheus.HistogramVec
	lag      prometheus.Histogram
	messages prometheus.Counter
	bytes    prometheus.Counter
	reports  prometheus.Counter

	mu   sync.Mutex
	seen [1024]moment // ring of revisions and when this server first knew of them
}

type moment struct {
	revision int64
	at       time.Time
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		server: s,
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "Time to answer requests, but for watches, logs and sessions.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"verb", "resource", "code"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "apiserver_watch_lag_seconds", Help: "Time from when a revision was known to when a watch or session sent it.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		messages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_session_messages_total", Help: "Assignments sent to nodes."}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_session_bytes_total", Help: "Bytes of assignments sent to nodes."}),
		reports: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_status_writes_total", Help: "Sections of status written for agents."}),
	}
	s.registry.MustRegister(m.requests, m.lag, m.messages, m.bytes, m.reports, stateCollector{s})
	return m
}

func (m *metrics) observe(rt *route, code int, took time.Duration) {
	m.requests.WithLabelValues(rt.method, rt.resource, strconv.Itoa(code)).Observe(took.Seconds())
}

// saw notes when a revision was first known here.
func (m *metrics) saw(revision int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at := &m.seen[revision%int64(len(m.seen))]; at.revision < revision {
		*at = moment{revision, time.Now()}
	}
}

// sent notes that a revision reached a client. Clients that catch up with the distant past do not count.
func (m *metrics) sent(revision int64) {
	m.mu.Lock()
	at := m.seen[revision%int64(len(m.seen))]
	m.mu.Unlock()
	if at.revision == revision && !at.at.IsZero() {
		m.lag.Observe(time.Since(at.at).Seconds())
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.server.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// stateCollector shows the swarm's state at the time of a scrape.
type stateCollector struct{ server *Server }

var (
	descTasks    = prometheus.NewDesc("swarm_tasks", "Tasks by observed state.", []string{"state"}, nil)
	descNodes    = prometheus.NewDesc("swarm_nodes", "Nodes by state.", []string{"state"}, nil)
	descServices = prometheus.NewDesc("swarm_services", "Services.", nil, nil)
	descSessions = prometheus.NewDesc("apiserver_sessions", "Nodes that are connected.", nil, nil)
	descWatches  = prometheus.NewDesc("apiserver_watches", "Watches that are open.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c stateCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descTasks, descNodes, descServices, descSessions, descWatches} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c stateCollector) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	watches := 0
	for _, of := range c.server.places {
		watches += of.watches.inside()
	}
	gauge(descWatches, watches)
	b := c.server.current.Load()
	if b == nil {
		return
	}
	gauge(descSessions, b.sessions.count())
	b.counts.mu.Lock()
	defer b.counts.mu.Unlock()
	gauge(descServices, b.counts.services)
	for state, n := range b.counts.tasks {
		gauge(descTasks, n, state.String())
	}
	for state, n := range b.counts.nodes {
		gauge(descNodes, n, string(state))
	}
}
