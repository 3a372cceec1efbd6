package dnsplugin

import (
	"errors"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// source is where an answer comes from.
type source int

const (
	local source = iota
	forwarded
	refused
	sources
)

func (s source) String() string { return [...]string{"local", "forwarded", "refused"}[s] }

// metrics count and time the answers. They work without a registry.
type metrics struct {
	answers  *prometheus.CounterVec
	duration *prometheus.HistogramVec
	// The usual ones, looked up once.
	byCode [sources][dns.RcodeRefused + 1]prometheus.Counter
	timed  [sources]prometheus.Observer
	other  [sources]prometheus.Counter
}

func newMetrics(registry *prometheus.Registry) *metrics {
	m := &metrics{
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "swarm_dns_answers_total",
			Help: "Answers to questions of tasks, by where they came from and what they said."}, []string{"source", "rcode"}),
		// From 4 µs, a name of ours, to 4 s, the most that others are waited for.
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "swarm_dns_answer_duration_seconds",
			Help: "Time to answer a question.", Buckets: prometheus.ExponentialBuckets(4e-6, 4, 11)}, []string{"source"}),
	}
	if registry != nil {
		m.answers, m.duration = registered(registry, m.answers), registered(registry, m.duration)
	}
	for s := range sources {
		for code := range m.byCode[s] {
			m.byCode[s][code] = m.answers.WithLabelValues(s.String(), dns.RcodeToString[code])
		}
		m.other[s] = m.answers.WithLabelValues(s.String(), "other")
		m.timed[s] = m.duration.WithLabelValues(s.String())
	}
	return m
}

// registered puts a metric into the registry, or takes the one that another server put there.
func registered[C prometheus.Collector](registry *prometheus.Registry, c C) C {
	var before prometheus.AlreadyRegisteredError
	switch err := registry.Register(c); {
	case err == nil:
		return c
	case errors.As(err, &before):
		return before.ExistingCollector.(C) // the same name and labels are made nowhere else
	default:
		panic(err) // a name that somebody else has: no registry of ours
	}
}

func (m *metrics) observe(s source, rcode int, took time.Duration) {
	m.timed[s].Observe(took.Seconds())
	if rcode >= 0 && rcode < len(m.byCode[s]) {
		m.byCode[s][rcode].Inc()
		return
	}
	m.other[s].Inc()
}
