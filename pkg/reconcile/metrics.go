package reconcile

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/workqueue"
)

// metrics are the engine's, in the Prometheus manner, labelled with its pipeline. They work without a registry.
type metrics struct {
	duration *prometheus.HistogramVec
	errors   *prometheus.CounterVec
	commits  *prometheus.HistogramVec
	written  prometheus.Counter
	queue    queueMetrics
}

// buckets of seconds from 20 µs, a small service, to 20 s, a very large commit.
func buckets() []float64 { return prometheus.ExponentialBuckets(20e-6, 4, 11) }

func newMetrics(registry *prometheus.Registry, pipeline string) *metrics {
	of := prometheus.Labels{"pipeline": pipeline}
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{ConstLabels: of, Name: "swarm_reconcile_duration_seconds",
			Help: "Time that a rule took to decide one key.", Buckets: buckets()}, []string{"rule"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{ConstLabels: of, Name: "swarm_reconcile_errors_total",
			Help: "Keys that were to be decided again because of an error, by what failed."}, []string{"rule"}),
		commits: prometheus.NewHistogramVec(prometheus.HistogramOpts{ConstLabels: of, Name: "swarm_reconcile_commit_duration_seconds",
			Help: "Time that it took to commit what one step decided.", Buckets: buckets()}, []string{"result"}),
		written: prometheus.NewCounter(prometheus.CounterOpts{ConstLabels: of, Name: "swarm_store_keys_written_total",
			Help: "Sections that the controllers wrote or removed."}),
		queue: newQueueMetrics(of),
	}
	if registry != nil {
		m.register(registry)
	}
	return m
}

// register puts the metrics into the registry, or takes over those of an engine of the same pipeline that did before.
func (m *metrics) register(registry *prometheus.Registry) {
	m.duration, m.errors = registered(registry, m.duration), registered(registry, m.errors)
	m.commits, m.written = registered(registry, m.commits), registered(registry, m.written)
	q := &m.queue
	q.depth, q.unfinished, q.longest = registered(registry, q.depth), registered(registry, q.unfinished), registered(registry, q.longest)
	q.adds, q.retries = registered(registry, q.adds), registered(registry, q.retries)
	q.latency, q.work = registered(registry, q.latency), registered(registry, q.work)
}

func registered[C prometheus.Collector](registry *prometheus.Registry, c C) C {
	var before prometheus.AlreadyRegisteredError
	switch err := registry.Register(c); {
	case err == nil:
		return c
	case errors.As(err, &before):
		return before.ExistingCollector.(C) // the same names and labels are made nowhere else
	default:
		panic(err) // a name that somebody else has: no registry of ours
	}
}

func (m *metrics) decided(rule string, took time.Duration) {
	m.duration.WithLabelValues(rule).Observe(took.Seconds())
}

func (m *metrics) failed(what string) { m.errors.WithLabelValues(what).Inc() }

func (m *metrics) committed(ops int, took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	} else {
		m.written.Add(float64(ops))
	}
	m.commits.WithLabelValues(result).Observe(took.Seconds())
}

// queueMetrics implements workqueue.MetricsProvider with the names that Kubernetes gives them.
type queueMetrics struct {
	depth, unfinished, longest *prometheus.GaugeVec
	adds, retries              *prometheus.CounterVec
	latency, work              *prometheus.HistogramVec
}

func newQueueMetrics(of prometheus.Labels) queueMetrics {
	label := []string{"name"}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{ConstLabels: of, Namespace: "workqueue", Name: name, Help: help}, label)
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{ConstLabels: of, Namespace: "workqueue", Name: name, Help: help}, label)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{ConstLabels: of, Namespace: "workqueue", Name: name, Help: help,
			Buckets: buckets()}, label)
	}
	return queueMetrics{
		depth:      gauge("depth", "Keys that wait."),
		unfinished: gauge("unfinished_work_seconds", "How long what is being worked on has been, in all."),
		longest:    gauge("longest_running_processor_seconds", "How long the longest work under way has been."),
		adds:       counter("adds_total", "Keys that were added."),
		retries:    counter("retries_total", "Keys that were added after a delay."),
		latency:    histogram("queue_duration_seconds", "How long keys waited."),
		work:       histogram("work_duration_seconds", "How long a key was worked on, its commit included."),
	}
}

// NewDepthMetric implements workqueue.MetricsProvider.
func (m queueMetrics) NewDepthMetric(name string) workqueue.GaugeMetric {
	return m.depth.WithLabelValues(name)
}

// NewAddsMetric implements workqueue.MetricsProvider.
func (m queueMetrics) NewAddsMetric(name string) workqueue.CounterMetric {
	return m.adds.WithLabelValues(name)
}

// NewLatencyMetric implements workqueue.MetricsProvider.
func (m queueMetrics) NewLatencyMetric(name string) workqueue.HistogramMetric {
	return m.latency.WithLabelValues(name)
}

// NewWorkDurationMetric implements workqueue.MetricsProvider.
func (m queueMetrics) NewWorkDurationMetric(name string) workqueue.HistogramMetric {
	return m.work.WithLabelValues(name)
}

// NewUnfinishedWorkSecondsMetric implements workqueue.MetricsProvider.
func (m queueMetrics) NewUnfinishedWorkSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.unfinished.WithLabelValues(name)
}

// NewLongestRunningProcessorSecondsMetric implements workqueue.MetricsProvider.
func (m queueMetrics) NewLongestRunningProcessorSecondsMetric(name string) workqueue.SettableGaugeMetric {
	return m.longest.WithLabelValues(name)
}

// NewRetriesMetric implements workqueue.MetricsProvider.
func (m queueMetrics) NewRetriesMetric(name string) workqueue.CounterMetric {
	return m.retries.WithLabelValues(name)
}
