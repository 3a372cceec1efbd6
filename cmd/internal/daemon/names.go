package daemon

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/swarmd/swarmd/pkg/agent"
	"github.com/swarmd/swarmd/pkg/dnsplugin"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

// underlay is this machine's address of the traffic between tasks; not valid where nobody said.
func (id *identity) underlay() netip.Addr {
	host := id.DataAddr
	if host == "" {
		host = id.Addr
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	addr, _ := netip.ParseAddr(host) // what is none is not valid
	return addr.Unmap()
}

// names is where the agent's names go, where tasks can ask for them: a resolver that works as long as the node does. The machine itself
// may ask too, and sees all of them.
func (n *node) names() agent.Names {
	if n.d.network == nil {
		return nil
	}
	machine := &nameservers{path: "/etc/resolv.conf"}
	server := dnsplugin.New(dnsplugin.Options{Listen: []netip.AddrPort{netplugin.Resolver}, Nameservers: machine.list,
		Keeper: n.d.kept, Host: &dnsplugin.Asker{Task: "this machine"}, Log: n.log, Registry: n.d.registry})
	n.work.Go(func() {
		if err := server.Run(n.ctx); err != nil && n.ctx.Err() == nil {
			n.d.fail(fmt.Errorf("resolver: %w", err))
		}
	})
	return server
}

// nameservers are the machine's own, read anew when the file changed.
type nameservers struct {
	path string

	mu     sync.Mutex
	looked time.Time
	of     time.Time // the file's
	found  []netip.AddrPort
}

const (
	// lookEvery bounds how often the file is looked at: questions are many, and wait for it.
	lookEvery = time.Second
	// maxNameservers are as many as the resolvers of others take.
	maxNameservers = 3
	// maxResolv bounds what is read of the file, in bytes.
	maxResolv = 64 << 10
)

func (n *nameservers) list() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.looked) < lookEvery {
		return n.found
	}
	n.looked = time.Now()
	info, err := os.Stat(n.path)
	if err != nil || info.Size() > maxResolv || info.ModTime().Equal(n.of) {
		return n.found // the last that was good
	}
	if text, err := os.ReadFile(n.path); err == nil {
		n.of, n.found = info.ModTime(), parseNameservers(string(text))
	}
	return n.found
}

// parseNameservers are those of a resolv.conf, but for the resolver of ours.
func parseNameservers(text string) []netip.AddrPort {
	var found []netip.AddrPort
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" || len(found) == maxNameservers {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil && addr != netplugin.Resolver.Addr() {
			found = append(found, netip.AddrPortFrom(addr, 53))
		}
	}
	return found
}
