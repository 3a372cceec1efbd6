package etcd

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/raft/v3"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Errors of members, to be tested with errors.Is.
var (
	// ErrRemoved says that this member was removed from its cluster, and will never be part of it again.
	ErrRemoved = errors.New("store: etcd: this member was removed from its cluster")
	// ErrLocked says that the data keys are wrapped by a key that an operator has, and that was not given.
	ErrLocked = errors.New("store: etcd: the data keys are locked")
	// ErrWrongKey says that the data keys are wrapped by another key than the one that was given.
	ErrWrongKey = errors.New("store: etcd: the wrapping key is another one than the data keys are wrapped by")
	// ErrNotReady says that a member is still catching up.
	ErrNotReady = errors.New("store: etcd: the member is still catching up")
	// ErrQuorum says that what was asked for would leave too few members to decide anything.
	ErrQuorum = errors.New("store: etcd: too few managers would be left")
	// ErrDamaged says that a directory holds a member that cannot be started any more. Remove the directory and join again, or
	// restore a backup.
	ErrDamaged = errors.New("store: etcd: the member's data is damaged")
	// ErrNoMember says that there is no member of that name.
	ErrNoMember = errors.New("store: etcd: no such member")
)

// errAlone refuses what needs others.
var errAlone = errors.New("store: etcd: this member has no address for others, and stays alone")

// Member is one member of the cluster, as this one sees it.
type Member struct {
	// Name is the node's ID, ID etcd's in hexadecimal, URL where its fellows reach it.
	Name, ID, URL string
	// Voter is false for a learner, which is still catching up.
	Voter, Leader bool
	// Reachable tells whether this member heard of it within the last two seconds.
	Reachable bool
}

