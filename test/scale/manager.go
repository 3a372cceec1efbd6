package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// manager is what a manager's process runs.
type manager struct {
	store  *counted
	server *apiserver.Server
	http   *http.Server
	cancel context.CancelFunc
	done   sync.WaitGroup
	fail   context.CancelCauseFunc // ends the run
}

// backing is a store that can elect.
type backing interface {
	store.Store
	store.Elector
	store.Leaser
}

func startManager(ctx context.Context, o options, dir string, log *slog.Logger, fail context.CancelCauseFunc) (*manager, error) {
	var s backing = store.NewMemory()
	if !o.memory {
		config := etcd.Config{Dir: dir, Log: log}
		if o.churn > 0 {
			// Or what is bounded would fill up all the time that a run takes: the history, and raft's log between two snapshots.
			config.KeepHistory, config.SnapshotCount = time.Second, 100
		}
		e, err := etcd.Start(ctx, config)
		if err != nil {
			return nil, err
		}
		s = e
	}
	ctx, cancel := context.WithCancel(ctx)
	m := &manager{store: &counted{backing: s}, cancel: cancel, fail: fail}
	if m.server = apiserver.New(apiserver.Options{Log: log}); o.churn == 0 {
		m.store.times = make(map[int64]time.Time)
		m.server.Attach(m.store, apiserver.Backing{}) // openGate does it with more
	}
	m.http = apiserver.NewHTTPServer(m.server.Handler(), log)
	listener, err := net.Listen("unix", o.socket)
	if err != nil {
		cancel()
		return nil, errors.Join(err, s.Close())
	}
	m.done.Go(func() {
		if err := m.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			m.fail(fmt.Errorf("API server: %w", err))
		}
	})
	m.done.Go(func() {
		lead, err := s.Campaign(ctx, "scale")
		if err == nil {
			err = controllers.Run(ctx, m.store, lead, reconcile.Options{Logger: log})
		}
		if ctx.Err() == nil {
			m.fail(fmt.Errorf("rules: %w", err))
		}
	})
	return m, nil
}

// stop ends everything.
func (m *manager) stop() error {
	m.cancel()
	m.server.Close()
	err := m.http.Close()
	m.done.Wait()
	return errors.Join(err, m.store.Close())
}

// counted is a store that counts what is written, and remembers when.
type counted struct {
	backing
	commits, ops, byRules, byAgents atomic.Int64

	mu    sync.Mutex
	times map[int64]time.Time // of each revision; nil where nobody asks
}

// counts are how many operations were committed so far.
type counts struct{ commits, ops, byRules, byAgents int64 }

func (c *counted) counts() counts {
	return counts{c.commits.Load(), c.ops.Load(), c.byRules.Load(), c.byAgents.Load()}
}

// Commit implements store.Store.
func (c *counted) Commit(ctx context.Context, commit store.Commit) (int64, error) {
	revision, err := c.backing.Commit(ctx, commit)
	if err != nil {
		return revision, err
	}
	now := time.Now()
	c.mu.Lock()
	if c.times != nil {
		c.times[revision] = now
	}
	c.mu.Unlock()
	c.commits.Add(1)
	c.ops.Add(int64(len(commit.Ops)))
	for i := range commit.Ops {
		switch op := &commit.Ops[i]; {
		case op.Kind != v1.KindTask:
		case op.Section == v1.SectionStatus:
			c.byAgents.Add(1)
		default:
			c.byRules.Add(1)
		}
	}
	return revision, nil
}

// MaxOps is how many operations fit into one commit.
func (c *counted) MaxOps() int {
	if m, ok := c.backing.(interface{ MaxOps() int }); ok {
		return m.MaxOps()
	}
	return store.MaxOps
}

// committed is when a revision was committed.
func (c *counted) committed(revision int64) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.times[revision]
	return at, ok
}
