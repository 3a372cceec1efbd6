package netplugin

import (
	"bytes"
	"net"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Two nodes hear of each other at the same moment, and would both begin a handshake. Where the two cross, or one comes before the other
// node knows of who sends it, both come to nothing, and WireGuard begins the next after five seconds. So one of the two begins at once,
// and the other a moment later if there was none yet; and if there still is none, they begin anew in turn for a while.

// keepalive is how often two nodes say that they are there, and begin a handshake where there is no session. One is there before it is
// needed, and again after one of the two was started anew.
var keepalive = 25 * time.Second

// greetings are when it is looked whether there was a handshake with new nodes, each time after the one before.
var greetings = []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond, time.Second, 2 * time.Second}

// first tells whether this node, and not the other one, begins at once.
func (have *wires) first(other wgtypes.Key) bool { return bytes.Compare(have.self[:], other[:]) < 0 }

// greetLater looks again at nodes that the device of an overlay newly knows.
func (l *Linux) greetLater(o *overlay, step int, nodes []wgtypes.Key) {
	if step == len(greetings) || len(nodes) == 0 {
		return
	}
	device := o.tunnel
	time.AfterFunc(greetings[step], func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.lock >= 0 && l.overlays[o.id] == o && o.tunnel == device && o.wires != nil {
			l.greet(o, step, nodes)
		}
	})
}

// greet begins a handshake with those of the nodes with which there was none, if it is this node's turn.
func (l *Linux) greet(o *overlay, step int, nodes []wgtypes.Key) {
	have, err := o.tunnel.read()
	if err != nil {
		return // which is for the next Apply to see, after Resync
	}
	nodes = slices.DeleteFunc(nodes, func(k wgtypes.Key) bool {
		p, there := have.peers[k]
		return !there || p.met
	})
	var list []wgtypes.PeerConfig
	for _, k := range nodes {
		switch p, wanted := o.wires.peers[k]; {
		case !wanted || o.wires.first(k) == (step%2 == 0):
		case step == 0:
			list = append(list, wgtypes.PeerConfig{PublicKey: k, UpdateOnly: true, PersistentKeepaliveInterval: &keepalive})
		default: // there is no other way to have a device begin again
			list = append(list, wgtypes.PeerConfig{PublicKey: k, Remove: true}, wgtypes.PeerConfig{PublicKey: k, PresharedKey: &p.shared,
				Endpoint: net.UDPAddrFromAddrPort(p.at), PersistentKeepaliveInterval: &keepalive, AllowedIPs: o.wires.addressesOf(k)})
		}
	}
	if len(list) > 0 && o.tunnel.change(wgtypes.Config{Peers: list}) != nil {
		return // as well
	}
	l.greetLater(o, step+1, nodes)
}

// addressesOf are those that lead to a node.
func (have *wires) addressesOf(k wgtypes.Key) (all []net.IPNet) {
	for p, owner := range have.owner {
		if owner == k {
			all = append(all, *ipNet(p))
		}
	}
	return all
}
