package e2e

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// inside is a task's container, or what is attached by hand, seen from within its network namespace.
type inside struct {
	*lab.Namespace
	name string // of the task, such as web.1
	host *lab.Host
	task *v1.Task
	// asks is where it asks for names; "" is Docker's address.
	asks string
}

// resolver asks for names as a program of the task would.
func (i inside) resolver() *net.Resolver { return i.Resolver(cmp.Or(i.asks, "127.0.0.11:53")) }

// tasksOf are the running tasks of a service, each in its container's network.
func (s *swarm) tasksOf(h *lab.Host, service string, replicas int) []inside {
	s.t.Helper()
	var all []inside
	for _, task := range s.converged(h, service, replicas, generous) {
		for _, on := range s.Hosts {
			if s.nodes[on.Name] != v1.TaskNode(task) {
				continue
			}
			var n *lab.Namespace
			s.Eventually(generous, v1.TaskName(task.Desired)+" has a process", func() (err error) {
				n, err = lab.InsideOf(containersOf(s.t, on)[task.Meta.ID])
				return err
			})
			s.t.Cleanup(n.Leave)
			all = append(all, inside{Namespace: n, name: v1.TaskName(task.Desired), host: on, task: task})
		}
	}
	slices.SortFunc(all, func(a, b inside) int { return strings.Compare(a.name, b.name) })
	return all
}

// address is where the task is on its n-th network.
func (i inside) address(n int) string {
	addr, _, _ := strings.Cut(i.task.Desired.Networks[n].Addresses[0], "/")
	return addr
}

// lookup is what a name resolves to in the container, sorted, without the resolver's help of search domains.
func (i inside) lookup(name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	found, err := i.resolver().LookupHost(ctx, name+".")
	slices.Sort(found)
	return found, err
}

// get asks a service by its name, from within the container.
func (i inside) get(name string, port int, path string) (string, error) {
	dial := &net.Dialer{Timeout: 5 * time.Second}
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			host, p, _ := net.SplitHostPort(addr)
			found, err := i.lookup(host)
			if err != nil {
				return nil, err
			}
			inside := i.Do(func() error {
				conn, err = dial.DialContext(ctx, network, net.JoinHostPort(found[rand.N(len(found))], p))
				return nil
			})
			if inside != nil {
				return nil, inside
			}
			return conn, err
		}}}
	answer, err := c.Get(fmt.Sprintf("http://%s:%d%s", name, port, path))
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return string(body), err
}

var greeting = regexp.MustCompile(`Hello from (\S+) on \S+, version \S+ You are (\S+):\d+\.`)

// greeted is who answered, such as web.1, and which address it saw.
func greeted(body string) (by, saw string) {
	m := greeting.FindStringSubmatch(body)
	if m == nil {
		return "", ""
	}
	if at := strings.LastIndex(m[1], "."); at > 0 { // before the task's ID
		return m[1][:at], m[2]
	}
	return m[1], m[2]
}

// network makes an overlay network.
func (s *swarm) network(h *lab.Host, name string, args ...string) {
	s.t.Helper()
	h.Must(append([]string{"network", "create", "--driver", "overlay"}, append(args, name)...)...)
}

