package daemon

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
)

// Join implements apiserver.Joiner.
func (d *Daemon) Join(ctx context.Context, r v1.JoinRequest) (v1.JoinResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside.Load() != nil {
		return v1.JoinResult{}, errInSwarm
	}
	token, err := checkJoin(&r)
	if err != nil {
		return v1.JoinResult{}, badRequest(err)
	}
	p, err := findPlace(r.ListenAddr, r.AdvertiseAddr, r.DataPathAddr, r.RemoteAddrs[0])
	if err != nil {
		return v1.JoinResult{}, badRequest(err)
	}
	// A worker does not listen, but may be made a manager at any time: it is now that a person looks.
	door, busy := listenAt(p.listen)
	if busy != nil && !errors.Is(busy, errInUse) {
		return v1.JoinResult{}, badRequest(busy)
	}
	admitting, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	a, err := enter(admitting, r, token, p.addr, p)
	if err != nil {
		shut(door)
		return v1.JoinResult{}, err
	}
	if busy != nil { // which of the two the node is to be, the token tells to managers alone
		if a.Role == v1.RoleManager {
			a.undo(ctx)
			return v1.JoinResult{}, badRequest(busy)
		}
		d.log.Warn("this node cannot become a manager until its port is free", "err", busy)
	}
	id := &identity{NodeID: a.NodeID, Role: a.Role, Addr: p.addr, ListenAddr: p.listen, DataAddr: p.data}
	if err := d.settleIn(id, a); err != nil {
		shut(door)
		a.undo(ctx)
		return v1.JoinResult{}, fmt.Errorf("the swarm admitted this node as %s, but what it needs cannot be written: %w", id.NodeID, errors.Join(err, d.disk().removeSwarm()))
	}
	n := d.newNode(id)
	n.wish = a.Role
	n.start(door)
	d.inside.Store(n)
	d.log.Info("this node joined a swarm", "node.id", id.NodeID, "role", id.Role, "addr", id.Addr)
	if err := n.await(admitting, n.hasArrived); err != nil {
		detail := "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use \"swarmctl info\" to see the current swarm status of your node."
		if text := n.info(ctx).Error; text != "" {
			detail += " So far: " + text
		}
		return v1.JoinResult{}, unavailable("Not there yet", detail)
	}
	return v1.JoinResult{NodeID: id.NodeID, Role: id.Role}, nil
}

// shut closes a port that was opened.
func shut(door net.Listener) {
	if door != nil {
		door.Close()
	}
}

// hasArrived tells whether the node takes part: a worker has a session, a manager serves the API. It is called with mu held.
func (n *node) hasArrived() bool {
	if n.identity.Role == v1.RoleManager {
		return n.manager != nil && n.manager.up()
	}
	return n.arrived
}

func checkJoin(r *v1.JoinRequest) (ca.Token, error) {
	if err := checkAvailability(r.Availability); err != nil {
		return ca.Token{}, err
	}
	if len(r.RemoteAddrs) == 0 {
		return ca.Token{}, errors.New("at least 1 remote address of a manager is needed, such as 192.168.99.100:2377")
	}
	for i, addr := range r.RemoteAddrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(addr, DefaultPort)
			if _, _, err := net.SplitHostPort(addr); err != nil {
				return ca.Token{}, fmt.Errorf("remote address %q: want HOST:PORT", addr)
			}
			r.RemoteAddrs[i] = addr
		}
	}
	if r.Token == "" {
		return ca.Token{}, errors.New("a join token is needed: see \"swarmctl swarm join-token worker\" on a manager")
	}
	return ca.ParseToken(r.Token)
}

// admitted is a node that the swarm knows of, and the machine does not yet.
type admitted struct {
	v1.Admission
	key []byte
	at  string
}

// enter has the managers let this machine in, unless it is in a place that the swarm has no use for.
func enter(ctx context.Context, r v1.JoinRequest, token ca.Token, advertised string, p place) (*admitted, error) {
	a, err := admit(ctx, r, token, advertised)
	if err != nil {
		return nil, err
	}
	if err := p.outside(a.GatewayPool, chooseOthers); err != nil {
		a.undo(ctx)
		return nil, badRequest(err)
	}
	return a, nil
}

// askAgainAfter is how long a manager that is not ready yet is left alone.
const askAgainAfter = 500 * time.Millisecond

// admit asks the managers to let this machine in, again for as long as there is time where one of them is not ready yet.
func admit(ctx context.Context, r v1.JoinRequest, token ca.Token, advertised string) (*admitted, error) {
	for {
		a, err := admitOnce(ctx, r, token, advertised)
		if err == nil || !errors.Is(err, errNotReady) || !sleep(ctx, askAgainAfter) {
			return a, err
		}
	}
}

