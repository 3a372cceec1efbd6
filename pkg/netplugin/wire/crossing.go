package wire

import (
	"bytes"
	"encoding/binary"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// crossWithin is how long a handshake that one node began keeps that of the other away: longer than an answer takes between two machines, and short
// enough to be made up for where what was begun came to nothing, as it does at a node that does not know this one yet.
const crossWithin = 20 * time.Millisecond

// Where a handshake's first message has its ephemeral key, which no two have alike.
const ephemeralAt, ephemeralEnd = 8, 40

// uncrossed is a Bind by which handshakes of two nodes do not cross: who has heard of the other's does not begin its own, and of two that are
// on their way at the same time, the one with the greater ephemeral key is heard of alone. Both would come to nothing, and be begun anew after five
// seconds. Worse, a device that reads the answer to its own and the other's first message at the same moment may take the answer for a
// handshake whose number it has forgotten: it sends, and takes nothing in, until it begins anew after fifteen seconds.
type uncrossed struct {
	conn.Bind
	now func() time.Time

	// own knows what is for this node by the public key that whoever wrote it must have; nil until that is known.
	own atomic.Pointer[device.CookieChecker]

	mu    sync.Mutex
	nodes map[netip.Addr]meeting
}

// meeting is what became of handshakes with another node lately.
type meeting struct {
	begun, heard time.Time // when this node began its latest, and heard of the other's
	ephemeral    [ephemeralEnd - ephemeralAt]byte
}

func newUncrossed(b conn.Bind) *uncrossed {
	return &uncrossed{Bind: b, now: time.Now, nodes: map[netip.Addr]meeting{}}
}

// know tells it the node's own public key.
func (u *uncrossed) know(public [32]byte) {
	var c device.CookieChecker
	c.Init(public)
	u.own.Store(&c)
}

// Open implements conn.Bind.
func (u *uncrossed) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	all, actual, err := u.Bind.Open(port)
	for i, receive := range all {
		all[i] = func(packets [][]byte, sizes []int, from []conn.Endpoint) (int, error) {
			n, err := receive(packets, sizes, from)
			for j := range n {
				if p := packets[j][:sizes[j]]; begins(p) && !u.hears(p, from[j]) {
					sizes[j] = 0 // which is passed over
				}
			}
			return n, err
		}
	}
	return all, actual, err
}

// Send implements conn.Bind. The first message of a handshake is sent alone.
func (u *uncrossed) Send(packets [][]byte, to conn.Endpoint) error {
	if len(packets) == 1 && begins(packets[0]) && !u.mayBegin(packets[0], to) {
		return nil
	}
	return u.Bind.Send(packets, to)
}

// begins tells whether a packet is the first of a handshake.
func begins(packet []byte) bool {
	return len(packet) == device.MessageInitiationSize && binary.LittleEndian.Uint32(packet) == device.MessageInitiationType
}

// mayBegin tells whether this node may begin a handshake, and takes note that it does.
func (u *uncrossed) mayBegin(packet []byte, to conn.Endpoint) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	now, node := u.now(), to.DstIP().Unmap()
	m := u.nodes[node]
	if now.Sub(m.heard) < crossWithin {
		return false
	}
	m.begun, m.ephemeral = now, [ephemeralEnd - ephemeralAt]byte(packet[ephemeralAt:ephemeralEnd])
	u.keep(node, m)
	return true
}

// hears tells whether this node may hear of a handshake that another began, and takes note that it does. What a stranger sends in a node's name
// keeps this one from nothing.
func (u *uncrossed) hears(packet []byte, from conn.Endpoint) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	now, node := u.now(), from.DstIP().Unmap()
	m := u.nodes[node]
	if now.Sub(m.begun) < crossWithin && bytes.Compare(m.ephemeral[:], packet[ephemeralAt:ephemeralEnd]) > 0 {
		return false
	}
	if own := u.own.Load(); own != nil && own.CheckMAC1(packet) {
		m.heard = now
		u.keep(node, m)
	}
	return true
}

// keep keeps what became of a node's handshakes, and forgets what nothing crosses any more.
func (u *uncrossed) keep(node netip.Addr, m meeting) {
	u.nodes[node] = m
	now := u.now()
	maps.DeleteFunc(u.nodes, func(_ netip.Addr, one meeting) bool {
		return now.Sub(one.begun) >= crossWithin && now.Sub(one.heard) >= crossWithin
	})
}
