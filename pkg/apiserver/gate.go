package apiserver

import (
	"context"
	"net/http"
	"sync"
)

// gate lets a bounded number in.
type gate struct {
	slots chan struct{}
	what  string
}

func newGate(n int, what string) gate { return gate{make(chan struct{}, n), what} }

// enter takes a place, or says that there is none.
func (g gate) enter() (leave func(), err error) {
	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots }, nil
	default:
		return nil, problemf(http.StatusTooManyRequests, "there are too many %s already (at most %d): try again later", g.what, cap(g.slots))
	}
}

// wait takes a place as soon as there is one.
func (g gate) wait(ctx context.Context) (leave func(), err error) {
	select {
	case g.slots <- struct{}{}:
		return func() { <-g.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (g gate) inside() int { return len(g.slots) }

// shared is a gate of which nobody alone takes more than a share.
type shared struct {
	gate
	each int

	mu   sync.Mutex
	have map[string]int // who is inside, and how often
}

func newShared(n, each int, what string) *shared {
	return &shared{gate: newGate(n, what), each: each, have: make(map[string]int)}
}

// enterAs takes a place for somebody, or says that there is none.
func (g *shared) enterAs(who string) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.have[who] >= g.each {
		return nil, problemf(http.StatusTooManyRequests, "there are too many %s of yours already (at most %d): try again later", g.what, g.each)
	}
	let, err := g.enter()
	if err != nil {
		return nil, err
	}
	g.have[who]++
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.have[who]--; g.have[who] == 0 {
			delete(g.have, who)
		}
		let()
	}), nil
}
