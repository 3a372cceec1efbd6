package daemon

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxConnections is how many connections a manager's port has at once, where the process may have as many files. A node has two or
	// three; sessions alone may be 20,000.
	maxConnections = 65_536
	// doorShare is the part of the files that the process may have that the port takes at most, as a divisor: the rest is for the
	// state, the containers and root.
	doorShare = 4
	// strangersEach is how many connections one address has that showed no certificate, and strangersShare which part of all
	// connections theirs are at most, as a divisor.
	strangersEach, strangersShare = 512, 2
	// strangerIdle is how long a connection without a certificate stays on which nothing is asked.
	strangerIdle = 10 * time.Second
)

// connectionLimit is how many connections the port may have. The Go runtime has raised the soft limit of files to the hard one.
func connectionLimit(log *slog.Logger) int {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		log.Warn("it is not known how many files this process may have", "err", err)
		return 256
	}
	return int(min(maxConnections, max(files.Cur/doorShare, 1)))
}

// visitors is a listener that closes connections beyond a number at once, and watches over those of strangers: who shows no
// certificate must not use up what the nodes need. Everybody begins as one.
type visitors struct {
	net.Listener
	most, most1, each int // of all, of all strangers, of the strangers of one address
	idle              time.Duration

	mu        sync.Mutex
	all       int
	strangers int
	from      map[netip.Addr]int // strangers
}

func newVisitors(l net.Listener, most int) *visitors {
	return &visitors{
		Listener: l, most: most, most1: max(most/strangersShare, 1), each: strangersEach, idle: strangerIdle, from: make(map[netip.Addr]int),
	}
}

// Accept implements net.Listener.
func (v *visitors) Accept() (net.Conn, error) {
	for {
		c, err := v.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if visit := v.enter(c); visit != nil {
			return visit, nil
		}
		c.Close()
	}
}

// enter takes a place, or is nil where there is none.
func (v *visitors) enter(c net.Conn) *visit {
	from := origin(c.RemoteAddr())
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all >= v.most || v.strangers >= v.most1 || v.from[from] >= v.each && !from.IsLoopback() {
		return nil
	}
	v.all++
	v.strangers++
	v.from[from]++
	return &visit{Conn: c, to: v, from: from, stranger: true}
}

// origin is what a stranger is counted by: of IPv6 its network, as everybody there has as many addresses as it likes.
func origin(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	from := tcp.AddrPort().Addr().Unmap().WithZone("")
	if from.Is4() || from.IsLoopback() {
		return from
	}
	network, err := from.Prefix(64)
	if err != nil {
		return from
	}
	return network.Addr()
}

// watch is a http.Server's ConnState.
func (v *visitors) watch(c net.Conn, state http.ConnState) {
	secured, ok := c.(*tls.Conn)
	if !ok {
		return
	}
	visit, ok := secured.NetConn().(*visit)
	if !ok {
		return
	}
	switch state {
	case http.StateActive:
		// Who has no certificate is one until the connection ends: TLS 1.3 has no second handshake.
		if len(secured.ConnectionState().PeerCertificates) > 0 {
			visit.introduce()
		}
		visit.wait(0)
	case http.StateIdle:
		visit.wait(v.idle)
	}
}

// visit is a connection that gives its place back.
type visit struct {
	net.Conn
	to   *visitors
	from netip.Addr

	// All under to.mu.
	stranger, left bool
	timer          *time.Timer // closes it
}

// introduce is called when the certificate was seen.
func (c *visit) introduce() {
	c.to.mu.Lock()
	defer c.to.mu.Unlock()
	c.known()
}

func (c *visit) known() {
	if !c.stranger {
		return
	}
	c.stranger = false
	c.to.strangers--
	if c.to.from[c.from]--; c.to.from[c.from] == 0 {
		delete(c.to.from, c.from)
	}
}

// wait has a stranger's connection closed after a while, 0 for never.
func (c *visit) wait(d time.Duration) {
	c.to.mu.Lock()
	defer c.to.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if d > 0 && c.stranger && !c.left {
		c.timer = time.AfterFunc(d, func() { _ = c.Close() }) // it is gone, whatever that says
	}
}

// SetLinger is net.TCPConn's, for a member that breaks a connection: see etcd.PeerContext.
func (c *visit) SetLinger(seconds int) error {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return errors.ErrUnsupported
	}
	return tcp.SetLinger(seconds)
}

// Close implements net.Conn.
func (c *visit) Close() error {
	c.to.mu.Lock()
	if !c.left {
		c.left = true
		c.to.all--
		c.known()
		if c.timer != nil {
			c.timer.Stop()
		}
	}
	c.to.mu.Unlock()
	return c.Conn.Close()
}
