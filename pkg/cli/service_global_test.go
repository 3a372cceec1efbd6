package cli_test

import (
	"strings"
	"testing"
)

// TestGlobalForNobody: a global service that no node takes has nothing to wait for, which is said; one that nodes take is waited for.
func TestGlobalForNobody(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	for _, c := range []struct{ args, want, not string }{
		{"service create --timeout 1m --name none --mode global --update-monitor 2s --constraint node.labels.no==1 hello:1", "converged: no node takes a task of it", "failure"},
		{"service create --timeout 1m --name job --mode global-job --constraint node.labels.no==1 hello:1", "no node takes a task of it", "complete"},
		{"wait service/none --timeout 1m", "converged", "failure"},
		{"service create --timeout 1m --name all --mode global hello:1", "converged", "no node"},
		{"service update --timeout 1m --constraint-rm node.labels.no==1 none", "converged", "no node"},
	} {
		code, out, stderr := run(t, s.host(), strings.Fields(c.args)...)
		if code != 0 || !strings.Contains(out+stderr, c.want) || strings.Contains(out+stderr, c.not) {
			t.Errorf("%s: status %d, want %q and not %q:\n%s%s", c.args, code, c.want, c.not, out, stderr)
		}
	}
}
