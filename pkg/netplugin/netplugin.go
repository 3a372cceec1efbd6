// Package netplugin makes this machine's part of the swarm's network match a Config: router namespaces, links, addresses,
// routes, neighbours and nftables, by netlink alone.
//
// It owns what it creates, tells it by its names, adopts it after a restart, repairs it, and prunes what the Config no
// longer has. It never decides an address, never reads the store, and never touches a link, route or table of anybody
// else.
package netplugin

import (
	"context"
	"net/netip"
)

// Config is the whole desired network of this machine.
type Config struct {
	// Node is this node's index in the swarm, from 1.
	Node uint32
	// Gateway is this node's block of gateway addresses, and Pool what the blocks of all nodes are cut from. The first
	// usable address of the block is not given to tasks.
	Gateway netip.Prefix
	Pool    netip.Prefix
	// Tasks are those that need a link, in no order.
	Tasks []TaskLink
	// Published are the ports that this machine answers on. A port and protocol is there once.
	Published []PublishedPort
}

// TaskLink is one task's connection to the gateway network: a namespace with a default route out.
type TaskLink struct {
	// ID is the task's.
	ID string
	// Address is the task's gateway address, in Config.Gateway.
	Address netip.Addr
	// Sysctls are net.* settings for the namespace.
	Sysctls map[string]string
}

// PublishedPort leads to the containers behind it, evenly, with the client's address kept.
type PublishedPort struct {
	// Protocol is tcp, udp or sctp.
	Protocol string
	Port     uint16
	Backends []netip.AddrPort
}

// Network is a machine's network, to be brought to a Config.
type Network interface {
	// Apply makes the machine match the Config and returns once it does. Called again with the same Config it does
	// nothing. On an error what could be done is done, and the next Apply goes on. Calls are made one after another.
	Apply(ctx context.Context, c Config) error
	// Resync makes the next Apply read back all that is there, and repair it, instead of trusting that it is as it was left.
	Resync()
	// Namespace is the path of a task's network namespace, which is there after an Apply that had the task.
	Namespace(task string) string
	// Addresses are those of the tasks whose links this machine has, also from before a restart.
	Addresses(ctx context.Context) (map[string]netip.Addr, error)
	// Teardown removes all of it.
	Teardown(ctx context.Context) error
}
