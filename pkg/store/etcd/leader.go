package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

const (
	// leaderPoll is how often a member is asked who leads: an atomic read. etcd tells of a new leader, but not of none.
	leaderPoll = 20 * time.Millisecond
	// leaderPatience is how long a call waits for a leader: several elections.
	leaderPatience = 10 * time.Second
	// lostAfter is how long a call goes on once another member leads than when it began. What was under way is done by then, or went
	// down with the old leader; etcd would wait for six seconds.
	lostAfter = 400 * time.Millisecond
)

var (
	// errLeaderChanged ends calls of which nobody knows what became.
	errLeaderChanged = errors.New("the leading manager changed meanwhile")
	errNoLeader      = errors.New("no manager leads")
)

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// awaitLeader waits until there is a leader, so that what is proposed then reaches it.
func (s *Store) awaitLeader(ctx context.Context) error {
	if s.member == nil || s.member.server().Leader() != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, leaderPatience, fmt.Errorf("%w: %s", errNoLeader, s.member.missing()))
	defer cancel()
	for s.member.server().Leader() == 0 {
		select {
		case <-time.After(leaderPoll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// propose calls what writes, again where raft certainly did not take it because the lead is changing hands.
func (s *Store) propose(ctx context.Context, call func(context.Context) error) error {
	ctx, done := s.underLeader(ctx)
	defer done()
	until := time.Now().Add(leaderPatience)
	for {
		if err := s.awaitLeader(ctx); err != nil {
			return err
		}
		err := call(ctx)
		switch {
		case err != nil && errors.Is(context.Cause(ctx), errLeaderChanged):
			return errLeaderChanged
		case !dropped(err) || time.Now().After(until):
			return err
		}
		sleep(ctx, leaderPoll)
	}
}

// read calls what only reads, again where the lead changed hands meanwhile.
func (s *Store) read(ctx context.Context, call func(context.Context) error) error {
	until := time.Now().Add(leaderPatience)
	for {
		if err := s.awaitLeader(ctx); err != nil {
			return err
		}
		err := call(ctx)
		if !errors.Is(err, rpctypes.ErrLeaderChanged) && !errors.Is(err, rpctypes.ErrNoLeader) || time.Now().After(until) {
			return err
		}
		sleep(ctx, leaderPoll)
	}
}

// underLeader is a context that ends soon after another member has come to lead.
func (s *Store) underLeader(ctx context.Context) (context.Context, context.CancelFunc) {
	term := s.term.Load()
	if term == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(*term, func() { cancel(errLeaderChanged) })
	return ctx, func() { stop(); cancel(nil) }
}

// watchTerm ends each term's context a while after the next has begun here: by then this member has all that the leader before had
// told a majority of.
func (s *Store) watchTerm() {
	server := s.member.server()
	next := func() context.CancelFunc {
		ctx, end := context.WithCancel(s.ctx)
		s.term.Store(&ctx)
		return end
	}
	term, end := server.Term(), next()
	ticker := time.NewTicker(leaderPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.ctx.Done():
			end()
			return
		}
		if now := server.Term(); now != term {
			time.AfterFunc(lostAfter, end)
			term, end = now, next()
		}
	}
}

// ready calls what reads at the start, until it works or ctx ends: a majority may come and go while several managers start.
func (s *Store) ready(ctx context.Context, call func(context.Context) error) error {
	for {
		err := s.read(ctx, call)
		if err == nil || s.member == nil || !wanting(err) {
			return err
		}
		s.cfg.Log.Warn("waiting for other managers: "+s.member.missing(), "err", err)
		select {
		case <-s.member.server().StopNotify():
			return s.member.whyStopped(ctx)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(leaderPatience / 10):
		}
	}
}

// wanting tells that an error is one of too few members.
func wanting(err error) bool {
	for _, e := range []error{rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
		rpctypes.ErrTimeoutWaitAppliedIndex, rpctypes.ErrLeaderChanged, rpctypes.ErrNoLeader, rpctypes.ErrNotLeader, errNoLeader,
		errLeaderChanged} {
		if errors.Is(err, e) {
			return true
		}
	}
	return dropped(err)
}
