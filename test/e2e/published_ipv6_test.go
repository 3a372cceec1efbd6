package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// forwardingOf is how a host forwards IPv6.
func forwardingOf(t *testing.T, h *lab.Host) (text string) {
	t.Helper()
	err := h.Do(func() error {
		for _, name := range []string{"all/forwarding", "all/force_forwarding", "default/force_forwarding", "eth0/forwarding", "eth0/force_forwarding", "eth0/accept_ra"} {
			value, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + name)
			if err != nil && !os.IsNotExist(err) {
				return err
			}
			text += name + " " + strings.TrimSpace(string(value)) + "\n"
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestPublishedIPv6 asks published ports by IPv6: hosts reach each other by IPv4, and every one answers at its IPv6 address all the same,
// wherever the task is, which sees the client's own. A port answers where it says and nowhere else, at a restart nothing changes, and a
// host that leaves is as it was.
func TestPublishedIPv6(t *testing.T) {
	s := form(t, 1, 2)
	if err := s.GiveIPv6(); err != nil {
		t.Fatal(err)
	}
	first := s.Hosts[0]
	s.serve(first, "web", 2, "--publish", "8080:8080", "--constraint", "node.role==worker", "--replicas-max-per-node", "1")
	s.serve(first, "near", 1, "--publish", "[::1]:8070:8080", "--publish", "target=8080,published=8071,host_ip="+first.Addr6().String(),
		"--publish", "target=8080,published=8072,host_ip=2001:db8:91::/64", "--publish", "[::]:8073:8080", "--publish", "0.0.0.0:8074:8080",
		"--publish", "target=8080,published=8075,interface=eth0")
	s.serve(first, "own", 3, "--publish", "mode=host,target=8080,published=8060", "--replicas-max-per-node", "1")
	for _, service := range []struct {
		name  string
		tasks int
	}{{"web", 2}, {"near", 1}, {"own", 3}} {
		s.converged(first, service.name, service.tasks, generous)
	}
	s.meshKeepsIPv6()
	s.answersWhereAskedByIPv6()

	worker := s.Host("worker1")
	worker.Stop()
	for range 10 {
		s.asks(worker, 8080)
	}
	worker.Start()
	worker.Answers()
	s.meshKeepsIPv6()

	before := forwardingOf(t, s.Hosts[2])
	s.Hosts[2].Must("swarm", "leave")
	after := forwardingOf(t, s.Hosts[2])
	if before == after {
		t.Errorf("a host that left forwards IPv6 as before:\n%s", after)
	}
	for _, line := range []string{"all/forwarding 0\n", "eth0/forwarding 0\n"} {
		if !strings.Contains(after, line) {
			t.Errorf("a host that left has\n%swant %s", after, line)
		}
	}
	if left := s.Hosts[2].Leftovers(); len(left) > 0 {
		for _, what := range left {
			if !strings.HasPrefix(what, "process") && !strings.HasPrefix(what, "mount") && !strings.HasPrefix(what, "control group") {
				t.Errorf("a host that left has %s", what)
			}
		}
	}
}

// asks is who answers the client at a port of a host, which must see the client's own address.
func (s *swarm) asks(h *lab.Host, port uint16) string {
	s.t.Helper()
	at := netip.AddrPortFrom(h.Addr6(), port)
	body, err := s.Client.Get(fmt.Sprintf("http://%s/", at))
	if err != nil {
		s.t.Fatalf("a client asks %s: %v", at, err)
	}
	by, saw := greeted(body)
	if saw != "["+s.ClientAddr6().String()+"]" {
		s.t.Fatalf("%s, asked at %s, sees %q, not the client's address %s", by, at, saw, s.ClientAddr6())
	}
	return by
}

// meshKeepsIPv6 asks every host, by IPv6, for the services that all answer.
func (s *swarm) meshKeepsIPv6() {
	s.t.Helper()
	for _, h := range s.Hosts {
		seen := make(map[string]bool)
		for range 60 {
			seen[s.asks(h, 8080)] = true
		}
		if len(seen) != 2 {
			s.t.Errorf("a client asks %s by IPv6: answers of %v, want of both tasks", h.Name, seen)
		}
		if by := s.asks(h, 8060); !strings.HasPrefix(by, "own.") {
			s.t.Errorf("port 8060 of %s is answered by %q", h.Name, by)
		}
	}
}

// answersWhereAskedByIPv6 asks for ports that answer at some addresses.
func (s *swarm) answersWhereAskedByIPv6() {
	s.t.Helper()
	first := s.Hosts[0]
	if got := first.Must("service", "ls", "--filter", "name=near", "--format", "{{.Ports}}"); !strings.Contains(got, "[::1]:8070->8080/tcp") {
		s.t.Errorf("service ls tells the ports as %q", got)
	}
	for _, h := range s.Hosts {
		on, err := lab.InsideOf(h.PID())
		if err != nil {
			s.t.Fatal(err)
		}
		for at, want := range map[string]bool{
			"[::1]:8080": true, "[::1]:8070": true, fmt.Sprintf("[%s]:8070", h.Addr6()): false, "127.0.0.1:8070": false,
			"[::1]:8071": false, "[::1]:8073": true, "127.0.0.1:8073": false, "[::1]:8074": false, "127.0.0.1:8074": true,
		} {
			conn, err := on.DialContext(s.t.Context(), "tcp", at)
			if (err == nil) != want {
				s.t.Errorf("%s on %s itself: %v; want an answer: %v", at, h.Name, err, want)
			}
			if err == nil {
				readGreeting(conn)
			}
		}
		on.Leave()
		for port, want := range map[string]bool{"8070": false, "8071": h == first, "8072": true, "8073": true, "8074": false, "8075": true} {
			body, err := s.Client.Get("http://" + net.JoinHostPort(h.Addr6().String(), port) + "/")
			if (err == nil) != want {
				s.t.Errorf("port %s of %s from outside: %q, %v; want an answer: %v", port, h.Name, body, err, want)
			}
		}
	}
}
