package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// swarmResolver is where what is attached by hand asks for names, and the host itself.
const swarmResolver = "169.254.77.53:53"

// guest makes a network namespace of the user's, with a link and a default route of its own.
func (s *swarm) guest(name string) *lab.Namespace {
	s.t.Helper()
	n, err := s.Guest(name)
	if err != nil {
		s.t.Fatal(err)
	}
	err = n.Do(func() error {
		own := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", Flags: net.FlagUp}, PeerName: "wall"}
		if err := netlink.LinkAdd(own); err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr("192.0.2.2/24")
		if err := netlink.AddrAdd(own, addr); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: own.Attrs().Index, Gw: net.IPv4(192, 0, 2, 1), Flags: int(netlink.FLAG_ONLINK)})
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// contents are the links, addresses and routes of a namespace, one a line.
func contents(n *lab.Namespace) (all []string, err error) {
	err = n.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, one := range links {
			addrs, err := netlink.AddrList(one, netlink.FAMILY_V4)
			if err != nil {
				return err
			}
			all = append(all, fmt.Sprintf("link %d %s %s", one.Attrs().Index, one.Attrs().Name, one.Attrs().Flags&net.FlagUp))
			for _, a := range addrs {
				all = append(all, fmt.Sprintf("address %s %s", one.Attrs().Name, a.IPNet))
			}
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
		for _, r := range routes {
			all = append(all, "route "+r.String())
		}
		slices.Sort(all)
		return err
	})
	return all, err
}

// attached is what was attached by hand, seen from within.
func (s *swarm) attached(h *lab.Host, n *lab.Namespace, name string) inside {
	s.t.Helper()
	c := s.client(s.Hosts[0])
	o, err := client.Get(s.t.Context(), c, v1.Attachments, name)
	if err != nil {
		s.t.Fatal(err)
	}
	task, err := client.Get(s.t.Context(), c, v1.Tasks, v1.AttachmentTask(o.Meta.ID))
	if err != nil {
		s.t.Fatal(err)
	}
	return inside{Namespace: n, name: name, host: h, task: task, asks: swarmResolver}
}

// answer has a process in a namespace answer at a port with a text.
func (s *swarm) answer(n *lab.Namespace, port int, text string) {
	s.t.Helper()
	s.listen(n, port, func(conn net.Conn) { _, _ = io.WriteString(conn, text) })
}

// listen has a process in a namespace listen at a port, and do something with each connection before it closes that.
func (s *swarm) listen(n *lab.Namespace, port int, do func(net.Conn)) {
	s.t.Helper()
	var listener net.Listener
	err := n.Do(func() (err error) {
		listener, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				do(conn)
				conn.Close()
			}()
		}
	}()
}

// reaches waits until a process in from gets the text from a name's port.
func (s *swarm) reaches(from inside, name string, port int, text string) {
	s.t.Helper()
	s.Eventually(generous, from.name+" reaches "+name, func() error {
		found, err := from.lookup(name)
		if err != nil || len(found) != 1 {
			return fmt.Errorf("%v, %w", found, err)
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), generous)
		defer cancel()
		conn, err := from.DialContext(ctx, "tcp", net.JoinHostPort(found[0], fmt.Sprint(port)))
		if err != nil {
			return err
		}
		defer conn.Close()
		if body, err := io.ReadAll(conn); err != nil || string(body) != text {
			return fmt.Errorf("%q, %w", body, err)
		}
		return nil
	})
}

// TestNetworkAttach: processes of a user's own, in namespaces of their own on each of three hosts, are on an attachable network: they reach its
// services by name, virtual address and task, and are reached by their names, over restarts of all daemons and a drain; what else is in their
// namespaces stays as it was; detached, or deleted, nothing of them is left; and nobody gets into the host's namespace, a task's or a router's.
func TestNetworkAttach(t *testing.T) {
	s := form(t, 1, 2)
	first := s.Hosts[0]
	s.network(first, "open", "--attachable")
	s.network(first, "closed")
	s.serve(first, "web", 3, "--network", "open", "--replicas-max-per-node", "1")
	s.serve(first, "hidden", 1, "--network", "closed")
	webs := s.tasksOf(first, "web", 3)
	s.tasksOf(first, "hidden", 1)

	var guests []inside
	before := make(map[string][]string)
	for i, h := range s.Hosts {
		name := fmt.Sprintf("guest%d", i+1)
		n := s.guest(name)
		s.answer(n, 9000, "I am "+name)
		before[name], _ = contents(n)
		first.Must("network", "attach", "open", "--node", h.Name, "--netns", n.Path, "--name", name, "--alias", "other-"+name)
		guests = append(guests, s.attached(h, n, name))
	}
	s.guestsTalk(guests, webs)
	s.hostAsks(first, "web.open", s.vip(first, "web"))
	s.attachmentsAreSeen(guests)
	s.attachmentsAreRefused(guests[0], webs)
	s.attachmentsStay(guests, webs)
	s.attachmentsGo(guests, webs, before)
}

