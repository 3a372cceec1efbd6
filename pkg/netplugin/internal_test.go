package netplugin

import (
	"strings"
	"testing"
)

// TestInternalTasks: a task without a way out reaches nothing outside, not the machine, and no published port, and is told so at once. It
// answers at its own published port, and asks for names. Its neighbours are as before, also after the table was made anew.
func TestInternalTasks(t *testing.T) {
	b := newLab(t)
	c := testConfig(3)
	c.Tasks[1].Internal = true
	c.Published = []PublishedPort{published("tcp", 8080, 1), published("tcp", 8081, 2)}
	b.apply(c)
	for i := range 3 {
		serve(t, b.task(c.Tasks[i].ID), c.Tasks[i].ID, 80)
	}
	serve(t, b.client, "outside", 9000)
	serve(t, b.host, "machine", 9000)
	serveNames(t, b.host)
	check := func(when string) {
		t.Helper()
		for _, to := range []string{at(clientAddr, 9000), at(hostAddr, 9000), at(hostAddress, 9000), at(hostAddr, 8081)} {
			if server, _, err := ask(b.task("t1"), "tcp", to); err == nil {
				t.Errorf("%s: the task without a way out reaches %s at %s", when, server, to)
			} else if !strings.Contains(err.Error(), "no route to host") && !strings.Contains(err.Error(), "refused") {
				t.Errorf("%s: %s is not refused at once: %v", when, to, err)
			}
		}
		if server, _, err := ask(b.task("t1"), "udp", at(clientAddr, 9000)); err == nil {
			t.Errorf("%s: the task without a way out reaches %s by UDP", when, server)
		}
		if server, _, err := ask(b.task("t0"), "tcp", at(clientAddr, 9000)); err != nil || server != "outside" {
			t.Errorf("%s: another task is answered by %q, %v", when, server, err)
		}
		if server, seen, err := ask(b.client, "tcp", at(hostAddr, 8080)); err != nil || server != "t1" || seen.Addr() != clientAddr {
			t.Errorf("%s: its published port: answered by %q, which saw %s, %v", when, server, seen, err)
		}
		if server, _, err := ask(b.task("t1"), "udp", at(dockerResolver, 53)); err != nil || server != "names" {
			t.Errorf("%s: names: answered by %q, %v", when, server, err)
		}
	}
	check("at first")
	b.restart()
	b.apply(c)
	check("after a restart")
	tables, err := b.linux.router.firewall()
	must(t, err)
	tables.FlushRuleset()
	must(t, tables.Flush())
	b.linux.Resync()
	b.apply(c)
	check("after its rules were flushed")
	c.Tasks[1].Internal = false
	b.apply(c)
	if server, _, err := ask(b.task("t1"), "tcp", at(clientAddr, 9000)); err != nil || server != "outside" {
		t.Errorf("with a way out: answered by %q, %v", server, err)
	}
}