// TestNetworks: two networks with the same subnet over three hosts. Names, virtual addresses, round robin, aliases, reverse names and
// ports' records are right from every task, nothing leads from one network to the other, and published ports keep the client's address on every node.
func TestNetworks(t *testing.T) {
	s := form(t, 1, 2)
	first := s.Hosts[0]
	s.network(first, "red", "--subnet", "10.20.0.0/24")
	s.network(first, "blue", "--subnet", "10.20.0.0/24")
	s.serve(first, "web", 3, "--network", "name=red,alias=front", "--publish", "8080:8080",
		"--publish", "mode=host,target=9000,published=8061", "--replicas-max-per-node", "1")
	s.serve(first, "db", 3, "--network", "red", "--endpoint-mode", "dnsrr", "--publish", "mode=host,target=8080,published=8060", "--replicas-max-per-node", "1")
	s.serve(first, "other", 3, "--network", "blue", "--replicas-max-per-node", "1")
	webs, dbs, others := s.tasksOf(first, "web", 3), s.tasksOf(first, "db", 3), s.tasksOf(first, "other", 3)
	vip := s.vip(first, "web")

	for _, from := range append(slices.Clone(webs), dbs...) {
		s.resolves(from, "web", vip)
		s.resolves(from, "front", vip)
		s.resolves(from, "web.red", vip)
		s.resolves(from, "WEB", vip)
		s.resolves(from, "tasks.web", addresses(webs)...)
		s.resolves(from, "tasks.front", addresses(webs)...)
		s.resolves(from, "db", addresses(dbs)...)
		s.resolves(from, "tasks.db", addresses(dbs)...)
		for _, one := range webs {
			s.resolves(from, one.name, one.address(0))
			s.named(from, one)
		}
		s.serves(from, "web", 8080, "web.red.")
		s.serves(from, "web", 9000, "web.red.")
		s.serves(from, "db", 8080, fullNames(dbs, "red")...)
		s.unknown(from, "other")
		s.spreads(from, "web", webs)
		s.spreads(from, "db", dbs)
	}
	for _, from := range others {
		s.resolves(from, "other", s.vip(first, "other"))
		s.unknown(from, "web")
		s.unknown(from, "web.red")
		for _, one := range webs {
			if conn, err := from.DialContext(t.Context(), "tcp", net.JoinHostPort(one.address(0), "8080")); err == nil {
				by, _ := greeted(readGreeting(conn))
				if by != "" && !strings.HasPrefix(by, "other.") {
					t.Errorf("%s reaches %s on another network at %s", from.name, by, one.address(0))
				}
			}
		}
	}
	s.meshKeepsAddresses(webs)
	s.hasNoWayOut(webs[0])
	s.givesHostPorts()
	s.answersWhereAsked()
}

// answersWhereAsked publishes ports at loopback, at one host's address and at a link that no host has: they answer there, and nowhere
// else.
func (s *swarm) answersWhereAsked() {
	s.t.Helper()
	first := s.Hosts[0]
	s.serve(first, "near", 2, "--publish", "127.0.0.1:8070:8080", "--publish", "target=8080,published=8071,host_ip="+first.Addr.String(),
		"--publish", "target=8080,published=8072,interface=none0", "--replicas-max-per-node", "1")
	for _, h := range s.Hosts {
		on, err := lab.InsideOf(h.PID())
		if err != nil {
			s.t.Fatal(err)
		}
		for at, want := range map[string]bool{"127.0.0.1:8070": true, h.Addr.String() + ":8070": false, h.Addr.String() + ":8071": h == first, "127.0.0.1:8071": false} {
			conn, err := on.DialContext(s.t.Context(), "tcp", at)
			if (err == nil) != want {
				s.t.Errorf("%s on %s itself: %v; want an answer: %v", at, h.Name, err, want)
			}
			if err == nil {
				if by, _ := greeted(readGreeting(conn)); !strings.HasPrefix(by, "near.") {
					s.t.Errorf("%s on %s itself is answered by %q", at, h.Name, by)
				}
			}
		}
		on.Leave()
		for port, want := range map[int]bool{8070: false, 8071: h == first, 8072: false} {
			body, err := s.Client.Get(fmt.Sprintf("http://%s:%d/", h.Addr, port))
			if (err == nil) != want {
				s.t.Errorf("port %d of %s from outside: %q, %v; want an answer: %v", port, h.Name, body, err, want)
			}
		}
	}
	if got := first.Must("service", "ls", "--filter", "name=near", "--format", "{{.Ports}}"); !strings.Contains(got, "127.0.0.1:8070->8080/tcp") {
		s.t.Errorf("service ls tells the ports as %q", got)
	}
}