func (s *swarm) guestsTalk(guests, webs []inside) {
	s.t.Helper()
	vip := s.vip(s.Hosts[0], "web")
	for _, from := range guests {
		s.resolves(from, "web", vip)
		s.resolves(from, "web.open", vip)
		s.resolves(from, "tasks.web", addresses(webs)...)
		s.unknown(from, "hidden")
		s.spreads(from, "web", webs)
		for _, one := range webs {
			s.resolves(from, one.name, one.address(0))
		}
		for _, to := range guests {
			s.reaches(from, to.name, 9000, "I am "+to.name)
		}
	}
	for _, from := range webs {
		for _, to := range guests {
			s.resolves(from, to.name, to.address(0))
			s.reaches(from, "other-"+to.name, 9000, "I am "+to.name)
		}
	}
}

// hostAsks: the host itself finds the names of all networks, as "dig @169.254.77.53" does.
func (s *swarm) hostAsks(h *lab.Host, name, want string) {
	s.t.Helper()
	on, err := lab.InsideOf(h.PID())
	if err != nil {
		s.t.Fatal(err)
	}
	defer on.Leave()
	if found, err := on.Resolver(swarmResolver).LookupHost(s.t.Context(), name+"."); err != nil || !slices.Equal(found, []string{want}) {
		s.t.Errorf("host %s finds %s at %v, %v; want %s", h.Name, name, found, err, want)
	}
}

func (s *swarm) attachmentsAreSeen(guests []inside) {
	s.t.Helper()
	first := s.Hosts[0]
	inspected, listed := first.Must("network", "inspect", "--verbose", "open"), first.Must("get", "attachments")
	for _, g := range guests {
		for what, text := range map[string]string{"network inspect --verbose": inspected, "get attachments": listed} {
			if !strings.Contains(text, g.name) || !strings.Contains(text, g.address(0)) {
				s.t.Errorf("%s shows nothing of %s at %s:\n%s", what, g.name, g.address(0), text)
			}
		}
	}
	if r := first.Ctl("network", "rm", "open"); r.Code == 0 {
		s.t.Error("a network with attachments was removed")
	}
}

// refused checks that a command is refused with a text.
func (s *swarm) refused(text string, args ...string) {
	s.t.Helper()
	if r := s.Hosts[0].Ctl(args...); r.Code == 0 || !strings.Contains(r.Stderr, text) {
		s.t.Errorf("%s: %d, %s%s; want it refused with %q", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr, text)
	}
}

func (s *swarm) attachmentsAreRefused(guest inside, webs []inside) {
	s.t.Helper()
	free := s.guest("free")
	on := guest.host
	web := webs[slices.IndexFunc(webs, func(w inside) bool { return w.host == on })]
	attach := func(network, namespace string) []string {
		return []string{"network", "attach", network, "--node", on.Name, "--netns", namespace, "--name", "no"}
	}
	s.refused("network closed not manually attachable", attach("closed", free.Path)...)
	s.refused("no such network", attach("nosuch", free.Path)...)
	s.refused("is attached already, as "+guest.name, attach("open", guest.Path)...)
	s.refused("of an attachment that is there already", attach("open", filepath.Dir(guest.Path)+"/../guests/"+filepath.Base(guest.Path))...)
	s.refused("the network namespace of the machine itself", attach("open", fmt.Sprintf("/proc/%d/ns/net", on.PID()))...)
	s.refused("the network namespace of a task", attach("open", fmt.Sprintf("/proc/%d/ns/net", containersOf(s.t, web.host)[web.task.Meta.ID]))...)
	s.refused("the network namespace of a router", attach("open", s.routerOf(on))...)
	s.refused("not a network namespace", attach("open", fmt.Sprintf("/proc/%d/ns/uts", on.PID()))...)
	s.refused("there is no namespace", attach("open", "/etc/hostname")...)
	s.refused("no such file", attach("open", "nosuch-namespace")...)
	s.refused("which namespace?", "network", "attach", "open")
	s.refused("no such attachment", "network", "detach", "no")
}

// routerOf is the path of a router's namespace on a host.
func (s *swarm) routerOf(h *lab.Host) string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.Root, "network", "router", "*"))
	if err != nil || len(found) == 0 {
		s.t.Fatalf("host %s has no routers: %v", h.Name, err)
	}
	return found[0]
}

