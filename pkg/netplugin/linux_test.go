package netplugin

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func deadline() time.Time { return time.Now().Add(soon) }

func TestEgress(t *testing.T) {
	b := newLab(t)
	b.apply(testConfig(2))
	serve(t, b.client, "outside", 9000)
	for _, network := range []string{"tcp", "udp"} {
		server, seen, err := ask(b.task("t0"), network, fmt.Sprintf("%s:9000", clientAddr))
		if err != nil || server != "outside" || seen.Addr() != hostAddr {
			t.Errorf("%s from a task: answered by %q, which saw %s, %v; want the machine's address %s", network, server, seen, err, hostAddr)
		}
	}
}

func TestPublished(t *testing.T) {
	b := newLab(t)
	c := testConfig(3)
	c.Published = []PublishedPort{published("tcp", 8080, 0, 1, 2), published("udp", 8080, 1)}
	b.apply(c)
	for i := range 3 {
		serve(t, b.task(fmt.Sprintf("t%d", i)), fmt.Sprintf("t%d", i), 80)
	}
	for _, from := range []*namespace{b.client, b.host, b.task("t0")} {
		server, seen, err := ask(from, "tcp", fmt.Sprintf("%s:8080", hostAddr))
		t.Log(from.name, server, seen, err)
		if err != nil {
			t.Error(err)
		}
		server, seen, err = ask(from, "udp", fmt.Sprintf("%s:8080", hostAddr))
		t.Log(from.name, server, seen, err)
		if err != nil {
			t.Error(err)
		}
	}
	server, seen, err := ask(b.host, "tcp", "127.0.0.1:8080")
	t.Log(server, seen, err)
	_ = netip.Addr{}
}
