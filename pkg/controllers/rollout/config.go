package rollout

import (
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// config is the service's UpdateConfig, or that of its rollback, with defaults filled in.
type config struct {
	parallelism     uint64 // 0 is all
	delay, monitor  time.Duration
	maxFailureRatio float64
	action          v1.FailureAction
	deadline        time.Duration // 0 is none
}

// Defaults of an UpdateConfig, where validation did not fill them in.
const (
	defaultParallelism = 1
	defaultMonitor     = 5 * time.Second
	defaultDeadline    = 10 * time.Minute
)

func configOf(s *v1.Service, back bool) config {
	c := config{parallelism: defaultParallelism, monitor: defaultMonitor, deadline: defaultDeadline, action: v1.FailurePause}
	u := s.Spec.Update
	if back {
		u = s.Spec.Rollback
	}
	if u == nil {
		return c
	}
	if u.Parallelism != nil {
		c.parallelism = *u.Parallelism
	}
	if u.Monitor != nil {
		c.monitor = time.Duration(*u.Monitor)
	}
	if u.ProgressDeadline != nil {
		c.deadline = time.Duration(*u.ProgressDeadline)
	}
	if u.FailureAction != "" {
		c.action = u.FailureAction
	}
	c.delay, c.maxFailureRatio = time.Duration(u.Delay), u.MaxFailureRatio
	if c.delay >= c.monitor {
		c.monitor = c.delay + time.Second // as Docker does: the last slot is watched as long as those before it
	}
	return c
}
