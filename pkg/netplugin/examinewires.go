package netplugin

import (
	"fmt"
	"iter"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// sessionAge is how old a session with a node may be: it begins anew every two minutes.
const sessionAge = 4 * time.Minute

// mostReading is how many devices are read at a time.
const mostReading = 16

// reading is how a network's device is set, or why that cannot be read.
type reading struct {
	*wires
	err error
}

// readWires reads the devices of networks at the same time, for what encrypts one may hang, and is waited for. The lock is held.
func readWires(of iter.Seq2[string, *overlay]) map[string]*reading {
	var mu sync.Mutex
	var work sync.WaitGroup
	all, room := map[string]*reading{}, make(chan struct{}, mostReading)
	for id, o := range of {
		if o.tunnel == nil {
			continue
		}
		device := o.tunnel
		work.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			have, err := device.read()
			mu.Lock()
			defer mu.Unlock()
			all[id] = &reading{have, err}
		})
	}
	work.Wait()
	return all
}

// compareWires looks at what encrypts a network on this node.
func (have *reading) compareWires(w *wanted, s shape) (found []Finding) {
	if have.err != nil {
		return []Finding{{About: AboutSession, Text: fmt.Sprintf("what encrypts it on this node does not answer (%v)", have.err) + mends}}
	}
	if port, err := wirePort(s.vni); err == nil && have.port != port {
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
// anybody waits for: it takes a moment once two nodes have heard of each other. Of what does not answer it is told already.
func (l *Linux) sessions(missed []miss, told []Finding) (found []Finding) {
	nodes := map[string]map[uint32]bool{}
	for _, m := range missed {
		if m.About == AboutLink && m.Overlay != "" {
			if nodes[m.Overlay] == nil {
				nodes[m.Overlay] = map[uint32]bool{}
			}
			nodes[m.Overlay][m.Node] = true
		}
	}
	for _, f := range told {
		if f.About == AboutSession && f.Node == 0 {
			delete(nodes, f.Overlay)
		}
	}
	if len(nodes) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	want, err := l.latest()
	if want == nil || err != nil {
		return nil // there is nothing any more that somebody could be reached by
	}
	for id, have := range readWires(func(yield func(string, *overlay) bool) {
		for id, o := range l.examined(want, "") {
			if nodes[id] != nil && !yield(id, o) {
				return
			}
		}
	}) {
		for _, v := range want.overlays[id].vteps {
			if text := have.sessionWith(v.key.lasting()); text != "" && nodes[id][v.node] {
				found = append(found, Finding{About: AboutSession, Overlay: id, Node: v.node, Text: text})
			}
		}
	}
	return found
}

// sessionWith says what is amiss with the session with a node that was not reached, or "".
func (have *reading) sessionWith(node wgtypes.Key) string {
	if have.err != nil {
		return ""
	}
	p, there := have.peers[node]
	switch {
	case !there:
		return ""
	case p.met.IsZero():
		return fmt.Sprintf("there was no WireGuard handshake yet: let UDP port %d through between the nodes, both ways", have.port)
	case time.Since(p.met) > sessionAge:
		return fmt.Sprintf("the last WireGuard handshake was %s ago: see whether UDP port %d still comes through between the nodes", time.Since(p.met).Round(time.Second), have.port)
	}
	return ""
}
