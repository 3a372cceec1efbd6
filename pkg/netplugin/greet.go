package netplugin

import (
	"bytes"
	"net"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Two nodes hear of each other at the same moment, or one of them some seconds later, and either may begin a handshake, as may the first packet
// between their tasks. A handshake that comes before the other node knows of who sends it comes to nothing, and so do two that cross: each
// side answers, and by that has forgotten what it asked itself. WireGuard begins the next one after five seconds, on both sides at about the
// same time, so they may cross again. Therefore one of the two, the first, begins at once, and anew again and again until there was a handshake;
// the other one seldom, for the case that the first knows of none that is needed: it may have a session from before the other was started anew.
// A node that made its device once more, since somebody took it away, knows that it is so, and acts as a first for some looks; and so does one that
// comes back without any, as after a loss of power, with keys that it had before.

// keepalive is how often two nodes say that they are there, and begin a handshake where there is no session. One is there before it is
// needed, and again after one of the two was started anew.
var keepalive = 25 * time.Second

// A node that newly is known to a device is looked at for about a minute. Whoever comes later finds the first waiting for its own
// handshake, with a keepalive at the latest.
const (
	// firstLook is when it is looked for the first time whether there was a handshake. The time between two looks doubles from then, up to mostLook.
	firstLook = 100 * time.Millisecond
	mostLook  = 2 * time.Second
	looks     = 35
	// secondLook is when the first begins anew, if it has to, and the other one at all. Afterwards that does so at each look of seldom, so
	// that twice in a row the first has the time for itself.
	secondLook, seldom = 1, 3
	// leading is up to which look a device that was made once more has its node act as the first.
	leading = 4
)

// lookAfter is how long after the one before a look comes.
func lookAfter(look int) time.Duration { return min(firstLook<<min(look, 10), mostLook) }

// A turn is what a node does at a look if there was no handshake yet.
type turn int

const (
	waits turn = iota
	// begins a handshake, if it has not begun one that WireGuard waits for.
	begins
	// beginsAnew whatever there was.
	beginsAnew
)

// turnOf is what the first of two nodes, or the other one, does at a look.
func turnOf(look int, first bool) turn {
	switch {
	case look < secondLook, !first && look%seldom != secondLook:
		return waits
	case look == secondLook && !first:
		return begins
	}
	return beginsAnew
}

// first tells whether this node, and not the other one, begins at once.
func (have *wires) first(other wgtypes.Key) bool { return bytes.Compare(have.self[:], other[:]) < 0 }

// greetLater looks again at nodes that the device of an overlay newly knows, which was made once more or not. With each node is how much was heard of it.
func (l *Linux) greetLater(o *overlay, look int, again bool, nodes map[wgtypes.Key]int64) {
	if look == looks || len(nodes) == 0 {
		return
	}
	device := o.tunnel
	time.AfterFunc(lookAfter(look), func() {
		var have *wires
		var err error
		_, mayHang := device.(process)
		if mayHang { // all else would wait for the lock
			have, err = device.read()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.lock < 0 || l.overlays[o.id] != o || o.tunnel != device || o.wires == nil {
			return
		}
		if !mayHang {
			have, err = device.read()
		}
		if err == nil { // else it is for the next Apply to see, after Resync
			l.greet(o, have, look, again, nodes)
		}
	})
}

// greet begins a handshake with those of the nodes with which there was none as the device was read, if it is this node's turn. One of which something was heard since the
// look before is at it: to begin anew would end what it just began.
func (l *Linux) greet(o *overlay, have *wires, look int, again bool, nodes map[wgtypes.Key]int64) {
	var list []wgtypes.PeerConfig
	anew := map[wgtypes.Key]int{} // where in list
	for k, heard := range nodes {
		now, there := have.peers[k]
		p, wanted := o.wires.peers[k]
		switch {
		case !there || !wanted || !now.met.IsZero():
			delete(nodes, k)
			continue
		case now.heard != heard:
			nodes[k] = now.heard
			continue
		}
		switch turnOf(look, o.wires.first(k) || again && look <= leading) {
		case waits:
		case begins:
			list = append(list, wgtypes.PeerConfig{PublicKey: k, UpdateOnly: true, PersistentKeepaliveInterval: &keepalive})
		case beginsAnew: // there is no other way to have a device do so
			nodes[k] = 0
			anew[k] = len(list) + 1
			list = append(list, wgtypes.PeerConfig{PublicKey: k, Remove: true}, wgtypes.PeerConfig{PublicKey: k, PresharedKey: &p.shared,
				Endpoint: net.UDPAddrFromAddrPort(p.at), PersistentKeepaliveInterval: &keepalive})
		}
	}
	for p, owner := range o.wires.owner {
		if i, again := anew[owner]; again {
			list[i].AllowedIPs = append(list[i].AllowedIPs, *ipNet(p))
		}
	}
	if len(list) > 0 && o.tunnel.change(wgtypes.Config{Peers: list}) != nil {
		return // which is for the next Apply to see as well
	}
	l.greetLater(o, look+1, again, nodes)
}