// givesHostPorts publishes a port in host mode without a number: each node gives its task one, at which that task alone answers.
func (s *swarm) givesHostPorts() {
	s.t.Helper()
	first := s.Hosts[0]
	s.serve(first, "own", 3, "--publish", "mode=host,target=8080", "--replicas-max-per-node", "1")
	rows := first.Must("service", "ps", "--format", "{{.Name}} {{.Node}} {{.Ports}}", "own")
	for row := range strings.Lines(rows) {
		f := strings.Fields(row) // own.1 worker1 *:32768->8080/tcp
		if len(f) != 3 {
			s.t.Fatalf("service ps prints\n%s", rows)
		}
		port := strings.TrimPrefix(strings.TrimSuffix(f[2], "->8080/tcp"), "*:")
		body, err := s.Client.Get(fmt.Sprintf("http://%s:%s/", s.Host(f[1]).Addr, port))
		if by, saw := greeted(body); err != nil || by != f[0] || saw != s.ClientAddr.String() {
			s.t.Errorf("port %s of %s: answered by %q, which saw %q, %v; want %s", port, f[1], by, saw, err, f[0])
		}
	}
}

// hasNoWayOut makes an internal network: what is on it alone talks by names and addresses there, answers at its published port, and reaches
// nothing else, which others do.
func (s *swarm) hasNoWayOut(other inside) {
	first := s.Hosts[0]
	s.network(first, "dark", "--internal")
	s.serve(first, "vault", 2, "--network", "dark", "--publish", "8090:8080", "--replicas-max-per-node", "1")
	vaults := s.tasksOf(first, "vault", 2)
	api := fmt.Sprintf("%s:2377", first.Addr)
	if conn, err := other.DialContext(s.t.Context(), "tcp", api); err != nil {
		s.t.Errorf("%s does not reach %s: %v", other.name, api, err)
	} else {
		conn.Close()
	}
	for _, from := range vaults {
		if conn, err := from.DialContext(s.t.Context(), "tcp", api); err == nil {
			conn.Close()
			s.t.Errorf("%s on %s, on an internal network alone, reaches %s", from.name, from.host.Name, api)
		}
		s.resolves(from, "tasks.vault", addresses(vaults)...)
		s.spreads(from, "vault", vaults)
		if names, err := from.lookup("example.com"); err == nil {
			s.t.Errorf("%s finds example.com at %v", from.name, names)
		}
	}
	for _, h := range s.Hosts {
		body, err := s.Client.Get(fmt.Sprintf("http://%s:8090/", h.Addr))
		if by, saw := greeted(body); err != nil || !strings.HasPrefix(by, "vault.") || saw != s.ClientAddr.String() {
			s.t.Errorf("port 8090 of %s: answered by %q, which saw %q, %v", h.Name, by, saw, err)
		}
	}
}

// readGreeting asks over a connection.
func readGreeting(conn net.Conn) string {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n")
	body, _ := io.ReadAll(io.LimitReader(conn, 1<<16))
	return string(body)
}

// vip is the virtual address of a service on its first network.
func (s *swarm) vip(h *lab.Host, service string) string {
	s.t.Helper()
	c := s.client(h)
	var vip string
	s.Eventually(generous, service+" has a virtual address", func() error {
		o, err := client.Get(s.t.Context(), c, v1.Services, service)
		if err != nil {
			return err
		}
		if o.Desired == nil || len(o.Desired.VIPs) == 0 {
			return fmt.Errorf("it has none: %+v", o.Desired)
		}
		vip, _, _ = strings.Cut(o.Desired.VIPs[0].Addresses[0], "/")
		return nil
	})
	return vip
}

func addresses(tasks []inside) []string {
	var all []string
	for _, t := range tasks {
		all = append(all, t.address(0))
	}
	slices.Sort(all)
	return all
}

