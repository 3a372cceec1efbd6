package apiserver

import (
	"math"
	"net/http"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// What a node may have written, in bytes: so much at once, and so much a second from then on.
const (
	allowanceBurst  = 1 << 20
	allowanceSecond = 64 << 10
	// freeStep is what the next state of a task may take without being counted. There are few of them in a task's life, and how many
	// tasks a node has is not the node's to say: ten thousand may start at once.
	freeStep = 512
	// openingCost is that of a session's beginning, which writes under a lease.
	openingCost = 4 << 10
	// maxAllowances is how many nodes' are remembered.
	maxAllowances = 65_536
)

// allowances are what nodes may still have written. Without them the certificate of one worker would be enough to fill the store of the
// whole swarm.
type allowances struct {
	now func() time.Time

	mu sync.Mutex
	of map[string]*allowance
}

type allowance struct {
	left float64
	at   time.Time
}

func newAllowances(now func() time.Time) *allowances {
	return &allowances{now: now, of: make(map[string]*allowance)}
}

// take takes from a node's allowance, or says that there is not enough left. What is negative is given back.
func (a *allowances) take(node string, bytes int) error {
	if bytes == 0 {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	one := a.of[node]
	if one == nil {
		if len(a.of) >= maxAllowances {
			a.forget(now)
		}
		one = &allowance{left: allowanceBurst, at: now}
		a.of[node] = one
	}
	one.left = min(allowanceBurst, one.left+max(now.Sub(one.at).Seconds(), 0)*allowanceSecond)
	one.at = now
	if float64(bytes) > one.left {
		wait := math.Ceil((min(float64(bytes), allowanceBurst) - one.left) / allowanceSecond)
		return problemf(http.StatusTooManyRequests, "node %s says more than is kept of one node (%d bytes at once, %d a second): "+
			"try again in %.0f s, or say less at a time", clip(node), allowanceBurst, allowanceSecond, max(wait, 1))
	}
	one.left -= float64(bytes)
	return nil
}

// forget lets go of those that are full again.
func (a *allowances) forget(now time.Time) {
	for node, one := range a.of {
		if one.left+now.Sub(one.at).Seconds()*allowanceSecond >= allowanceBurst {
			delete(a.of, node)
		}
	}
}

// cost is what a status counts for that takes the place of another.
func cost(known, next *v1.TaskStatus) int {
	size := statusSize(next)
	if known == nil || next.State > known.State {
		return max(size-freeStep, 0)
	}
	return size
}
