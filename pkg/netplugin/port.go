package netplugin

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// port is the address of a netlink socket in a namespace; the kernel puts it into what it tells of a request that came by it.
type port struct {
	protocol int
	id       uint32
}

// asked tells whether a message is of a request of this process. Sockets are opened as they are needed: one that is not known is
// looked for.
func (o *observed) asked(space *namespace, m *syscall.NetlinkMessage) bool {
	p := port{unix.NETLINK_ROUTE, m.Header.Pid}
	if m.Header.Type>>8 == subsystemTables {
		p.protocol = unix.NETLINK_NETFILTER
	}
	if slices.Contains(space.passing, p) {
		return true
	}
	known, seen := o.ours[p]
	if seen {
		return known
	}
	if ports, err := space.ownPorts(); err == nil {
		o.ours = ports
	}
	known = o.ours[p]
	if o.ours == nil {
		o.ours = map[port]bool{}
	}
	o.ours[p] = known // also that it is not ours, so that it is looked for once
	return known
}

// ownPorts are the netlink sockets that this process has in the namespace.
func (n *namespace) ownPorts() (map[port]bool, error) {
	inodes, err := ownSockets()
	if err != nil {
		return nil, err
	}
	var table []byte
	if err := n.within(func() (err error) {
		table, err = os.ReadFile("/proc/thread-self/net/netlink")
		return err
	}); err != nil {
		return nil, fmt.Errorf("list netlink sockets in %s: %w", n.name, err)
	}
	ports := map[port]bool{}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line) // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
		if len(f) < 10 || !inodes[f[9]] {
			continue
		}
		protocol, protocolErr := strconv.Atoi(f[1])
		id, idErr := strconv.ParseUint(f[2], 10, 32)
		if protocolErr == nil && idErr == nil {
			ports[port{protocol, uint32(id)}] = true
		}
	}
	return ports, nil
}

// ownSockets are the inodes of this process's open sockets.
func ownSockets() (map[string]bool, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	inodes := map[string]bool{}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			if inode, is := strings.CutPrefix(to, "socket:["); is {
				inodes[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	return inodes, nil
}
