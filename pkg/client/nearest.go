package client

import (
	"context"
	"net"
	"slices"
	"time"
)

const (
	// headStart is how long one host has to take a connection before the next is tried beside it. A host that is cut off answers
	// nothing at all, and there may be several of them: one after the other they would take longer than a node without a session is
	// waited for.
	headStart = 200 * time.Millisecond
	// connectWithin is how long any of the hosts has.
	connectWithin = 2 * time.Second
)

// nearest is the hosts in the order in which to try them, the first of those that took a connection at the head. Where none did, it is
// the order without that.
func (c *Client) nearest(ctx context.Context) []*host {
	order := c.order()
	if len(order) < 2 {
		return order
	}
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	took := make(chan int, len(order)) // a host's place, or -1 for one that failed
	next := time.NewTimer(0)
	defer next.Stop()
	for begun, failed := 0, 0; failed < len(order); {
		select {
		case <-next.C:
			if begun < len(order) {
				go connect(ctx, order[begun], begun, took)
				begun++
				next.Reset(headStart)
			}
		case i := <-took:
			if i >= 0 {
				return append([]*host{order[i]}, slices.Delete(slices.Clone(order), i, i+1)...)
			}
			failed++
			next.Reset(0)
		case <-ctx.Done():
			return order
		}
	}
	return order
}

// connect finds out whether a host takes connections, and says its place then.
func connect(ctx context.Context, h *host, place int, took chan<- int) {
	conn, err := (&net.Dialer{}).DialContext(ctx, h.network, h.address)
	if err != nil {
		took <- -1
		return
	}
	conn.Close()
	took <- place
}
