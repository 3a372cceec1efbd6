package etcd

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

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
	ErrWrongKey = errors.New("store: etcd: the data keys are wrapped by another key")
	// ErrNotReady says that a member is still catching up.
	ErrNotReady = errors.New("store: etcd: the member is not ready")
	// ErrQuorum says that what was asked for would leave too few members to decide anything.
	ErrQuorum = errors.New("store: etcd: too few members would be left")
)

// Peer is how a member and its fellows reach each other.
type Peer struct {
	// URL is https://host:port of this member, as others reach it.
	URL string
	// Certificate tells what this member shows its fellows, and the roots it trusts, in PEM. It is asked at each connection; the
	// roots count from the start on.
	Certificate func() (chain, key, roots []byte)
}

// Member is one member of the cluster, as this one sees it.
type Member struct {
	// Name is the node's ID, ID etcd's in hexadecimal, URL where its fellows reach it.
	Name, ID, URL string
	// Voter is false for a learner.
	Voter, Leader bool
	// Reachable tells whether this member hears of it.
	Reachable bool
}

// PeerPaths are what members ask each other for: where PeerHandler belongs.
var PeerPaths = []string{"/raft", "/raft/", "/members", "/members/promote/", "/leases", "/leases/internal", "/version", "/downgrade/enabled"}

func (s *Store) PeerHandler() http.Handler { return http.NotFoundHandler() }

func (s *Store) Members(ctx context.Context) ([]Member, error) { return nil, ErrNotReady }

func (s *Store) AddMember(ctx context.Context, name, url string) (v1.Membership, error) {
	return v1.Membership{}, ErrNotReady
}

func (s *Store) PromoteMember(ctx context.Context, name string) error { return ErrNotReady }

func (s *Store) RemoveMember(ctx context.Context, name string) error { return ErrNotReady }

func (s *Store) TransferLead(ctx context.Context, name string) error { return ErrNotReady }

func (s *Store) Grant(ctx context.Context, ttl time.Duration) (store.LeaseID, error) {
	return 0, ErrNotReady
}

func (s *Store) Renew(ctx context.Context, id store.LeaseID) error { return ErrNotReady }

func (s *Store) Revoke(ctx context.Context, id store.LeaseID) error { return ErrNotReady }

func (s *Store) Rewrap(wrapKey []byte) error { return ErrNotReady }

func (s *Store) Backup(ctx context.Context, w io.Writer) error { return ErrNotReady }

func Restore(ctx context.Context, c Config, archive io.Reader) error { return ErrNotReady }

func (s *Store) SnapshotTo(ctx context.Context, dir string, keep int) (path string, err error) {
	return "", ErrNotReady
}
