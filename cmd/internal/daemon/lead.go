package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/controllers/member"
	"github.com/swarmd/swarmd/pkg/reconcile"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// lead runs the rules, and looks after the members, whenever this node leads.
func (m *manager) lead(ctx context.Context, s *etcd.Store, metrics *prometheus.Registry) {
	leadWhile(ctx, s, m.n.d, m.n.remembers().NodeID, metrics, func(ctx context.Context, lead store.Lead) error {
		if len(m.n.d.o.EtcdEndpoints) > 0 {
			<-ctx.Done() // whose members they are looks after them
			return context.Cause(ctx)
		}
		return m.tendMembers(ctx, s, lead)
	})
}

// leadWhile runs the rules whenever this process is the leader, until ctx ends, and something else beside them.
func leadWhile(ctx context.Context, s *etcd.Store, d *Daemon, name string, metrics prometheus.Registerer, beside func(context.Context, store.Lead) error) {
	awake := reconcile.NewAwake() // from before the campaign: who comes to lead after a stall stood still as well
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { awake.Run(ctx) })
	options := reconcile.Options{Logger: d.log, Registry: asRegistry(metrics), Awake: awake}
	for ctx.Err() == nil {
		lead, err := s.Campaign(ctx, name)
		if err == nil {
			d.log.Info("this node leads the swarm")
			group, working := errgroup.WithContext(ctx)
			group.Go(func() error { return controllers.Run(working, s, lead, options) })
			group.Go(func() error { return beside(working, lead) })
			err = group.Wait()
			resign(lead)
		}
		if ctx.Err() != nil {
			return
		}
		d.log.Warn("this node does not lead any more", "err", err)
		sleep(ctx, time.Second) // a store in trouble must not be asked without end
	}
}

func asRegistry(r prometheus.Registerer) *prometheus.Registry {
	registry, _ := r.(*prometheus.Registry)
	return registry
}

func resign(lead store.Lead) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = lead.Resign(ctx) // where it fails, the lease runs out
}

const (
	tendMembersEvery = time.Second
	memberWithin     = 10 * time.Second
)

// tendMembers makes the members of the managers' store what the list of nodes says, for as long as this node leads.
func (m *manager) tendMembers(ctx context.Context, s *etcd.Store, lead store.Lead) error {
	var last string
	for {
		again, err := m.tendMembersOnce(ctx, s, lead)
		if errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrClosed) || ctx.Err() != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		if text := fmt.Sprint(err); err != nil && text != last {
			m.n.log.Warn("the members of the managers' store are not what they should be; trying again", "err", err)
			last = text
		}
		if again {
			continue
		}
		select {
		case <-lead.Lost():
			return store.ErrFenced
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(tendMembersEvery): // etcd does not tell when a member is heard of
		}
	}
}

// tendMembersOnce tells whether it is to be called again at once.
func (m *manager) tendMembersOnce(ctx context.Context, s *etcd.Store, lead store.Lead) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, memberWithin)
	defer cancel()
	list, err := s.Members(ctx)
	if err != nil {
		return false, err
	}
	found := make([]member.Member, 0, len(list))
	for _, e := range list {
		found = append(found, member.Member{Name: e.Name, ID: e.ID, Addr: addrOf(e.URL), Voter: e.Voter, Leader: e.Leader, Reachable: e.Reachable})
	}
	snapshot, err := s.Snapshot(ctx, 0)
	if err != nil {
		return false, err
	}
	if ops := member.Statuses(found, snapshot); len(ops) > 0 {
		fence := lead.Fence()
		if _, err := s.Commit(ctx, store.Commit{Ops: ops, Fence: &fence}); err != nil {
			return false, err
		}
	}
	for _, a := range member.Decide(found, snapshot) {
		done, err := m.do(ctx, s, a)
		if err != nil {
			return again, err
		}
		again = again || done
	}
	return again, nil
}

// do does what was decided about a member, and tells whether it is done.
func (m *manager) do(ctx context.Context, s *etcd.Store, a member.Action) (done bool, err error) {
	switch a.Verb {
	case member.Promote:
		err = s.PromoteMember(ctx, a.Name)
		if errors.Is(err, etcd.ErrNotReady) {
			return false, nil
		}
	case member.Remove:
		err = s.RemoveMember(ctx, a.Name)
	case member.TransferLead:
		err = s.TransferLead(ctx, a.Name)
	case member.Wait:
		m.n.log.Debug("a member has to wait", "member", a.Name, "reason", a.Reason)
		return false, nil
	default:
		return false, fmt.Errorf("it is not known how to %s a member", a.Verb)
	}
	if err != nil {
		return false, fmt.Errorf("%s %s: %w", a.Verb, a.Name, err)
	}
	m.n.log.Info("changed the members of the managers' store", "what", a.Verb, "member", a.Name, "reason", a.Reason)
	return true, nil
}

// addrOf is host:port of a member's URL.
func addrOf(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" {
		return "" // that of a member that was always alone
	}
	return u.Host
}

// members is the store as the API has it for changes of the managers.
type members struct {
	*etcd.Store
	lock func(context.Context) error // has the keys on this disk locked as the swarm's settings say
}

// Backup implements apiserver.Membership. Who has just locked the swarm gets none that opens without the key.
func (s members) Backup(ctx context.Context, w io.Writer) error {
	if err := s.lock(ctx); err != nil {
		return fmt.Errorf("lock this manager's keys before the backup: %w", err)
	}
	return s.Store.Backup(ctx, w)
}

// Voters implements apiserver.Membership.
func (s members) Voters(ctx context.Context) ([]apiserver.Voter, error) {
	list, err := s.Members(ctx)
	if err != nil {
		return nil, err
	}
	var voters []apiserver.Voter
	for _, m := range list {
		if m.Voter {
			voters = append(voters, apiserver.Voter{Node: m.Name, Reachable: m.Reachable})
		}
	}
	return voters, nil
}
