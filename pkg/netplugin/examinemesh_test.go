package netplugin

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// TestExamineMesh: where nothing but published ports leads from node to node, the doctor sees as well that their way is closed, or that somebody
// has put routes into it.
func TestExamineMesh(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, f *fabric)
		want   string // what the only finding of node 1 begins with; "" for none
	}{
		{"nothing", func(*testing.T, *fabric) {}, ""},
		{"the other node takes no packets in", func(t *testing.T, f *fabric) { dropUDP(t, f.nodes[1].host, defaultDataPort) },
			"link  2: published ports here do not lead to its tasks"},
		{"routes of somebody else's", func(t *testing.T, f *fabric) {
			strayInto(t, f.nodes[0].linux.router, nodeBlock(7), linkOf(t, f.nodes[0].linux.router, routerLink))
		},
			"rules  0: router gw has 11 routes of somebody else's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFabric(t, 2, 1)
			f.publish(spread("tcp", 8080, [2]int{0, 0}, [2]int{1, 0}))
			tt.damage(t, f)
			got := examined(t, f.nodes[0], "")
			if tt.want == "" && len(got) > 0 || tt.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], tt.want)) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

// TestRoutersEcho: routers and tasks answer other routers' questions for echoes; tasks have none by way of the mesh, and no router lets
// questions through to another.
func TestRoutersEcho(t *testing.T) {
	f := newFabric(t, 2, 1)
	f.publish(spread("tcp", 8080, [2]int{0, 0}, [2]int{1, 0}))
	router, other := f.nodes[0].linux.router, base{block: nodeBlock(1)}.gateway()
	own := base{block: nodeBlock(0)}.gateway()
	task := f.nodes[0].task(meshTask(0, 0))
	for _, to := range []netip.Addr{other, meshAddr(1, 0)} {
		answered, _, err := router.ping(t.Context(), own, []netip.Addr{to}, pingSmall)
		must(t, err)
		if !answered[to] {
			t.Errorf("%s does not answer a router", to)
		}
		answered, _, err = task.ping(t.Context(), meshAddr(0, 0), []netip.Addr{to}, pingSmall)
		must(t, err)
		if answered[to] {
			t.Errorf("a task has an echo of %s", to)
		}
	}
}

// dropUDP has a firewall of somebody else's drop what comes to a port.
func dropUDP(t *testing.T, n *namespace, port uint16) {
	t.Helper()
	c, err := n.firewall()
	must(t, err)
	table := c.AddTable(&nftables.Table{Name: "admin", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRaw})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{byte(port >> 8), byte(port)}},
	}, drop()...)})
	must(t, c.Flush())
}
