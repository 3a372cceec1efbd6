package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestNetworkDoctor: a swarm that is well has no findings; a cut link, a smaller MTU, a process of an encrypted network that hangs and a resolver
// that does not answer each have a sentence that names where, and none once they are mended.
func TestNetworkDoctor(t *testing.T) {
	s := form(t, 1, 2)
	first, one, two := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	s.network(first, "back")
	s.network(first, "vault", "--opt", "encrypted")
	s.serve(first, "web", 3, "--network", "back", "--network", "vault", "--replicas-max-per-node", "1")
	well := func() {
		t.Helper()
		s.Eventually(generous, "the doctor finds nothing", func() error {
			if r := first.Ctl("network", "doctor"); r.Code != 0 || !strings.HasPrefix(r.Stdout, "All is well: ") || !strings.HasSuffix(r.Stdout, "on 3 nodes\n") {
				return fmt.Errorf("it ends with %d: %s%s", r.Code, r.Stdout, r.Stderr)
			}
			return nil
		})
	}
	// ill asks until the doctor finds what begins so, and checks that no finding is of a healthy pair.
	ill := func(blamed string, args []string, want ...string) {
		t.Helper()
		s.Eventually(generous, "the doctor finds "+want[0], func() error {
			r := first.Ctl(append([]string{"network", "doctor"}, args...)...)
			for _, text := range want {
				if r.Code != 1 || !strings.Contains("\n"+r.Stdout, "\n"+text) {
					return fmt.Errorf("it ends with %d: %s%s", r.Code, r.Stdout, r.Stderr)
				}
			}
			for line := range strings.Lines(r.Stdout) {
				if !strings.Contains(line, blamed) {
					t.Errorf("blamed without a reason: %s", line)
				}
			}
			return nil
		})
	}
	well()
	if err := s.CutBetween(one, two); err != nil {
		t.Fatal(err)
	}
	ill("to node "+one.Name, []string{"--node", two.Name}, "node "+two.Name+", to node "+one.Name+": it does not answer pings at "+one.Addr.String())
	ill(" to node ", nil, "node "+two.Name+", to node "+one.Name+": it does", "node "+one.Name+", to node "+two.Name+": it does")
	if err := s.Heal(); err != nil {
		t.Fatal(err)
	}
	well()

	mtu(t, two, 1400)
	ill("to node "+two.Name, []string{"--node", one.Name}, "node "+one.Name+", to node "+two.Name+": packets to "+two.Addr.String()+" of 1500 bytes")
	mtu(t, two, 1500)
	well()

	for _, id := range wiresOn(t, one) {
		if err := syscall.Kill(id, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	ill("network vault", []string{"--node", one.Name}, "node "+one.Name+", network vault: what encrypts it on this node does not answer")
	well() // the node makes another

	undo := deafen(t, two, unix.IPPROTO_UDP)
	ill("(by UDP: none within", []string{"back", "--node", two.Name}, "node "+two.Name+", network back: a task that asks the resolver at 169.254.77.53:53 for web.")
	undo()
	well()
	undo = deafen(t, two, unix.IPPROTO_TCP)
	ill(": a task that asks the resolver", []string{"back", "--node", two.Name}, "node "+two.Name+", network back: a task that asks the resolver at 169.254.77.53:53 for web.")
	r := first.Ctl("network", "doctor", "-o", "json", "--node", two.Name)
	var found struct {
		Nodes, Checks int
		Findings      []v1.Finding
	}
	if err := json.Unmarshal([]byte(r.Stdout), &found); err != nil || r.Code != 1 || found.Nodes != 1 || len(found.Findings) != 2 || found.Findings[0].Check != v1.CheckNames {
		t.Errorf("as JSON it ends with %d, %v: %s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	undo()
	well()

	if r := first.Ctl("network", "doctor", ""); r.Code != 1 || !strings.Contains(r.Stderr, "no such network") {
		t.Errorf("of a network without a name: %d, %s", r.Code, r.Stderr)
	}
	if r := first.Ctl("network", "doctor", "nosuch"); r.Code != 1 || !strings.Contains(r.Stderr, "no such network: nosuch") {
		t.Errorf("of a network that is not there: %d, %s", r.Code, r.Stderr)
	}
}

// mtu sets that of a host's link.
func mtu(t *testing.T, h *lab.Host, bytes int) {
	t.Helper()
	err := h.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(link, bytes)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// deafen has a host's resolver hear no questions by TCP, until undo.
func deafen(t *testing.T, h *lab.Host, protocol byte) (undo func()) {
	t.Helper()
	table := &nftables.Table{Name: "deaf", Family: nftables.TableFamilyIPv4}
	within := func(f func(*nftables.Conn)) {
		t.Helper()
		err := h.Do(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			f(c)
			return c.Flush()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	within(func(c *nftables.Conn) {
		c.AddTable(table)
		chain := c.AddChain(&nftables.Chain{Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0, 53}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	})
	return func() { within(func(c *nftables.Conn) { c.DelTable(table) }) }
}
