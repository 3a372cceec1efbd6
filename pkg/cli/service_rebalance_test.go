package cli_test

import (
	"strings"
	"testing"
)

// TestRebalance: a service is told to rebalance, or not to, without a restart; what does not move cannot be.
func TestRebalance(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	for _, c := range []struct {
		args string
		code int // 0, or not
		want string
	}{
		{"service create --name web --rebalance always hello:1", 1, `invalid option "always" for flag --rebalance: want off, on-join`},
		{"service create --name web --mode global --rebalance on-join hello:1", 1, "spec.task.placement.rebalance: is for mode replicated"},
		{"service create --name web --rebalance on-join hello:1", 0, "converged"},
		{"service inspect web", 0, `"Rebalance": "on-join"`},
		{"service inspect --pretty web", 0, "Rebalance:	on-join"},
		{"service update --rebalance off web", 0, "converged"},
		{"service ps web --format {{.Name}}", 0, "web.1\n"},
	} {
		code, out, stderr := run(t, s.host(), strings.Fields(c.args)...)
		if (code == 0) != (c.code == 0) || !strings.Contains(out+stderr, c.want) {
			t.Errorf("%s: status %d, want like %d with %q:\n%s%s", c.args, code, c.code, c.want, out, stderr)
		}
	}
	if _, out, _ := run(t, s.host(), "service", "inspect", "--pretty", "web"); strings.Contains(out, "Rebalance") {
		t.Errorf("it is off, and inspect has\n%s", out)
	}
}