// attachmentsStay: a connection from an attachment outlasts the restart of all daemons and a drain of its node, and so does what is in its
// namespace.
func (s *swarm) attachmentsStay(guests, webs []inside) {
	s.t.Helper()
	var conns []net.Conn
	was := make(map[string][]string)
	for i, g := range guests {
		to := webs[(i+1)%len(webs)]
		s.answerSlowly(to, 9100+i)
		conn, err := g.DialContext(s.t.Context(), "tcp", net.JoinHostPort(to.address(0), fmt.Sprint(9100+i)))
		if err != nil {
			s.t.Fatalf("%s reaches %s: %v", g.name, to.name, err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		was[g.name], _ = contents(g.Namespace)
	}
	for _, h := range s.Hosts {
		h.Stop()
	}
	s.echoes(guests, conns)
	for _, h := range s.Hosts {
		h.Start()
	}
	s.Settled(s.Hosts[0], s.managers)
	s.echoes(guests, conns)
	drained := guests[1] // of a worker that the first task is not on, for others still need that
	if webs[0].host == drained.host {
		drained = guests[2]
	}
	s.Hosts[0].Must("node", "update", "--availability", "drain", drained.host.Name)
	s.converged(s.Hosts[0], "web", 2, generous)
	s.reaches(webs[0], drained.name, 9000, "I am "+drained.name)
	s.Hosts[0].Must("node", "update", "--availability", "active", drained.host.Name)
	for _, g := range guests {
		if is, err := contents(g.Namespace); err != nil || !slices.Equal(is, was[g.name]) {
			s.t.Errorf("%s has other links or routes after the daemons were restarted: %v\n%s\nwas\n%s", g.name, err, strings.Join(is, "\n"), strings.Join(was[g.name], "\n"))
		}
		s.reaches(guests[0], g.name, 9000, "I am "+g.name)
	}
}

// answerSlowly has a process in a task's namespace send back what it gets.
func (s *swarm) answerSlowly(at inside, port int) {
	s.t.Helper()
	s.listen(at.Namespace, port, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
}

// echoes checks that each connection still carries what is said both ways.
func (s *swarm) echoes(guests []inside, conns []net.Conn) {
	s.t.Helper()
	for i, conn := range conns {
		said := []byte("still there?")
		got := make([]byte, len(said))
		_, err := conn.Write(said)
		if err == nil {
			_, err = io.ReadFull(conn, got)
		}
		if err != nil || string(got) != string(said) {
			s.t.Errorf("the connection of %s is broken: %q, %v", guests[i].name, got, err)
		}
	}
}

// attachmentsGo: one is detached, one loses its namespace, one its daemon and then its namespace. Names go, and the namespaces are as before.
func (s *swarm) attachmentsGo(guests, webs []inside, before map[string][]string) {
	s.t.Helper()
	first := s.Hosts[0]
	first.Must("network", "detach", guests[0].name)
	if is, err := contents(guests[0].Namespace); err != nil || !slices.Equal(is, before[guests[0].name]) {
		s.t.Errorf("a detached namespace is not as before: %v\n%s\nwas\n%s", err, strings.Join(is, "\n"), strings.Join(before[guests[0].name], "\n"))
	}
	first.Must("network", "attach", "open", "--node", guests[0].host.Name, "--netns", guests[0].Path, "--name", "again")
	again := s.attached(guests[0].host, guests[0].Namespace, "again")
	s.reaches(webs[0], "again", 9000, "I am "+guests[0].name)

	if err := guests[1].Delete(); err != nil {
		s.t.Fatal(err)
	}
	guests[2].host.Stop()
	if err := guests[2].Delete(); err != nil {
		s.t.Fatal(err)
	}
	guests[2].host.Start()
	for _, g := range guests[1:] {
		s.Eventually(generous, g.name+" has ended", func() error {
			if text := first.Must("get", "attachments", g.name); !strings.Contains(text, "complete") || !strings.Contains(text, "is gone") {
				return errors.New(text)
			}
			return nil
		})
		s.nameless(webs[0], g.name)
	}
	again2 := s.guest("second")
	first.Must("network", "attach", "open", "--node", guests[1].host.Name, "--netns", again2.Path, "--name", guests[1].name) // the name is free
	first.Must("network", "detach", guests[1].name, again.name)
	s.nameless(webs[0], "again")
	first.Must("service", "rm", "web", "hidden")
	s.Eventually(generous, "the network that nothing is on is removed", func() error {
		if r := first.Ctl("network", "rm", "open", "closed"); r.Code != 0 && !strings.Contains(r.Stderr, "no such network") {
			return fmt.Errorf("%s", r.Stderr)
		}
		return nil
	})
	for _, h := range s.Hosts {
		s.Eventually(generous, h.Name+" has no namespaces mounted for attachments", func() error {
			left, err := filepath.Glob(filepath.Join(h.Root, "network", "netns", "*"))
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("%v", left)
			}
			return err
		})
	}
}

// nameless waits until a name is nobody's.
func (s *swarm) nameless(from inside, name string) {
	s.t.Helper()
	s.Eventually(generous, name+" is not found any more", func() error {
		if found, err := from.lookup(name); err == nil {
			return fmt.Errorf("%v", found)
		}
		return nil
	})
}
