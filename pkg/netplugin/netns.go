package netplugin

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/google/nftables"
	mdlayher "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// threadNetNS is the network namespace of the calling thread; that of the process may be another one.
const threadNetNS = "/proc/thread-self/ns/net"

// nsfs is the file system type of namespace files, see statfs(2).
const nsfs = 0x6e736673

// namespace is an open network namespace with a route socket inside. The zero value is a closed one. Other sockets are opened
// when they are first needed, and kept: closing one to netfilter waits for the kernel to tidy up after a change, which takes
// a hundred times as long as the change. All but the route socket are for one goroutine at a time.
type namespace struct {
	*netlink.Handle
	name    string // for errors, such as "host" or "task x"
	foreign bool   // somebody's own: what is there is never replaced
	fd      netns.NsHandle
	tables  *nftables.Conn           // see firewall
	sockets map[int]*nl.SocketHandle // by protocol, see request
	passing []port                   // the latest sockets that were opened for one request each, and closed
	sweeper *sweeper                 // nil until it is needed
	going   map[uint32]bool          // links that are to go, by index, until the watcher knows that they went
	ignore  func()                   // ends what the watcher has in the namespace, if it is watched
}

// openNamespace opens the namespace at a path, such as a bind mount.
func openNamespace(name, path string) (*namespace, error) {
	fd, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace of %s at %s: %w", name, path, err)
	}
	h, err := netlink.NewHandleAt(fd, unix.NETLINK_ROUTE)
	if err != nil {
		_ = fd.Close()
		return nil, fmt.Errorf("open route socket in network namespace of %s: %w", name, err)
	}
	return &namespace{Handle: h, name: name, fd: fd, going: map[uint32]bool{}}, nil
}

// close lets go of the namespace, which stays if anything else holds it.
func (n *namespace) close() {
	if n == nil || n.Handle == nil {
		return
	}
	n.sweeper.close()
	n.reset()
	if n.ignore != nil {
		n.ignore() // a socket keeps the namespace
		n.ignore = nil
	}
	n.Handle.Close()
	_ = n.fd.Close()
	n.Handle = nil
}

// reset closes the sockets that are opened when they are needed. After an error there may be answers in them to what nobody
// waits for any more.
func (n *namespace) reset() {
	if n == nil {
		return
	}
	if n.tables != nil {
		_ = n.tables.CloseLasting()
	}
	for _, s := range n.sockets {
		s.Close()
	}
	n.tables, n.sockets = nil, nil
}

// within runs f on a thread that is in the namespace. f must not start goroutines that rely on it.
func (n *namespace) within(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.fd); err != nil {
			return fmt.Errorf("enter network namespace of %s: %w", n.name, err)
		}
		return f()
	})
}

// onThread runs f on a thread of its own, which may change its network namespace: it is put back afterwards. Where that
// fails the thread must not run anything else and ends with its goroutine.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		old, err := netns.GetFromPath(threadNetNS)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		err = f()
		if back := netns.Set(old); back != nil {
			err = errors.Join(err, fmt.Errorf("return to own network namespace: %w", back))
		} else {
			runtime.UnlockOSThread()
		}
		_ = old.Close()
		done <- err
	}()
	return <-done
}

// firewall is a connection to the namespace's nftables. What is queued on it is sent as one transaction by Flush.
func (n *namespace) firewall() (*nftables.Conn, error) {
	if n.tables != nil {
		return n.tables, nil
	}
	// The kernel queues an acknowledgement for every message of a transaction before the first can be read, and takes a
	// transaction as one datagram: the default buffers hold some hundred messages.
	buffers := func(c *mdlayher.Conn) error {
		return errors.Join(c.SetReadBuffer(8<<20), c.SetWriteBuffer(32<<20))
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(n.fd)), nftables.WithSockOptions(buffers), nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables of %s: %w", n.name, err)
	}
	n.tables = conn
	return conn, nil
}

// request sends one netlink message for which the netlink package has no call.
func (n *namespace) request(protocol int, req *nl.NetlinkRequest) error {
	_, err := n.query(protocol, req)
	return err
}

// query sends one, and returns what is answered.
func (n *namespace) query(protocol int, req *nl.NetlinkRequest) ([][]byte, error) {
	if n.sockets[protocol] == nil {
		s, err := nl.GetNetlinkSocketAt(n.fd, netns.None(), protocol)
		if err != nil {
			return nil, fmt.Errorf("open netlink socket in network namespace of %s: %w", n.name, err)
		}
		if n.sockets == nil {
			n.sockets = map[int]*nl.SocketHandle{}
		}
		n.sockets[protocol] = &nl.SocketHandle{Socket: s}
	}
	req.Sockets = n.sockets
	return req.Execute(protocol, 0)
}

// pinThread makes the calling thread's network namespace stay, at path.
func pinThread(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	_ = f.Close()
	if err := unix.Mount(threadNetNS, path, "", unix.MS_BIND, ""); err != nil {
		_ = os.Remove(path)
		return fmt.Errorf("mount network namespace at %s: %w", path, err)
	}
	return nil
}

// pinned tells whether a namespace is mounted at path. After a reboot there are only the empty files.
func pinned(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Type == nsfs
}

// unpin removes what pinThread made, also where it was made several times. A path that is not there is no error.
func unpin(path string) error {
	for pinned(path) {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount network namespace at %s: %w", path, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
