package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// AgentOptions say what an agent of its own is to be.
type AgentOptions struct {
	// Host is the API server's socket, such as unix:///run/swarmd/swarmd.sock.
	Host string
	// Join is host:port of a manager to join over TLS instead, with the token in TokenFile, at the first start.
	Join, TokenFile string
	// AdvertiseAddr and DataPathAddr are as for a node that joins.
	AdvertiseAddr, DataPathAddr string
	// Node are the options that an agent shares with the daemon: Root, RuntimeDir, ContainerdAddress, Labels, InsecureRegistries, GenericResources,
	// Log.
	Node Options
}

// RunAgent works for the swarm whose API server is at the host, or that it joins, until ctx ends.
func RunAgent(ctx context.Context, o AgentOptions) error {
	if err := o.Node.complete(); err != nil {
		return err
	}
	d := newDaemon(o.Node)
	return d.parts.within(ctx, d.log, endWithin, func() error { return d.liveLone(ctx, o) })
}

// liveLone is all of an agent's life.
func (d *Daemon) liveLone(ctx context.Context, o AgentOptions) error {
	lock, err := acquireSoon(ctx, d.o.Root)
	if err != nil {
		return err
	}
	defer lock.release()
	defer d.close()
	defer d.parts.stop()
	if err := d.open(ctx); err != nil {
		return err
	}
	return d.runLone(ctx, o)
}

// runLone is what comes once the machine is in hand.
func (d *Daemon) runLone(ctx context.Context, o AgentOptions) error {
	id, err := loadIdentity(d.disk())
	if err != nil {
		return err
	}
	over := "" // the socket
	switch {
	case id == nil && o.Join != "":
		id, err = d.joinLone(ctx, o)
	case id == nil || !(certificates{d.disk()}).there():
		over = o.Host
		if id, err = d.register(ctx, o.Host, id); err == nil {
			err = id.placeAt(o.AdvertiseAddr, o.DataPathAddr)
		}
	}
	if err != nil {
		return err
	}
	n := d.newNode(id)
	n.lone = true
	if over != "" {
		if err := n.link.reach(over); err != nil {
			return err
		}
	}
	n.start(nil)
	defer n.stop()
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.failed:
		d.parts.stop()
		return err
	}
}

// placeAt has the node tell where it is reached, as far as that was given: over a socket nobody sees it.
func (id *identity) placeAt(advertise, data string) (err error) {
	if advertise != "" {
		if id.Addr, err = advertised(advertise, DefaultPort); err != nil {
			return err
		}
	}
	if data == "" {
		return nil
	}
	if id.DataAddr, err = addressOf(data, "--data-path-addr"); err != nil {
		return fmt.Errorf("data path address %w", err)
	}
	return nil
}

// maxTokenFile bounds what is read of a file with a token, in bytes.
const maxTokenFile = 4096

// joinLone joins a swarm over TLS.
func (d *Daemon) joinLone(ctx context.Context, o AgentOptions) (*identity, error) {
	info, err := os.Stat(o.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("the join token (--token-file): %w", err)
	}
	if info.Size() > maxTokenFile {
		return nil, fmt.Errorf("the join token (--token-file): %s has %d bytes, too many for a token", o.TokenFile, info.Size())
	}
	text, err := os.ReadFile(o.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("the join token (--token-file): %w", err)
	}
	r := v1.JoinRequest{RemoteAddrs: []string{o.Join}, Token: strings.TrimSpace(string(text)), AdvertiseAddr: o.AdvertiseAddr, DataPathAddr: o.DataPathAddr}
	token, err := checkJoin(&r)
	if err != nil {
		return nil, fmt.Errorf("join the swarm: %w", err)
	}
	p, err := findPlace("", r.AdvertiseAddr, r.DataPathAddr, r.RemoteAddrs[0])
	if err != nil {
		return nil, fmt.Errorf("join the swarm: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, enterWithin)
	defer cancel()
	a, err := enter(ctx, r, token, "", p)
	if err != nil {
		return nil, fmt.Errorf("join the swarm: %w", err)
	}
	if a.Role != v1.RoleWorker {
		a.undo(ctx)
		return nil, errors.New("join the swarm: this is an agent alone, which cannot be a manager: use the join token of workers, or swarmd")
	}
	id := &identity{NodeID: a.NodeID, Role: a.Role, Addr: p.addr, ListenAddr: p.listen, DataAddr: p.data}
	if err := d.settleIn(id, a); err != nil {
		a.undo(ctx)
		return nil, fmt.Errorf("join the swarm: %w", err)
	}
	return id, nil
}

// register makes the node known to the API server at a socket. Doing it again changes nothing.
func (d *Daemon) register(ctx context.Context, host string, id *identity) (*identity, error) {
	c, err := client.New(host)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if id == nil {
		id = &identity{NodeID: v1.NewID(), Role: v1.RoleWorker}
		if err := id.save(d.disk()); err != nil {
			return nil, err
		}
	}
	for {
		_, _, err := client.Create(ctx, c, v1.Nodes, &v1.Node{
			Meta: v1.Meta{ID: id.NodeID},
			Spec: &v1.NodeSpec{Role: id.Role, Availability: v1.AvailabilityActive},
		})
		var problem *v1.Problem
		var away *client.ConnectError
		switch {
		case err == nil, errors.As(err, &problem) && problem.Status == http.StatusConflict:
			return id, nil
		case !errors.As(err, &away):
			return nil, fmt.Errorf("join the swarm: %w", err)
		}
		d.log.Warn("cannot reach the API server; trying again", "err", err)
		if !sleep(ctx, time.Second) {
			return nil, context.Cause(ctx)
		}
	}
}
