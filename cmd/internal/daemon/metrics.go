package daemon

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// storeMetrics count what the store of a swarm writes.
type storeMetrics struct {
	latency prometheus.Histogram
	keys    prometheus.Counter
	errors  prometheus.Counter
}

func newStoreMetrics(r prometheus.Registerer) *storeMetrics {
	m := &storeMetrics{
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "swarm_store_commit_duration_seconds",
			Help:    "Time from the beginning of a commit to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		keys:   prometheus.NewCounter(prometheus.CounterOpts{Name: "swarm_store_operations_total", Help: "Sections written or removed by this process."}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{Name: "swarm_store_commit_errors_total", Help: "Commits that failed, conflicts included."}),
	}
	r.MustRegister(m.latency, m.keys, m.errors)
	return m
}

func (m *storeMetrics) commit(s etcd.CommitStats) {
	m.latency.Observe(s.Took.Seconds())
	if s.Err != nil {
		m.errors.Inc()
		return
	}
	m.keys.Add(float64(s.Ops))
}

// managerMetrics are those of the manager part that runs, whatever they are by then.
type managerMetrics struct {
	now atomic.Pointer[prometheus.Registry]
}

// Describe implements prometheus.Collector: what there is to collect is not known beforehand.
func (*managerMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *managerMetrics) Collect(to chan<- prometheus.Metric) {
	if r := m.now.Load(); r != nil {
		r.Collect(to)
	}
}

// programming measures how fast this machine's network and names follow the swarm.
type programming struct{ whole, own prometheus.Histogram }

func newProgramming(r prometheus.Registerer) *programming {
	p := &programming{
		whole: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "swarm_network_programming_duration_seconds",
			Help: "Time from when a task of another node became ready, or ceased to be, as its state is stamped in the store, until this node's " +
				"routes, virtual addresses, published ports and names followed it. The stamp is by the clock of another machine.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		own: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "swarm_network_apply_duration_seconds",
			Help: "Time from when this node was told of a change of tasks, services, networks or nodes until its routes, virtual addresses, " +
				"published ports and names followed it, all by this node's clock.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
	r.MustRegister(p.whole, p.own)
	return p
}

// newRepairs counts what of this machine's network others had changed, and was put right.
func newRepairs(r prometheus.Registerer) func(kind string, changes int) {
	repairs := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "swarm_network_repairs_total",
		Help: "Changes that this node made to its links, addresses, routes, rules, neighbours and tables because something else on the machine " +
			"had changed them.",
	}, []string{"kind"})
	r.MustRegister(repairs)
	return func(kind string, changes int) { repairs.WithLabelValues(kind).Add(float64(changes)) }
}

// newCollected counts images that were removed because their disk was full.
func newCollected(r prometheus.Registerer) func(bytes int64) {
	images := prometheus.NewCounter(prometheus.CounterOpts{Name: "swarm_images_collected_total", Help: "Images that no task needed and that this node " +
		"removed because their disk was above its mark."})
	freed := prometheus.NewCounter(prometheus.CounterOpts{Name: "swarm_images_collected_bytes_total", Help: "What those gave back of the disk, in bytes."})
	r.MustRegister(images, freed)
	return func(bytes int64) {
		images.Inc()
		freed.Add(float64(bytes))
	}
}