// resolves waits until a name resolves to just these addresses in a container.
func (s *swarm) resolves(from inside, name string, want ...string) {
	s.t.Helper()
	s.Eventually(10*time.Second, fmt.Sprintf("%s on %s finds %s", from.name, from.host.Name, name), func() error {
		if got, err := from.lookup(name); err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("%v, %v, want %v", got, err, want)
		}
		return nil
	})
}

// serves waits until the record of a service's port, which it publishes in whichever mode, leads to just these names, and to the port itself.
func (s *swarm) serves(from inside, service string, port uint16, want ...string) {
	s.t.Helper()
	s.Eventually(10*time.Second, fmt.Sprintf("%s on %s finds port %d of %s", from.name, from.host.Name, port, service), func() error {
		_, records, err := from.resolver().LookupSRV(s.t.Context(), fmt.Sprint(port), "tcp", service+".")
		var got []string
		for _, r := range records {
			if got = append(got, r.Target); r.Port != port {
				return fmt.Errorf("%s has port %d", r.Target, r.Port)
			}
		}
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("%v, %v, want %v", got, err, want)
		}
		return nil
	})
}

// fullNames are the names of tasks' containers on a network, with a dot at the end, sorted.
func fullNames(tasks []inside, network string) []string {
	var all []string
	for _, t := range tasks {
		all = append(all, fmt.Sprintf("%s.%s.%s.", t.name, t.task.Meta.ID, network))
	}
	slices.Sort(all)
	return all
}

func (s *swarm) unknown(from inside, name string) {
	s.t.Helper()
	if got, err := from.lookup(name); err == nil {
		s.t.Errorf("%s finds %s, a name of another network: %v", from.name, name, got)
	}
}

// named checks the reverse name of a task's address.
func (s *swarm) named(from, of inside) {
	s.t.Helper()
	names, err := from.resolver().LookupAddr(s.t.Context(), of.address(0))
	if err != nil || len(names) != 1 || !strings.HasPrefix(names[0], of.name+"."+of.task.Meta.ID) {
		s.t.Errorf("%s calls %s %v, %v: want it to begin with %s.%s", from.name, of.address(0), names, err, of.name, of.task.Meta.ID)
	}
}

// spreads asks a service often enough that each of its tasks answers.
func (s *swarm) spreads(from inside, service string, tasks []inside) {
	s.t.Helper()
	seen := make(map[string]int)
	for range 30 * len(tasks) {
		body, err := from.get(service, 8080, "/")
		if err != nil {
			s.t.Fatalf("%s on %s asks %s: %v", from.name, from.host.Name, service, err)
		}
		by, _ := greeted(body)
		seen[by]++
	}
	for _, one := range tasks {
		if seen[one.name] == 0 {
			s.t.Errorf("%s on %s asks %s: answers of %v, none of %s", from.name, from.host.Name, service, seen, one.name)
		}
	}
	if len(seen) != len(tasks) {
		s.t.Errorf("%s asks %s: answers of %v", from.name, service, slices.Sorted(maps.Keys(seen)))
	}
}

// meshKeepsAddresses asks port 8080 of every host from outside: every task answers on every host, and sees the client's own address.
func (s *swarm) meshKeepsAddresses(tasks []inside) {
	s.t.Helper()
	for _, h := range s.Hosts {
		seen := make(map[string]int)
		for range 30 * len(tasks) {
			body, err := s.Client.Get(fmt.Sprintf("http://%s:8080/", h.Addr))
			if err != nil {
				s.t.Fatalf("a client asks %s: %v", h.Name, err)
			}
			by, saw := greeted(body)
			if saw != s.ClientAddr.String() {
				s.t.Fatalf("%s, asked at %s, sees %s, not the client's address %s", by, h.Name, saw, s.ClientAddr)
			}
			seen[by]++
		}
		if len(seen) != len(tasks) {
			s.t.Errorf("a client asks %s: answers of %v, want of %d tasks", h.Name, seen, len(tasks))
		}
	}
}