// Members are all members by name, as this member knows them, also while there is no majority. With endpoints of somebody's own,
// there are none.
func (s *Store) Members(context.Context) ([]Member, error) {
	if err := s.Err(); err != nil {
		return nil, err
	}
	if s.member == nil {
		return nil, nil
	}
	var members []Member
	for _, m := range s.member.server().Cluster().Members() {
		name, _ := nameOf(m)
		members = append(members, Member{
			Name: name, ID: m.ID.String(), URL: urlOf(m), Voter: !m.IsLearner,
			Leader:    m.ID == s.member.server().Leader(),
			Reachable: m.ID == s.member.server().MemberID() || s.member.fellows.reachable(m.ID),
		})
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return members, nil
}

func urlOf(m *membership.Member) string {
	if len(m.PeerURLs) == 0 {
		return ""
	}
	return m.PeerURLs[0]
}

// AddMember makes room for a member, as a learner, and returns what it starts from. While that has not been started, repeating it
// gives the same. One of that name that was started is replaced: whoever asks again has lost its data; where the others could not
// decide without it, the error is ErrQuorum.
func (s *Store) AddMember(ctx context.Context, name, url string) (v1.Membership, error) {
	if s.member == nil || s.member.handler == nil {
		return v1.Membership{}, errAlone
	}
	if _, err := types.NewURLs([]string{url}); err != nil || name == "" {
		return v1.Membership{}, fmt.Errorf("store: etcd: add member %q at %q: not a name and an address: %w", name, url, err)
	}
	var id [8]byte
	rand.Read(id[:])
	added := membership.Member{
		ID:             types.ID(binary.BigEndian.Uint64(id[:]) | 1), // etcd's own is the hash of URL and second
		RaftAttributes: membership.RaftAttributes{PeerURLs: []string{url}, IsLearner: true},
		Attributes:     membership.Attributes{ClientURLs: []string{unstarted + name}},
	}
	err := s.reconfigure(ctx, "add member "+name, func(ctx context.Context) (bool, error) {
		m := s.find(name)
		switch started := m != nil && m.Name != ""; {
		case m == nil:
			_, err := s.member.server().AddMember(ctx, added)
			return false, err
		case !started && urlOf(m) == url:
			added.ID = m.ID
			return true, nil
		case started && m.ID == added.ID:
			return true, nil
		}
		return false, s.remove(ctx, m)
	})
	if err != nil {
		return v1.Membership{}, err
	}
	return s.membership(added.ID), nil
}

// membership is what the member with that ID starts from.
func (s *Store) membership(id types.ID) v1.Membership {
	m := v1.Membership{MemberID: id.String(), Peers: make(map[string]string)}
	for _, other := range s.member.server().Cluster().Members() {
		name, _ := nameOf(other)
		m.Peers[name] = urlOf(other)
	}
	m.DataKeys, m.ActiveKey = s.seal.ring.share()
	return m
}

// find is the member of that name, or nil.
func (s *Store) find(name string) *membership.Member {
	for _, m := range s.member.server().Cluster().Members() {
		if known, _ := nameOf(m); known == name {
			return m
		}
	}
	return nil
}

// PromoteMember makes a learner a voter, which takes part in decisions. It fails with ErrNotReady while the learner is catching up
// or has not been started, and does nothing to a voter.
func (s *Store) PromoteMember(ctx context.Context, name string) error {
	if s.member == nil {
		return errAlone
	}
	return s.reconfigure(ctx, "promote member "+name, func(ctx context.Context) (bool, error) {
		m := s.find(name)
		switch {
		case m == nil:
			return false, ErrNoMember
		case !m.IsLearner:
			return true, nil
		case m.Name == "" || !s.member.fellows.reachable(m.ID):
			return false, ErrNotReady
		}
		_, err := s.member.server().PromoteMember(ctx, uint64(m.ID))
		if errors.Is(err, etcderrors.ErrLearnerNotReady) {
			return false, ErrNotReady
		}
		return false, err
	})
}

// RemoveMember takes a member out of the cluster; one that is not there is fine. Where it leads, another does first. It fails with
// ErrQuorum where the rest, as far as this member reaches it, could not decide anything.
func (s *Store) RemoveMember(ctx context.Context, name string) error {
	if s.member == nil {
		return errAlone
	}
	self := s.find(name)
	err := s.reconfigure(ctx, "remove member "+name, func(ctx context.Context) (bool, error) {
		m := s.find(name)
		if m == nil {
			return true, nil
		}
		return false, s.remove(ctx, m)
	})
	if err == nil || self == nil || self.ID != s.member.server().MemberID() {
		return err
	}
	// This member: etcd stops when it hears that it is out, whoever still asks it.
	if errors.Is(err, etcderrors.ErrStopped) {
		select {
		case <-s.Done():
			err = s.Err()
		case <-ctx.Done():
		}
	}
	if errors.Is(err, ErrRemoved) {
		return nil
	}
	return err
}

func (s *Store) remove(ctx context.Context, m *membership.Member) error {
	if err := s.mayRemove(ctx, m); err != nil {
		return err
	}
	if m.ID == s.member.server().Leader() {
		if err := s.member.handOver(ctx); err != nil {
			return err
		}
	}
	_, err := s.member.server().RemoveMember(ctx, uint64(m.ID))
	return err
}

// mayRemove refuses where the voters that answer now are no majority: of all, which is to decide it, or of those that are left. What
// was known of them a second ago may be wrong, and cannot be mended.
func (s *Store) mayRemove(ctx context.Context, m *membership.Member) error {
	if m.IsLearner {
		return nil
	}
	self := s.member.server().MemberID()
	var voters, others []*membership.Member
	for _, v := range s.member.server().Cluster().Members() {
		if !v.IsLearner {
			voters = append(voters, v)
			if v.ID != self {
				others = append(others, v)
			}
		}
	}
	name, _ := nameOf(m)
	if len(voters) < 2 {
		return fmt.Errorf("%w: %s is the last manager", ErrQuorum, name)
	}
	here := s.member.fellows.answerNow(ctx, others)
	here[self] = true
	now := 0
	for _, v := range voters {
		if here[v.ID] {
			now++
		}
	}
	left := now
	if here[m.ID] {
		left--
	}
	switch need, later := len(voters)/2+1, (len(voters)-1)/2+1; {
	case now < need:
		return fmt.Errorf("%w: %d of %d managers are needed to decide anything, and %d can be reached", ErrQuorum, need, len(voters), now)
	case left < later:
		return fmt.Errorf("%w: without %s, %d of %d managers are needed to decide anything, and %d can be reached", ErrQuorum, name, later, len(voters)-1, left)
	}
	return nil
}

// TransferLead makes the named voter the leader; where it is already, that is fine.
func (s *Store) TransferLead(ctx context.Context, name string) error {
	if s.member == nil {
		return errAlone
	}
	return s.reconfigure(ctx, "hand the lead to member "+name, func(ctx context.Context) (bool, error) {
		m := s.find(name)
		switch {
		case m == nil:
			return false, ErrNoMember
		case m.IsLearner:
			return false, ErrNotReady
		case m.ID == s.member.server().Leader():
			return true, nil
		}
		return false, s.member.moveLead(ctx, m.ID)
	})
}

// handOver makes any other voter that can be reached the leader, where this or another member leads.
func (m *member) handOver(ctx context.Context) error {
	leader := m.server().Leader()
	var err error
	for _, other := range m.server().Cluster().Members() {
		if other.IsLearner || other.ID == leader || other.ID != m.server().MemberID() && !m.fellows.reachable(other.ID) {
			continue
		}
		if err = m.moveLead(ctx, other.ID); err == nil {
			return nil
		}
	}
	return err
}

func (m *member) moveLead(ctx context.Context, to types.ID) error {
	// raft gives a transfer up after an election's time.
	ctx, cancel := context.WithTimeout(ctx, 2*election*time.Millisecond)
	defer cancel()
	return m.server().MoveLeader(ctx, uint64(m.server().Leader()), uint64(to))
}

const (
	// changePatience bounds a change of the members, changeTry one attempt: where another change is under way, raft drops a second
	// one without a word.
	changePatience = 15 * time.Second
	changeTry      = 3 * time.Second
)

// reconfigure looks and acts, again and again, until there is nothing more to do. It fails at once with what trying again will not
// change.
func (s *Store) reconfigure(ctx context.Context, what string, step func(context.Context) (done bool, err error)) error {
	ctx, cancel := s.joined(ctx)
	defer cancel()
	ctx, stop := context.WithTimeout(ctx, changePatience)
	defer stop()
	for {
		err := s.awaitLeader(ctx)
		if err == nil {
			err = s.catchUp(ctx)
		}
		done := false
		if err == nil {
			try, end := context.WithTimeout(ctx, changeTry)
			done, err = step(try)
			end()
		}
		switch {
		case done:
			return nil
		case err != nil && (!passes(err) || ctx.Err() != nil || errors.Is(err, errNoLeader)):
			return s.changeError(what, err)
		}
		if err != nil {
			sleep(ctx, leaderPoll)
		}
	}
}

// catchUp waits until this member knows what was decided before.
func (s *Store) catchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, changeTry)
	defer cancel()
	_, err := s.client.Get(ctx, nothing)
	return err
}

// passes tells whether the error is of the moment: no leader, another change under way.
func passes(err error) bool {
	for _, lasting := range []error{ErrQuorum, ErrNotReady, ErrNoMember, membership.ErrPeerURLexists, membership.ErrTooManyLearners,
		store.ErrClosed, etcderrors.ErrStopped} {
		if errors.Is(err, lasting) {
			return false
		}
	}
	return true
}

func (s *Store) changeError(what string, err error) error {
	if ended := s.Err(); ended != nil {
		return ended
	}
	switch {
	case errors.Is(err, membership.ErrPeerURLexists):
		return fmt.Errorf("store: etcd: %s: another member has that address; remove it first: %w", what, err)
	case !passes(err):
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%w: %s: %w", store.ErrUnavailable, what, err)
}

// dropped tells that raft did not take a proposal: it has not happened.
func dropped(err error) bool {
	return err != nil && (errors.Is(err, raft.ErrProposalDropped) || rpctypes.ErrorDesc(err) == raft.ErrProposalDropped.Error())
}
