// Package daemon wires the rooms into what runs on a machine: the state of one node, from idle over "swarm init" to a
// manager that also works, and back.
//
// It owns the data directory, the socket, the order of starting and stopping, and who supervises whom. It decides nothing
// about tasks: that is the controllers' and the agent's.
package daemon