// admitOnce asks one manager after the other.
func admitOnce(ctx context.Context, r v1.JoinRequest, token ca.Token, advertised string) (*admitted, error) {
	var errs []error
	for i, addr := range r.RemoteAddrs {
		// Each gets its share of the time that is left.
		deadline, _ := ctx.Deadline()
		trying, cancel := context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(r.RemoteAddrs)-i))
		a, err := admitAt(trying, addr, r, token, advertised)
		cancel()
		if err == nil {
			return a, nil
		}
		errs = append(errs, err)
		if status := client.Status(err); status != 0 && status != http.StatusServiceUnavailable {
			return nil, err // another manager would say the same
		}
	}
	return nil, errors.Join(errs...)
}

func admitAt(ctx context.Context, addr string, r v1.JoinRequest, token ca.Token, advertised string) (*admitted, error) {
	roots, err := client.FetchRoots(ctx, addr, token.Digest)
	if err != nil {
		return nil, explainJoin(ctx, addr, err)
	}
	key, err := ca.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return nil, err
	}
	a, err := client.Admit(ctx, addr, roots, v1.AdmissionRequest{Token: r.Token, CSR: csr, Availability: r.Availability, Addr: advertised})
	if err != nil {
		return nil, explainJoin(ctx, addr, err)
	}
	cert, err := ca.NewIdentity(a.Chain, key, a.Roots)
	if err != nil {
		return nil, fmt.Errorf("the certificate that came from %s: %w", addr, err)
	}
	done := &admitted{Admission: a, key: key, at: addr}
	if err := cert.CheckTime(time.Now()); err != nil {
		done.undo(ctx)
		return nil, badRequest(fmt.Errorf("the clock of this machine or that of the manager at %s is wrong: %w", addr, err))
	}
	return done, nil
}

// explainJoin says in words for people what came in the way of joining.
func explainJoin(ctx context.Context, addr string, err error) error {
	var problem *v1.Problem
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &problem) && problem.Type == v1.ProblemNotManager:
		return refusedAs(addr, problem)
	case errors.As(err, &problem):
		return err
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return badRequest(fmt.Errorf("the clock of this machine or that of the manager at %s is wrong: %w", addr, err))
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Cause(ctx)
	case ctx.Err() != nil:
		return unavailable("No answer", fmt.Sprintf("the manager at %s did not answer in time: see that it runs, and that TCP port %s of it can be reached from here", addr, portOf(addr)))
	}
	return unavailable("Cannot join", fmt.Sprintf("cannot join the swarm at %s: %v", addr, err))
}

// errNotReady says that a manager is on its way to be one.
var errNotReady = errors.New("the manager is not ready yet")

// refusedAs says of which node it is that it does not speak for the swarm: to whoever joins, "this node" is another.
func refusedAs(addr string, p *v1.Problem) error {
	if p.Detail != apiserver.NotReadyYet {
		return unavailable("Cannot join", fmt.Sprintf("cannot join the swarm at %s, which says: %s", addr, p.Detail))
	}
	why := unavailable("Not ready", fmt.Sprintf("the manager at %s is not ready yet: it is being prepared, or has trouble connecting to the other managers. "+
		"Try again in a moment, or at another manager", addr))
	return errors.Join(why, errNotReady)
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// undo tells the swarm that the node it admitted does not come.
func (a *admitted) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hearWithin)
	defer cancel()
	cert, err := ca.NewIdentity(a.Chain, a.key, a.Roots)
	if err != nil {
		return
	}
	c, err := client.Dial(client.Options{Hosts: []string{a.at}, TLS: cert.ClientTLS()})
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.Node(a.NodeID).Leave(ctx) // where it fails, the node stays in the list as one that never came
}

// settleIn writes what the node has to remember, its place in the swarm last.
func (d *Daemon) settleIn(id *identity, a *admitted) error {
	disk := d.disk()
	if err := disk.removeSwarm(); err != nil { // what a crash left of another try
		return err
	}
	if err := (certificates{disk}).save(a.Chain, a.key, a.Roots, nil); err != nil {
		return err
	}
	managers := a.Managers
	if !slices.ContainsFunc(managers, func(p v1.Peer) bool { return p.Addr == a.at }) {
		managers = append(managers, v1.Peer{Addr: a.at}) // it answers there, whatever it says of itself
	}
	if err := saveManagers(disk, managers); err != nil {
		return err
	}
	return id.save(disk)
}
