package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// relay is a slow link: it takes each frame from one link and gives it to the other some time later. The kernel's own way
// (netem) is not in every kernel. It works as long as this process does.
type relay struct {
	sockets [2]int
	delay   time.Duration
	ended   chan struct{}
	done    sync.WaitGroup
}

// relayed is how many frames may be on their way in one direction; more are dropped, as a link does. relayBuffer is how many bytes of them
// the kernel keeps while the relay does not get to run: the link is slow then, but loses nothing.
const (
	relayed     = 4096
	relayBuffer = 16 << 20
)

// Delay makes everything to and from a host take so much longer on each way; 0 makes it as fast as before.
func (l *Lab) Delay(h *Host, d time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.bridge.Do(func() error {
		if err := l.stopDelay(h); err != nil || d == 0 {
			return err
		}
		r, err := startRelay(h.number, d)
		if err == nil {
			l.delay[h.Name] = r
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("lab: delay the link of %s: %w", h.Name, err)
	}
	return nil
}

// stopDelay plugs the host's link into the bridge again.
func (l *Lab) stopDelay(h *Host) error {
	r := l.delay[h.Name]
	if r == nil {
		return nil
	}
	delete(l.delay, h.Name)
	r.stop()
	slow, err := netlink.LinkByName(portName(h.number))
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(slow); err != nil {
		return err
	}
	link, err := netlink.LinkByName(fastName(h.number))
	if err != nil {
		return err
	}
	if err := netlink.LinkSetDown(link); err != nil {
		return err
	}
	if err := netlink.LinkSetName(link, portName(h.number)); err != nil {
		return err
	}
	if err := netlink.LinkSetARPOn(link); err != nil {
		return err
	}
	return toBridge(link)
}

func fastName(number int) string { return fmt.Sprintf("fast%d", number) }

// startRelay unplugs the host's link from the bridge and plugs in another under its name, so that what is cut stays cut; the frames
// go from one to the other by way of the relay. The thread is in the bridge's namespace.
func startRelay(number int, d time.Duration) (*relay, error) {
	fast, err := netlink.LinkByName(portName(number))
	if err != nil {
		return nil, err
	}
	// Down, for a link that is up keeps its name; without ARP, or this namespace would answer for the bridge's address.
	for _, change := range []func() error{
		func() error { return netlink.LinkSetNoMaster(fast) },
		func() error { return netlink.LinkSetDown(fast) },
		func() error { return netlink.LinkSetName(fast, fastName(number)) },
		func() error { return netlink.LinkSetARPOff(fast) },
		func() error { return netlink.LinkSetUp(fast) },
	} {
		if err := change(); err != nil {
			return nil, err
		}
	}
	slow := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: portName(number)}, PeerName: fmt.Sprintf("slow%d", number)}
	if err := netlink.LinkAdd(slow); err != nil {
		return nil, err
	}
	end, err := netlink.LinkByName(slow.PeerName)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(netlink.LinkSetARPOff(end), netlink.LinkSetUp(end), toBridge(slow)); err != nil {
		return nil, err
	}
	return newRelay(fast.Attrs().Index, end.Attrs().Index, d)
}

func newRelay(a, b int, d time.Duration) (*relay, error) {
	r := &relay{delay: d, ended: make(chan struct{})}
	for i, index := range []int{a, b} {
		s, err := packetSocket(index)
		if err != nil {
			if i > 0 {
				_ = unix.Close(r.sockets[0])
			}
			return nil, err
		}
		r.sockets[i] = s
	}
	r.carry(r.sockets[0], r.sockets[1])
	r.carry(r.sockets[1], r.sockets[0])
	return r, nil
}

// packetSocket takes and gives whole frames of a link, with what the kernel has yet to do to them (checksums, cutting into
// segments) told in front of each.
func packetSocket(index int) (int, error) {
	all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = errors.Join(
		unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptPacketMreq(s, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}),
		unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, relayBuffer),
		unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}), // to see that it is to end
		unix.Bind(s, &unix.SockaddrLinklayer{Ifindex: index, Protocol: uint16(all)}),
	)
	if err != nil {
		_ = unix.Close(s)
		return 0, fmt.Errorf("packet socket: %w", err)
	}
	return s, nil
}

// frame is one that is on its way.
type frame struct {
	due  time.Time
	data []byte
}

func (r *relay) carry(from, to int) {
	way := make(chan frame, relayed)
	r.done.Go(func() {
		defer close(way)
		buf := make([]byte, 1<<17)
		for {
			select {
			case <-r.ended:
				return
			default:
			}
			n, err := unix.Read(from, buf)
			if err != nil || n == 0 {
				continue // nothing came for a while
			}
			select {
			case way <- frame{time.Now().Add(r.delay), append([]byte(nil), buf[:n]...)}:
			default:
			}
		}
	})
	r.done.Go(func() {
		for f := range way {
			time.Sleep(time.Until(f.due))
			_, _ = unix.Write(to, f.data) // a link that is gone or full loses frames
		}
	})
}

func (r *relay) stop() {
	close(r.ended)
	r.done.Wait()
	for _, s := range r.sockets {
		_ = unix.Close(s)
	}
}
