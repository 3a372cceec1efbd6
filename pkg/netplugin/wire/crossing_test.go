package wire

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// crossroads holds the first message of each of two nodes back until both are on their way, so that they cross. It counts those that are begun.
type crossroads struct {
	mu    sync.Mutex
	begun int
	held  []func()
}

// pass sends a first message, or holds it back.
func (c *crossroads) pass(send func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun++
	if c.held = append(c.held, send); c.begun < 2 {
		return
	}
	for _, send := range c.held {
		send()
	}
	c.held = nil
}

// forget tells how many were begun, and begins to count anew.
func (c *crossroads) forget() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.begun
	c.begun, c.held = 0, nil
	return n
}

// by is a Bind whose handshakes go by the crossroads.
type by struct {
	conn.Bind
	*crossroads
}

func (b by) Send(packets [][]byte, to conn.Endpoint) error {
	if len(packets) != 1 || !begins(packets[0]) {
		return b.Bind.Send(packets, to)
	}
	p := slices.Clone(packets[0])
	b.pass(func() { _ = b.Bind.Send([][]byte{p}, to) })
	return nil
}

// end is one of two devices.
type end struct {
	tun  *tuntest.ChannelTUN
	dev  *device.Device
	key  wgtypes.Key
	addr netip.Addr
	port uint16
}

func newEnd(t *testing.T, addr string, c *crossroads, now func() time.Time) *end {
	t.Helper()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	e := &end{tun: tuntest.NewChannelTUN(), key: key, addr: netip.MustParseAddr(addr)}
	bind := newUncrossed(by{conn.NewDefaultBind(), c})
	bind.now = now
	e.dev = device.NewDevice(e.tun.TUN(), bind, device.NewLogger(device.LogLevelError, addr+" "))
	t.Cleanup(e.dev.Close)
	if _, err := publicKey(e.dev); err == nil {
		t.Error("a device without a key has one")
	}
	e.set(t, "private_key=%s\nlisten_port=0\n", hex.EncodeToString(key[:]))
	public, err := publicKey(e.dev)
	if err != nil || public != key.PublicKey() {
		t.Fatalf("the device's key is another: %v", err)
	}
	bind.know(public)
	if err := e.dev.Up(); err != nil {
		t.Fatal(err)
	}
	have, err := e.dev.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(have, "listen_port=")
	if _, err := fmt.Sscanf(port, "%d", &e.port); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *end) set(t *testing.T, format string, args ...any) {
	t.Helper()
	if err := e.dev.IpcSet(fmt.Sprintf(format, args...)); err != nil {
		t.Fatal(err)
	}
}

// meets has it know another end as if it had never met it.
func (e *end) meets(t *testing.T, other *end) {
	t.Helper()
	k := other.key.PublicKey()
	public := hex.EncodeToString(k[:])
	e.set(t, "public_key=%s\nremove=true\npublic_key=%s\nendpoint=127.0.0.1:%d\nallowed_ip=%s/32\n", public, public, other.port, other.addr)
}

// TestHandshakesDoNotCross: of two nodes that begin at the same moment, one goes on, and nobody has to begin anew.
func TestHandshakesDoNotCross(t *testing.T) {
	var c crossroads
	var clock atomic.Int64 // stands still in a round, however long that takes
	now := func() time.Time { return time.Unix(0, clock.Load()) }
	a, b := newEnd(t, "10.0.0.1", &c, now), newEnd(t, "10.0.0.2", &c, now)
	for round := range 12 {
		clock.Add(int64(crossWithin)) // those that were begun are history
		c.forget()
		a.meets(t, b)
		b.meets(t, a)
		a.tun.Outbound <- tuntest.Ping(b.addr, a.addr)
		b.tun.Outbound <- tuntest.Ping(a.addr, b.addr)
		for _, e := range []*end{a, b} {
			select {
			case <-e.tun.Inbound:
			case <-time.After(time.Minute):
				t.Fatalf("round %d: nothing arrives at %s", round, e.addr)
			}
		}
		if n := c.forget(); n != 2 {
			t.Fatalf("round %d: %d handshakes were begun, want one by each", round, n)
		}
	}
}

// TestMeetings: what was begun at the same time as this node's own, with a lesser key, is not heard of; and who has heard of another's does not begin.
func TestMeetings(t *testing.T) {
	u := newUncrossed(conn.NewDefaultBind())
	now := time.Unix(1, 0)
	u.now = func() time.Time { return now }
	public := [32]byte{1, 2, 3}
	u.know(public)
	first := func(key byte) []byte {
		p := make([]byte, device.MessageInitiationSize)
		p[0], p[ephemeralAt] = device.MessageInitiationType, key
		var macs device.CookieGenerator
		macs.Init(public)
		macs.AddMacs(p)
		return p
	}
	strange := func(key byte) []byte {
		p := first(key)
		p[4]++ // which is signed
		return p
	}
	at := func(a string) conn.Endpoint {
		e, err := u.ParseEndpoint(a)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	one, same, other, third := at("192.0.2.1:61000"), at("[::ffff:192.0.2.1]:61000"), at("192.0.2.2:61000"), at("192.0.2.3:61000")
	for _, step := range []struct {
		what string
		got  func() bool
		want bool
	}{
		{"it begins", func() bool { return u.mayBegin(first(5), one) }, true},
		{"a lesser one crosses it", func() bool { return u.hears(first(4), one) }, false},
		{"another lesser one", func() bool { return u.hears(first(3), same) }, false},
		{"it begins again", func() bool { return u.mayBegin(first(5), one) }, true},
		{"a lesser one of another node", func() bool { return u.hears(first(4), other) }, true},
		{"it begins one with that node", func() bool { return u.mayBegin(first(9), other) }, false},
		{"a stranger in the name of a third", func() bool { return u.hears(strange(4), third) }, true},
		{"it begins one with the third all the same", func() bool { return u.mayBegin(first(9), third) }, true},
		{"a greater one crosses its own", func() bool { return u.hears(first(6), one) }, true},
		{"it begins though it has heard of that", func() bool { return u.mayBegin(first(7), one) }, false},
		{"and a lesser one, later", func() bool { now = now.Add(crossWithin); return u.hears(first(1), one) }, true},
		{"it begins, later still", func() bool { now = now.Add(crossWithin); return u.mayBegin(first(1), one) }, true},
	} {
		if got := step.got(); got != step.want {
			t.Errorf("%s: %t, want %t", step.what, got, step.want)
		}
	}
	for i := range 200 {
		now = now.Add(crossWithin / 50)
		u.mayBegin(first(1), at(fmt.Sprintf("192.0.2.%d:61000", i)))
	}
	if len(u.nodes) > 50 {
		t.Errorf("%d nodes are remembered", len(u.nodes))
	}
}
