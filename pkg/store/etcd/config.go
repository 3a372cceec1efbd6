package etcd

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Config says which etcd to use, and how. The zero values of all but one of Dir and Endpoints are sensible.
type Config struct {
	// Dir is the directory of the member that runs inside this process. It is made where it is missing, for this user alone.
	Dir string
	// Name is the member's name in the cluster, the node's ID; default "swarmd". A member keeps the name that it was made with.
	Name string
	// Peer is how other members are reached, and reach this one. Where it is nil, the member is alone.
	Peer *Peer
	// Join, from AddMember, is what a member that is new starts from. Where Dir holds a member already, it is ignored. Where the
	// members have changed since, the start fails; ask for it again.
	Join *v1.Membership
	// ForceNew makes the member in Dir the only one of its cluster, with all that it knows. What only others had is lost, and they
	// must never be started again with what they have.
	ForceNew bool
	// SnapshotCount is how many entries of the log are between two snapshots of it; default 2,000. It bounds what a start reads.
	SnapshotCount uint64
	// KeepSnapshots is how many of those snapshots are kept beside the newest; default 4.
	KeepSnapshots uint64

	// Endpoints are those of an etcd of somebody's own, which is used instead of a member inside this process.
	Endpoints []string
	// TLS is for the endpoints.
	TLS *tls.Config
	// Username and Password are for endpoints that ask for them.
	Username, Password string

	// KeyFile holds the data keys, each wrapped by the wrapping key; default "keyring.json" in Dir. All processes that use
	// one etcd need the same keys. It is made at the first start.
	KeyFile string
	// WrapKey, of 32 bytes, wraps the data keys. Where it is nil it lives with the node, in the file KeyFile + ".key".
	WrapKey []byte

	// LeaseTTL is how long a leader that is not heard of stays the leader; default 10 s, and at least 2 s.
	LeaseTTL time.Duration
	// KeepHistory is how long old revisions are kept in etcd, where no more than 200,000 keys and 256 MB were written since; default
	// 5 minutes, negative leaves compaction to others.
	KeepHistory time.Duration

	// Log is where the store tells of its life; default slog.Default().
	Log *slog.Logger
	// OnCommit, if set, is called after every commit, on the committer's goroutine. It must not block.
	OnCommit func(CommitStats)

	quota    int64         // of the member's file, in bytes; default memberQuota
	maintain time.Duration // between two looks at history and space; default maintainEvery
}

// CommitStats is what became of one commit.
type CommitStats struct {
	Ops  int
	Took time.Duration
	// Err is what Commit returned.
	Err error
}

// The defaults of the log's snapshots.
const (
	snapshotEvery = 2000
	keepSnapshots = 4
)

func (c *Config) complete() error {
	if (c.Dir == "") == (len(c.Endpoints) == 0) {
		return errors.New("store: etcd: one of a data directory and endpoints is needed, and not both")
	}
	if c.Name == "" {
		c.Name = "swarmd"
	}
	if c.KeyFile == "" {
		if c.Dir == "" {
			return errors.New("store: etcd: with endpoints of your own, a file for the data keys must be named")
		}
		c.KeyFile = filepath.Join(c.Dir, "keyring.json")
	}
	if c.SnapshotCount == 0 {
		c.SnapshotCount = snapshotEvery
	}
	if c.KeepSnapshots == 0 {
		c.KeepSnapshots = keepSnapshots
	}
	if c.WrapKey != nil && len(c.WrapKey) != keySize {
		return errors.New("store: etcd: the wrapping key must have 32 bytes")
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = 10 * time.Second
	}
	c.LeaseTTL = max(c.LeaseTTL, 2*time.Second)
	if c.KeepHistory == 0 {
		c.KeepHistory = 5 * time.Minute
	}
	if c.maintain == 0 {
		c.maintain = maintainEvery
	}
	if c.quota == 0 {
		c.quota = memberQuota
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return nil
}
