package cli_test

import (
	"strings"
	"testing"
)

// TestDependsOn: a service waits for another, says so, and starts then; circles are refused.
func TestDependsOn(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	for _, c := range []struct {
		args string
		code int // 0, or not
		want string
	}{
		{"service create --name web --depends-on db= hello:1", 1, "is no dependency"},
		{"service create --name web --depends-on web hello:1", 1, "spec.dependsOn: services need each other: web needs web"},
		{"service create -d --name web --depends-on db=healthy --depends-on seed=completed hello:1", 0, ""},
		{"service create --timeout 1s --name late --depends-on web hello:1", 1, "waits for web to be started (0 of 1 task)"},
		{"service ps web --no-trunc", 0, "waits for db to be healthy: there is no such service, and for seed to complete: there is no such service"},
		{"service create --name db --depends-on late hello:1", 1, "services need each other: db needs late needs web needs db"},
		{"service create --name db hello:1", 0, "converged"},
		{"service create --name seed --mode replicated-job once:1", 0, "job complete"},
		{"wait service/late --timeout 1m", 0, "converged"},
		{"service inspect web", 0, `"Condition": "healthy"`},
		{"service update --depends-on-rm db --depends-on-add seed web", 0, "converged"},
		{"service inspect web", 0, `"Condition": "started"`},
	} {
		code, out, stderr := run(t, s.host(), strings.Fields(c.args)...)
		if (code == 0) != (c.code == 0) || !strings.Contains(out+stderr, c.want) {
			t.Errorf("%s: status %d, want like %d with %q:\n%s%s", c.args, code, c.code, c.want, out, stderr)
		}
	}
}
