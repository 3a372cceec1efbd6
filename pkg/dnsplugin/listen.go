package dnsplugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

const (
	// receiveBuffer holds some thousand questions that come at once, so that none is lost: one that is lost costs its asker 5 s.
	receiveBuffer = 4 << 20
	// maxConnections and maxConnectionsPerAsker bound the TCP connections, most of which bring one question.
	maxConnections         = 2048
	maxConnectionsPerAsker = 64
	// maxByTCP and burstByTCP bound the questions of a second that one asker has answered by TCP, on all its connections: as many connections
	// as it may have, full of questions, else keep those waiting who ask by UDP. Those beyond wait in the connections.
	maxByTCP   = 5000
	burstByTCP = 100
	// readsPerQuestion is how the server reads: a length, and what is so long.
	readsPerQuestion = 2
)

// sockets are those of one address, with the same port.
type sockets struct {
	addr netip.AddrPort
	udp  net.PacketConn
	tcp  net.Listener
}

func (s *sockets) close() {
	_ = s.udp.Close()
	s.tcp.Close()
}

// Keeper has sockets outlive the process that opened them, as an init system can: what is asked meanwhile waits in them. Names are of letters,
// digits and dashes.
type Keeper interface {
	// Kept is the socket of a name, as a file that is the caller's to close, or nil.
	Kept(name string) *os.File
	// Keep keeps a socket under a name, in place of another. The file stays the caller's.
	Keep(name string, socket *os.File)
	// Drop lets go of one; there need be none.
	Drop(name string)
}

// The names of kept sockets. There is one server of a machine's tasks, with one address.
const keptUDP, keptTCP = "names-udp", "names-tcp"

// listen opens the sockets of an address, whether the machine has it yet or not. For port 0 it takes one that is free for both.
func listen(ctx context.Context, addr netip.AddrPort, keeper Keeper) (*sockets, error) {
	config := net.ListenConfig{Control: control}
	for tries := 0; ; tries++ {
		udp, err := orKept(keeper, keptUDP, addr, net.FilePacketConn, net.PacketConn.LocalAddr, func() (net.PacketConn, error) {
			return config.ListenPacket(ctx, "udp", addr.String())
		})
		if err != nil {
			return nil, err
		}
		actual := udp.LocalAddr().(*net.UDPAddr).AddrPort()
		actual = netip.AddrPortFrom(addr.Addr(), actual.Port())
		tcp, err := orKept(keeper, keptTCP, actual, net.FileListener, net.Listener.Addr, func() (net.Listener, error) {
			return config.Listen(ctx, "tcp", actual.String())
		})
		if err == nil {
			return &sockets{actual, udp, &listener{Listener: tcp, by: map[netip.Addr]*caller{}}}, nil
		}
		_ = udp.Close()
		if addr.Port() != 0 || tries == 10 || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
}

// orKept is a socket that was kept, if it is of the address, or one that is opened and kept.
func orKept[S io.Closer](keeper Keeper, name string, addr netip.AddrPort, of func(*os.File) (S, error), local func(S) net.Addr, open func() (S, error)) (S, error) {
	if keeper == nil {
		return open()
	}
	if f := keeper.Kept(name); f != nil {
		s, err := of(f)
		f.Close()
		if err == nil && local(s).String() == addr.String() {
			return s, nil
		}
		if err == nil {
			s.Close()
		}
		keeper.Drop(name) // else nobody could have the address
	}
	s, err := open()
	if err != nil {
		return s, err
	}
	if f, err := any(s).(interface{ File() (*os.File, error) }).File(); err == nil {
		keeper.Keep(name, f)
		f.Close()
	}
	return s, nil
}

// control lets a socket have an address that the machine does not have: the agent may come up before its link does, and the link may go and come
// back. The buffer is a wish; without the right to exceed the system's limit, the limit is what we get.
func control(network, _ string, raw syscall.RawConn) error {
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		s := int(fd)
		if err = unix.SetsockoptInt(s, unix.SOL_IP, unix.IP_FREEBIND, 1); err != nil {
			err = fmt.Errorf("dns: allow an address that is not there: %w", err)
			return
		}
		if network == "udp4" || network == "udp6" {
			if unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				_ = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
		}
	})
	return errors.Join(controlErr, err)
}

// listener bounds the connections, those of each asker and all. One too many is closed at once.
type listener struct {
	net.Listener
	mu  sync.Mutex
	all int
	by  map[netip.Addr]*caller
}

// caller is one asker's connections, and when they may be read.
type caller struct {
	connections int
	reads       *pace
}

// pace is how fast an asker is read, on all its connections.
type pace struct {
	mu sync.Mutex // the limiter looks at the clock before its own lock, and counts time twice where two do so in another order
	*rate.Limiter
}

// next is how long to wait before the next read.
func (p *pace) next() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Reserve().Delay()
}

// Accept implements net.Listener. Where the system has nothing left to accept with, it waits a little before it says so: who calls tries again at
// once.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) {
				time.Sleep(10 * time.Millisecond)
			}
			return nil, err
		}
		asker, _ := addrOf(c.RemoteAddr())
		if by := l.take(asker); by != nil {
			return &connection{Conn: c, reads: by.reads, done: sync.OnceFunc(func() { l.give(asker) })}, nil
		}
		c.Close()
	}
}

// take counts a connection; nil is for one too many.
func (l *listener) take(asker netip.Addr) *caller {
	l.mu.Lock()
	defer l.mu.Unlock()
	by := l.by[asker]
	if by == nil {
		by = &caller{reads: &pace{Limiter: rate.NewLimiter(readsPerQuestion*maxByTCP, readsPerQuestion*burstByTCP)}}
	}
	if l.all >= maxConnections || by.connections >= maxConnectionsPerAsker {
		return nil
	}
	l.all++
	by.connections++
	l.by[asker] = by
	return by
}

func (l *listener) give(asker netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.by[asker].connections--; l.by[asker].connections == 0 {
		delete(l.by, asker)
	}
}

// connection is read no faster than its asker's may be, and tells its listener when it is closed.
type connection struct {
	net.Conn
	reads *pace
	done  func()
}

// Read implements net.Conn. It waits some milliseconds at most: the asker's other connections are few.
func (c *connection) Read(b []byte) (int, error) {
	time.Sleep(c.reads.next())
	return c.Conn.Read(b)
}

// Close implements net.Conn.
func (c *connection) Close() error {
	defer c.done()
	return c.Conn.Close()
}
