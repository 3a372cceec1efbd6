// Package store keeps the swarm's desired and observed state: one revision, one watch, one immutable snapshot of all kinds.
//
// It owns the contract (Store), the snapshot and its indexes, the history that watches read, and the implementation in
// memory. store/etcd keeps the same contract on etcd, client over HTTPS; store/storetest holds all of them to it.
//
// It never decides anything: names, validation and who may write what belong to its callers.
package store

import (
	"context"
	"errors"
	"iter"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// MaxOps is how many operations one Commit may hold. Commits are atomic; callers with more to write cut it into parts
// that may stand alone (see CommitAll).
const MaxOps = 1000

// Errors of a Store, to be tested with errors.Is.
var (
	// ErrConflict says that a condition of a commit did not hold: someone else wrote in between. Nothing was written. Read
	// again, decide again.
	ErrConflict = errors.New("store: conflict")
	// ErrFenced says that the committer no longer leads. Nothing was written.
	ErrFenced = errors.New("store: no longer the leader")
	// ErrCompacted says that a watch cannot go on from where it is, because the history is gone. Take a snapshot and watch
	// from there.
	ErrCompacted = errors.New("store: history is compacted")
	// ErrTooLarge says that a commit holds too many operations or too much data.
	ErrTooLarge = errors.New("store: commit is too large")
	// ErrInvalid says that an operation is one that no state could make right. Nothing was written.
	ErrInvalid = errors.New("store: invalid operation")
	// ErrNoLease says that a lease has ended, or was never granted. Nothing was written.
	ErrNoLease = errors.New("store: no such lease")
	// ErrClosed says that the store was closed.
	ErrClosed = errors.New("store: closed")
	// ErrUnavailable says that the store could not be reached, or has no quorum; the commit may or may not have happened.
	ErrUnavailable = errors.New("store: unavailable")
)

// Store is the state of the swarm. It is safe for use by many goroutines.
type Store interface {
	// Snapshot is the newest snapshot that this process has, once it is at least at the revision; 0 is any. It waits
	// until then, or until ctx ends.
	Snapshot(ctx context.Context, atLeast int64) (*Snapshot, error)

	// Sync asks for the revision of the store that is current at some moment during the call, by a linearizable read.
	// Snapshot(ctx, Sync()) is never stale.
	Sync(ctx context.Context) (int64, error)

	// Commit writes all operations at one new revision, and returns it, or writes nothing. Errors: ErrConflict,
	// ErrFenced, ErrTooLarge, ErrNoLease, ErrUnavailable, ErrClosed, ctx's.
	Commit(ctx context.Context, c Commit) (int64, error)

	// Watch yields every batch of changes after the revision, in order and without gaps, as fast as the caller takes
	// them; a caller that is too slow gets ErrCompacted. The sequence ends after its first error, which is also ctx's.
	Watch(ctx context.Context, after int64) iter.Seq2[Batch, error]

	// Close ends all calls and watches with ErrClosed.
	Close() error
}

// Commit is a set of operations that happen together or not at all.
type Commit struct {
	Ops []Op
	// Fence, if set, makes the commit fail with ErrFenced unless its holder still leads.
	Fence *Fence
}

// Op writes or removes one section of an object, or removes a whole object.
type Op struct {
	Kind    v1.Kind
	ID      string
	Section v1.Section
	// Value is the section's new value, the typed pointer of the kind's Descriptor (such as *v1.TaskStatus); nil removes
	// the section. Removing an object's home section removes the object. The store keeps the pointer: it must not be
	// written through afterwards.
	Value any
	// Meta goes with a write of the home section, and only with that. Its ID and Revisions are ignored.
	Meta *v1.Meta
	// If is the condition on what is there before.
	If Condition
	// Lease, with a write of the home section, is what the object lives under: it is removed when the lease ends. A later write
	// of the home section puts it under that write's lease, or under none. Only kinds that have no other section take one.
	Lease LeaseID
}

// LeaseID names a lease of a Leaser; 0 is none.
type LeaseID int64

// Leaser gives leases. A store that elects has them too. A change of leader never shortens a lease, but may lengthen it.
type Leaser interface {
	// Grant is a lease that ends ttl after it was granted or last renewed. The ttl is rounded up to whole seconds, and to at least
	// 2 seconds.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	// Renew begins the lease's time anew. Error: ErrNoLease where it has ended.
	Renew(ctx context.Context, id LeaseID) error
	// Revoke ends the lease at once, and with it what lives under it. Revoking one that has ended does nothing.
	Revoke(ctx context.Context, id LeaseID) error
}

// Condition is what must hold of a section for an Op to happen. The zero Condition is Exists.
type Condition struct {
	revision int64
	check    check
}

type check uint8

const (
	checkExists check = iota
	checkAbsent
	checkRevision
	checkNothing
)

// Exists holds if the object (its home section) is there.
func Exists() Condition { return Condition{check: checkExists} }

// Absent holds if the object (its home section) is not there.
func Absent() Condition { return Condition{check: checkAbsent} }

// AtRevision holds if the object exists and the section was last written at the revision; 0 means that the section was
// never written.
func AtRevision(revision int64) Condition { return Condition{revision: revision, check: checkRevision} }

// Always holds.
func Always() Condition { return Condition{check: checkNothing} }

// Kind tells which condition it is, for implementations: exists, absent, revision or always.
func (c Condition) Kind() string {
	return [...]string{"exists", "absent", "revision", "always"}[c.check]
}

// Revision is that of AtRevision.
func (c Condition) Revision() int64 { return c.revision }

// ParseCondition makes a condition of what Kind and Revision gave.
func ParseCondition(kind string, revision int64) (Condition, bool) {
	switch kind {
	case "exists", "":
		return Exists(), true
	case "absent":
		return Absent(), true
	case "revision":
		return AtRevision(revision), true
	case "always":
		return Always(), true
	}
	return Condition{}, false
}

// Fence proves leadership: the key that the leader holds, and the revision at which it got it.
type Fence struct {
	Key      string `json:"key"`
	Revision int64  `json:"revision"`
}

// Batch is what one revision changed.
type Batch struct {
	Revision int64
	Changes  []Change
}

// Change is what a revision did to one object. Old is nil where it was created, New where it was removed.
type Change struct {
	Kind     v1.Kind
	ID       string
	Old, New v1.Object
}

// Elector gives the lead to one process at a time.
type Elector interface {
	// Campaign waits until the named candidate leads. The Lead ends when it is lost or resigned.
	Campaign(ctx context.Context, candidate string) (Lead, error)
}

// Lead is a time of leading.
type Lead interface {
	// Fence goes with every commit of the leader.
	Fence() Fence
	// Lost is closed when this process no longer leads.
	Lost() <-chan struct{}
	// Resign gives the lead up.
	Resign(ctx context.Context) error
}
