package netplugin

import (
	"fmt"
	"time"
)

// sessionAge is how old a session with a node may be: it begins anew every two minutes.
const sessionAge = 4 * time.Minute

// compareWires looks at what encrypts a network on this node.
func (l *Linux) compareWires(o *overlay, w *wanted) (found []Finding) {
	if o.tunnel == nil {
		return nil
	}
	have, err := o.tunnel.read()
	if err != nil {
		return []Finding{{About: AboutSession, Text: fmt.Sprintf("what encrypts it on this node does not answer (%v)", err) + mends}}
	}
	if port, err := wirePort(o.shape.vni); err == nil && have.port != port {
		found = append(found, Finding{About: AboutSession, Text: fmt.Sprintf("what encrypts it on this node has the UDP port %d instead of %d", have.port, port) + mends})
	}
	for _, v := range w.vteps {
		if _, there := have.peers[v.key.lasting()]; !there {
			found = append(found, Finding{About: AboutSession, Node: v.node, Text: "its key is not in the device" + mends})
		}
	}
	return found
}

// sessions tell what is amiss with the sessions by which somebody was not reached. A session that is not there where nothing is missed is none that
// anybody waits for: it takes a moment once two nodes have heard of each other.
func (l *Linux) sessions(missed []miss) (found []Finding) {
	nodes := map[string]map[uint32]bool{}
	for _, m := range missed {
		if m.About == AboutLink && m.Overlay != "" {
			if nodes[m.Overlay] == nil {
				nodes[m.Overlay] = map[uint32]bool{}
			}
			nodes[m.Overlay][m.Node] = true
		}
	}
	if len(nodes) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	want, err := l.latest()
	if want == nil || err != nil {
		return nil // which Examine told before, or the network is closed
	}
	for id := range nodes {
		o := l.overlays[id]
		if want.overlays[id] == nil || o == nil || o.tunnel == nil {
			continue
		}
		have, err := o.tunnel.read()
		if err != nil {
			continue // which compareWires tells
		}
		for _, v := range want.overlays[id].vteps {
			p, there := have.peers[v.key.lasting()]
			f := Finding{About: AboutSession, Overlay: id, Node: v.node}
			switch {
			case !there || !nodes[id][v.node]:
				continue
			case p.met.IsZero():
				f.Text = fmt.Sprintf("there was no WireGuard handshake yet: let UDP port %d through between the nodes, both ways", have.port)
			case time.Since(p.met) > sessionAge:
				f.Text = fmt.Sprintf("the last WireGuard handshake was %s ago: see whether UDP port %d still comes through between the nodes", time.Since(p.met).Round(time.Second), have.port)
			default:
				continue
			}
			found = append(found, f)
		}
	}
	return found
}
