package netplugin

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// A fabric is some machines, the nodes of a swarm, and a client, joined by a bridge in a namespace of its own.
//
//	client 10.77.0.100 ─┐
//	node 1 10.77.0.1 ───┤ bridge
//	node 2 10.77.0.2 ───┤
type fabric struct {
	t      testing.TB
	wire   *namespace
	client *namespace
	nodes  []*lab
	// configs are what the nodes were given last.
	configs []Config
}

// nodeAddr is the underlay address of the nth node, from 0, and nodeBlock its gateway block.
func nodeAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(n + 1)}) }

func nodeBlock(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(n + 1), 0}), 24)
}

// meshAddr is the gateway address of the nth task of a node.
func meshAddr(node, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64, byte(node + 1), byte(n + 2)})
}

// newFabric makes n machines with some tasks each, and a client.
func newFabric(t testing.TB, n, tasks int) *fabric {
	t.Helper()
	needRoot(t)
	f := &fabric{t: t, wire: newNamespace(t, "wire"), client: newNamespace(t, "client")}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name, bridge.MTU = "br0", 1500
	must(t, f.wire.LinkAdd(bridge))
	setUp(t, f.wire, "br0", netip.Prefix{})
	f.plug(f.client, "client", clientAddr)
	for i := range n {
		b := &lab{t: t, client: f.client, host: newNamespace(t, fmt.Sprintf("node %d", i+1)), dir: t.TempDir()}
		f.plug(b.host, fmt.Sprintf("node%d", i+1), nodeAddr(i))
		b.start()
		t.Cleanup(func() {
			if err := b.linux.Teardown(context.Background()); err != nil {
				t.Error(err)
			}
			must(t, b.linux.Close())
		})
		f.nodes = append(f.nodes, b)
		f.configs = append(f.configs, meshConfig(n, i, tasks))
	}
	return f
}

// plug joins a namespace to the bridge.
func (f *fabric) plug(n *namespace, name string, a netip.Addr) {
	f.t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "out0", PeerNamespace: netlink.NsFd(n.fd)}
	pair.Name, pair.MTU = name, 1500
	must(f.t, f.wire.LinkAdd(pair))
	bridge, err := f.wire.LinkByName("br0")
	must(f.t, err)
	must(f.t, f.wire.LinkSetMaster(pair, bridge))
	setUp(f.t, f.wire, name, netip.Prefix{})
	setUp(f.t, n, "lo", netip.Prefix{})
	setUp(f.t, n, "out0", netip.PrefixFrom(a, 24))
	if a == clientAddr {
		return
	}
	must(f.t, n.addRoute(route{dst: anywhere, link: linkOf(f.t, n, "out0"), via: clientAddr}))
}

// meshConfig is that of the nth of some nodes, with tasks named n1t0, n1t1 and so on, by node and number.
func meshConfig(nodes, n, tasks int) Config {
	c := Config{Node: uint32(n + 1), Gateway: nodeBlock(n), Pool: testPool, Underlay: nodeAddr(n)}
	for i := range nodes {
		if i != n {
			c.Peers = append(c.Peers, Peer{Node: uint32(i + 1), Underlay: nodeAddr(i), Gateway: nodeBlock(i)})
		}
	}
	for i := range tasks {
		c.Tasks = append(c.Tasks, TaskLink{ID: meshTask(n, i), Address: meshAddr(n, i)})
	}
	return c
}

func meshTask(node, n int) string { return fmt.Sprintf("n%dt%d", node+1, n) }

// publish gives all nodes these ports, and brings their networks to it.
func (f *fabric) publish(ports ...PublishedPort) {
	f.t.Helper()
	for i := range f.configs {
		f.configs[i].Published = ports
	}
	f.apply()
}

func (f *fabric) apply() {
	f.t.Helper()
	for i, b := range f.nodes {
		b.apply(f.configs[i])
	}
}

// serve makes all tasks answer on port 80, by their names.
func (f *fabric) serve() {
	f.t.Helper()
	for i, c := range f.configs {
		for _, task := range c.Tasks {
			serve(f.t, f.nodes[i].task(task.ID), task.ID, 80)
		}
	}
}

// spread is a port with those backends, by node and number of the task, on port 80.
func spread(protocol string, port uint16, backends ...[2]int) PublishedPort {
	p := PublishedPort{Protocol: protocol, Port: port}
	for _, b := range backends {
		p.Backends = append(p.Backends, netip.AddrPortFrom(meshAddr(b[0], b[1]), 80))
	}
	return p
}
