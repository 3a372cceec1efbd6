package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/swarmd/swarmd/pkg/store"
)

const (
	// memberTxnOps allows for a commit of store.MaxOps operations with two conditions each, and the fence.
	memberTxnOps = 2*store.MaxOps + 1
	// memberRequestBytes is the most that etcd recommends for one entry of its log; seven of the largest configs.
	memberRequestBytes = 10 << 20
	// walSegment is preallocated, twice at the first start: 64 MB each by default, which is most of a small manager's disk.
	// With 16 MB a full load of writes still takes seconds to fill one, and filling one costs one more fsync.
	walSegment = 16 << 20
	// catchUp is how many entries of the log stay in memory for slow followers, each of up to a whole commit; etcd's
	// 5,000 would be a gigabyte after a scale to many tasks.
	catchUp = 200
	// snapshotEvery bounds what a start reads of the log: so many entries.
	snapshotEvery = 2000
	quota         = 8 << 30
	startTimeout  = time.Minute
)

// shrinkWAL sets etcd's only knob for it, a package variable.
var shrinkWAL = sync.OnceFunc(func() { wal.SegmentSizeBytes = walSegment })

// member is the etcd member inside this process. It opens no port and no socket: it is called directly, and until there
// is a second manager it has nobody to talk to.
type member struct {
	lock    *os.File // of the directory
	etcd    *embed.Etcd
	client  *clientv3.Client
	closing atomic.Bool
}

func startMember(ctx context.Context, c *Config) (*member, error) {
	shrinkWAL()
	m := new(member)
	cfg, err := memberConfig(c, m)
	if err != nil {
		return nil, err
	}
	if m.lock, err = lockDir(filepath.Dir(cfg.Dir)); err != nil {
		return nil, err
	}
	m.closing.Store(true) // what a failing start says is in its error
	m.etcd, err = embed.StartEtcd(cfg)
	if err != nil {
		m.lock.Close()
		return nil, fmt.Errorf("store: etcd: start the member in %s: %w", c.Dir, err)
	}
	m.closing.Store(false)
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-m.etcd.Server.ReadyNotify():
	case <-m.etcd.Server.StopNotify():
		err = errors.New("it stopped")
	case <-timeout.C:
		err = fmt.Errorf("not ready after %v; is there a quorum?", startTimeout)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: etcd: start the member in %s: %w", c.Dir, err), m.close())
	}
	m.client = v3client.New(m.etcd.Server)
	return m, nil
}

func memberConfig(c *Config, m *member) (*embed.Config, error) {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: etcd: %w", err)
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = c.Name, filepath.Join(dir, "etcd")
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertiseClientUrls = nil
	// A member must have a peer URL; nobody can reach this one, and nobody has to. Before another manager may join, it is
	// changed to the real one.
	alone := url.URL{Scheme: "unix", Host: "alone"}
	cfg.AdvertisePeerUrls = []url.URL{alone}
	cfg.InitialCluster = c.Name + "=" + alone.String()
	cfg.ClusterState = embed.ClusterStateFlagNew
	cfg.EnableGRPCGateway = false
	cfg.MaxTxnOps, cfg.MaxRequestBytes, cfg.QuotaBackendBytes = memberTxnOps, memberRequestBytes, quota
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = snapshotEvery, catchUp
	cfg.AutoCompactionRetention = "0" // see maintain
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newLogger(c.Log, &m.closing))
	return cfg, nil
}

// lockDir refuses a directory that is in use. etcd itself would wait for it without end.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("store: etcd: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("store: etcd: the directory %s is in use by another process", dir)
		}
		return nil, fmt.Errorf("store: etcd: lock %s: %w", path, err)
	}
	return f, nil
}

func (m *member) server() *etcdserver.EtcdServer { return m.etcd.Server }

func (m *member) close() error {
	m.closing.Store(true)
	var err error
	if m.client != nil {
		err = m.client.Close()
	}
	m.etcd.Close()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, m.lock.Close())
}
