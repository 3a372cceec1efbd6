package e2e

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

var keptConnections = flag.Int("connections", 10_000, "connections that TestConnectionsKept holds through a virtual address")

// TestConnectionsKept holds many connections through a virtual address while other services of the network are updated, task by task: each goes on
// to be answered. Those that were idle for longer than the routers remember connections still work, each with the task that it had.
func TestConnectionsKept(t *testing.T) {
	s := form(t, 1, 1)
	first := s.Hosts[0]
	s.network(first, "back")
	s.serve(first, "from", 1, "--network", "back", "--constraint", "node.hostname=="+first.Name)
	s.serve(first, "kept", 2, "--network", "back", "--replicas-max-per-node", "1")
	s.serve(first, "idle", 2, "--network", "back", "--replicas-max-per-node", "1", "--publish", "8080:8080")
	others := []string{"other1", "other2", "other3"}
	for _, name := range others {
		s.serve(first, name, 2, "--network", "back", "--update-parallelism", "1", "--update-delay", "0s")
	}
	from := s.tasksOf(first, "from", 1)[0]
	for _, name := range append([]string{"kept", "idle"}, others...) {
		s.converged(first, name, 2, generous)
	}
	kept := dialMany(t, from.Namespace, s.vip(first, "kept")+":8080", *keptConnections)
	idle := dialMany(t, from.Namespace, s.vip(first, "idle")+":8080", 20)
	for _, h := range s.Hosts {
		idle = append(idle, dialMany(t, s.Client, h.Addr.String()+":8080", 20)...)
	}
	var updating sync.WaitGroup
	for _, name := range others {
		updating.Go(func() {
			if r := first.Ctl("service", "update", "--quiet", "--force", name); r.Err != nil {
				t.Error(r.Err)
			}
		})
	}
	updated := make(chan struct{})
	go func() {
		updating.Wait()
		close(updated)
	}()
	rounds := 0
	for done := false; !done; rounds++ {
		select {
		case <-updated:
			done = true
		default:
		}
		askAll(t, "during the update", kept)
	}
	for _, name := range others {
		s.converged(first, name, 2, generous)
	}
	askAll(t, "after the update", append(kept, idle...))
	t.Logf("%d connections were asked %d times while %d services were updated", len(kept), rounds, len(others))

	for _, h := range s.Hosts {
		forgetSoon(t, h)
	}
	askAll(t, "with short memories", idle) // the timers count from the next packet on
	time.Sleep(2 * shortMemory)            // it is what is tested: nothing is said for so long
	askAll(t, "after being idle", idle)
}

// TestConnectionsOutliveTheirService removes a service: its ports and its name lead nowhere from then on, on every node, and the connections that
// its tasks have, here or elsewhere, by a port or the virtual address, go on through the drain delay.
func TestConnectionsOutliveTheirService(t *testing.T) {
	s := form(t, 1, 1)
	first := s.Hosts[0]
	s.network(first, "back")
	s.serve(first, "from", 1, "--network", "back", "--constraint", "node.hostname=="+first.Name)
	s.serve(first, "going", 2, "--network", "back", "--replicas-max-per-node", "1", "--publish", "8080:8080", "--stop-drain-delay", "10s")
	from, vip := s.tasksOf(first, "from", 1)[0].Namespace, s.vip(first, "going")
	conns := dialMany(t, from, vip+":8080", 20)
	for _, h := range s.Hosts {
		conns = append(conns, dialMany(t, s.Client, h.Addr.String()+":8080", 20)...)
	}
	askAll(t, "before", conns)
	first.Must("service", "rm", "going")
	refused := func(n *lab.Namespace, to string) {
		s.Eventually(5*time.Second, to+" leads nowhere", func() error {
			return n.Do(func() error {
				conn, err := net.DialTimeout("tcp4", to, time.Second)
				if err == nil {
					conn.Close()
					return errors.New("a new connection")
				}
				return nil
			})
		})
	}
	for _, h := range s.Hosts {
		refused(s.Client, h.Addr.String()+":8080")
	}
	refused(from, vip+":8080")
	askAll(t, "once nothing leads to it any more", conns)
}

// dialMany makes connections to a web server in a namespace, without a packet of their own while nothing is said.
func dialMany(t *testing.T, n *lab.Namespace, to string, many int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, 0, many)
	t.Cleanup(func() {
		for _, conn := range conns {
			conn.Close()
		}
	})
	dialer := net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1}
	if err := n.Do(func() error {
		for range many {
			conn, err := dialer.Dial("tcp4", to)
			if err != nil {
				return fmt.Errorf("connection %d: %w", len(conns)+1, err)
			}
			conns = append(conns, conn)
			if err := askAgain(conn); err != nil { // the server does not wait for long for the first request
				return fmt.Errorf("connection %d: %w", len(conns), err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return conns
}

// askAll has each connection answer once.
func askAll(t *testing.T, when string, conns []net.Conn) {
	t.Helper()
	broken := make(chan error, len(conns))
	next := make(chan net.Conn)
	var asking sync.WaitGroup
	for range 64 {
		asking.Go(func() {
			for conn := range next {
				if err := askAgain(conn); err != nil {
					broken <- err
				}
			}
		})
	}
	for _, conn := range conns {
		next <- conn
	}
	close(next)
	asking.Wait()
	if n := len(broken); n > 0 {
		t.Fatalf("%s: %d of %d connections are broken, the first: %v", when, n, len(conns), <-broken)
	}
}

// askAgain asks for the page over a connection that stays open.
func askAgain(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: kept\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// shortMemory is for how long the routers remember connections on which nothing is said, in forgetSoon.
const shortMemory = 5 * time.Second

// forgetSoon shortens the memories of all namespaces of a host that lead packets: its routers', and its own.
func forgetSoon(t *testing.T, h *lab.Host) {
	t.Helper()
	routers, err := filepath.Glob(filepath.Join(h.Root, "*", "router", "*"))
	if err != nil || len(routers) < 2 {
		t.Fatalf("routers of %s are %v, %v", h.Name, routers, err)
	}
	for _, path := range routers {
		n, err := lab.Inside(path)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Leave()
		if err := n.Do(shorten); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	if err := h.Do(shorten); err != nil {
		t.Fatal(err)
	}
}

func shorten() error {
	seconds := strconv.Itoa(int(shortMemory.Seconds()))
	return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", []byte(seconds), 0)
}
