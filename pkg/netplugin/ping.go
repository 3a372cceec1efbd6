package netplugin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// An echo is asked for a few times, so that a packet that is lost for another reason tells nothing.
const (
	pingTries = 3
	pingPause = 400 * time.Millisecond
	pingSmall = 64 // bytes of a packet that fits anywhere
)

// The headers of a packet, in bytes.
const (
	icmpHeader = 8
	ip4Header  = 20
	ip6Header  = 40
)

// ping asks addresses of one IP version for an echo, from an address of the namespace, with packets of that size as a whole, which nobody may
// cut. It tells which answered, and whether one was too large for the link that it would have left by.
func (n *namespace) ping(ctx context.Context, from netip.Addr, to []netip.Addr, size int) (answered map[netip.Addr]bool, tooLarge bool, err error) {
	answered = map[netip.Addr]bool{}
	if len(to) == 0 {
		return answered, false, nil
	}
	p := pinger{id: uint16(rand.Uint32()), six: from.Is6()}
	if err := n.within(func() error { return p.open(from) }); err != nil {
		return answered, false, fmt.Errorf("ask for echoes in %s: %w", n.name, err)
	}
	defer p.file.Close()
	for range pingTries {
		for _, a := range to {
			switch err := p.ask(a, size); {
			case answered[a]:
			case errors.Is(err, unix.EMSGSIZE):
				tooLarge = true
			case err != nil: // no way: it does not answer
			}
		}
		if err := p.listen(ctx, answered, len(to)); err != nil || len(answered) == len(to) {
			return answered, tooLarge, err
		}
	}
	return answered, tooLarge, nil
}

// pinger is a raw socket for echoes.
type pinger struct {
	file *os.File
	id   uint16
	six  bool
}

func (p *pinger) open(from netip.Addr) error {
	domain, protocol := unix.AF_INET, unix.IPPROTO_ICMP
	if p.six {
		domain, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return err
	}
	if p.six {
		err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE), unix.Bind(fd, &unix.SockaddrInet6{Addr: from.As16()}))
	} else {
		err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE), unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()}))
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	p.file = os.NewFile(uintptr(fd), "icmp")
	return nil
}

// ask sends one request. The kernel makes the checksum of ICMPv6 itself.
func (p *pinger) ask(to netip.Addr, size int) error {
	headers := ip4Header
	if p.six {
		headers = ip6Header
	}
	b := make([]byte, max(size-headers, icmpHeader))
	b[0] = 8
	if p.six {
		b[0] = 128
	}
	binary.BigEndian.PutUint16(b[4:], p.id)
	if !p.six {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) {
		if p.six {
			err = unix.Sendto(int(fd), b, 0, &unix.SockaddrInet6{Addr: to.As16()})
		} else {
			err = unix.Sendto(int(fd), b, 0, &unix.SockaddrInet4{Addr: to.As4()})
		}
	})
	return errors.Join(controlErr, err)
}

// listen takes note of who answers, for a while.
func (p *pinger) listen(ctx context.Context, answered map[netip.Addr]bool, want int) error {
	if err := p.file.SetReadDeadline(time.Now().Add(pingPause)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	b := make([]byte, 65536)
	for len(answered) < want {
		var size int
		var from unix.Sockaddr
		var recvErr error
		err := raw.Read(func(fd uintptr) bool {
			size, from, recvErr = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(recvErr, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case recvErr != nil:
			continue // such as that somebody is unreachable, who then does not answer
		}
		if a, ok := p.answer(b[:size], from); ok {
			answered[a] = true
		}
	}
	return nil
}

// answer is who sent an echo that was asked for.
func (p *pinger) answer(b []byte, from unix.Sockaddr) (a netip.Addr, ok bool) {
	reply := byte(0)
	switch f := from.(type) {
	case *unix.SockaddrInet4:
		a = netip.AddrFrom4(f.Addr)
		if len(b) < ip4Header {
			return a, false
		}
		b = b[min(len(b), int(b[0]&15)*4):] // a raw socket's packets come with their header
	case *unix.SockaddrInet6:
		a, reply = netip.AddrFrom16(f.Addr), 129
	}
	return a, len(b) >= icmpHeader && b[0] == reply && binary.BigEndian.Uint16(b[4:]) == p.id
}

// checksum is that of the Internet protocols, of an even number of bytes or an odd one.
func checksum(b []byte) uint16 {
	var sum uint32
	for pair := range slices.Chunk(b, 2) {
		sum += uint32(pair[0]) << 8
		if len(pair) == 2 {
			sum += uint32(pair[1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
