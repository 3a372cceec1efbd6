// Package client talks to swarmd API servers: the resources with their types, the daemon's own doors, joining a swarm, the
// agent's side of a session, and the same Store that the server has, over HTTP.
//
// It owns connections, the choice among several managers, retries of reading, and the translation of problem documents into
// errors. It never decides, never keeps state but the snapshot of a Store that was asked for, and never repeats a write on
// its own once it may have reached a server: a write whose answer was lost may have happened.
package client

import (
	"crypto/tls"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// DefaultHost is where a daemon listens unless it is told otherwise.
const DefaultHost = "unix:///run/swarmd/swarmd.sock"

// Options say where a swarm's managers are, and who calls.
type Options struct {
	// Hosts are host:port of managers, reached over TLS, or unix:///path of a daemon's socket. Without any it is DefaultHost.
	Hosts []string
	// TLS is used for host:port, and must be there for them. See ca.Identity.ClientTLS and ca.UserTLS.
	TLS *tls.Config
	// Token, where there is one, is sent with every request.
	Token string
	// Startup, where there is one, is how long this process took to be there, which sessions tell. It must not change.
	Startup func() time.Duration
}

// Client is a connection to a swarm's API, or to one daemon's. It is safe for use by many goroutines; make one and keep it.
type Client struct {
	options Options
	nodes   sync.Map // of *NodeClient, by the node's ID

	mu      sync.Mutex
	hosts   []*host
	current *host // one of hosts: where the next request goes
}

// New is a client of the daemon at the host: unix:///path, or http://host:port on loopback. It does not connect yet.
// An empty host is DefaultHost.
func New(host string) (*Client, error) { return Dial(Options{Hosts: []string{host}}) }

// Dial is a client of the managers at several hosts. It does not connect yet. It stays with a host that works, and goes on to
// another one when that cannot be reached, is lost or is no manager. The request that met with it is then made once more, if it
// only reads, or cannot have reached the host that failed.
func Dial(o Options) (*Client, error) {
	if len(o.Hosts) == 0 {
		o.Hosts = []string{DefaultHost}
	}
	c := &Client{options: o}
	for _, name := range o.Hosts {
		h, err := newHost(name, o.TLS)
		if err != nil {
			return nil, err
		}
		c.hosts = append(c.hosts, h)
	}
	c.current = c.hosts[0]
	return c, nil
}

// SetHosts replaces the hosts from now on; those that are no hosts are left out, and nothing changes if none is left. Requests
// under way go on.
func (c *Client) SetHosts(hosts []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var next []*host
	for _, name := range hosts {
		same := func(h *host) bool { return h.name == name }
		if slices.ContainsFunc(next, same) {
			continue
		}
		if i := slices.IndexFunc(c.hosts, same); i >= 0 {
			next = append(next, c.hosts[i])
		} else if h, err := newHost(name, c.options.TLS); err == nil {
			next = append(next, h)
		}
	}
	if len(next) == 0 {
		return
	}
	for _, h := range c.hosts {
		if !slices.Contains(next, h) {
			h.refresh()
		}
	}
	c.hosts = next
	if !slices.Contains(next, c.current) {
		c.current = pick(next) // those who lose their manager together do not all choose the same
	}
}

// pick is one of the hosts. A socket of this machine is chosen only where there is nothing else: whoever is on the same machine is lost
// together with it.
func pick(hosts []*host) *host {
	if far := slices.DeleteFunc(slices.Clone(hosts), (*host).socket); len(far) > 0 {
		hosts = far
	}
	return hosts[rand.N(len(hosts))]
}

// Refresh lets every request from now on use a new connection, and so the certificate and roots that TLS has now. Requests
// under way go on over their old connections, which are then closed.
func (c *Client) Refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		h.refresh()
	}
}

// Close closes idle connections. Calls that are under way go on.
func (c *Client) Close() { c.Refresh() }

// Host is where the next request goes, as it was given.
func (c *Client) Host() string { return c.at().name }

func (c *Client) at() *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// order is the hosts in the order in which to try them: the one in use, and then the others in any order, a socket last.
func (c *Client) order() []*host {
	c.mu.Lock()
	defer c.mu.Unlock()
	order := slices.Clone(c.hosts)
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	place := func(h *host) int {
		switch {
		case h == c.current:
			return 0
		case h.socket():
			return 2
		}
		return 1
	}
	slices.SortStableFunc(order, func(a, b *host) int { return place(a) - place(b) })
	return order
}

// use stays with the host, if it still is one of the hosts.
func (c *Client) use(h *host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Contains(c.hosts, h) {
		c.current = h
	}
}

// leave goes on to another host, if there is one and this is still the one in use. Where a connection was lost all those to
// the host are dropped: they may be dead without anybody having noticed.
func (c *Client) leave(h *host, lost bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if lost {
		h.refresh()
	}
	if c.current != h || len(c.hosts) < 2 {
		return
	}
	c.current = pick(slices.DeleteFunc(slices.Clone(c.hosts), func(other *host) bool { return other == h }))
}

// Elsewhere has the next request go to another machine, where one that goes to this one would be the next.
func (c *Client) Elsewhere() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.socket() {
		c.current = pick(c.hosts)
	}
}
