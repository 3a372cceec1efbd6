package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
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
	// memberQuota is how large the member's file may become: etcd recommends no more.
	memberQuota = 8 << 30

	// heartbeat and election, in milliseconds, are how soon a dead leader is replaced: within twice the election time.
	heartbeat = 100
	election  = 700
	// maxLearners is how many managers may join at the same time.
	maxLearners = 9
	// tellEvery is how often a member that waits for a majority says so.
	tellEvery = 5 * time.Second
)

// shrinkWAL sets etcd's only knob for it, a package variable.
var shrinkWAL = sync.OnceFunc(func() { wal.SegmentSizeBytes = walSegment })

// alone is the peer URL of a member without a Peer. A member must have one; nobody can reach this, and nobody has to.
var alone = url.URL{Scheme: "unix", Host: "alone"}

// member is the etcd member inside this process. It opens no port and no socket: it is called directly, and other members reach it
// by its handler.
type member struct {
	lock    *os.File // of the directory
	etcd    *embed.Etcd
	client  *clientv3.Client
	files   *peerFiles   // nil without a Peer
	fellows *fellows     // nil without a Peer
	handler http.Handler // nil without a Peer
	logging logging
	abrupt  bool // closes without handing the lead over, for tests
}

// abandoned keeps the locks of directories that etcd panicked in: what it opened there is open until the process ends.
var abandoned struct {
	sync.Mutex
	locks []*os.File
}

// startMember starts what is in the directory, or a new member, and returns once it is part of a cluster that has a majority. It
// waits for that as long as ctx lasts.
func startMember(ctx context.Context, c *Config) (_ *member, err error) {
	shrinkWAL()
	m := new(member)
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("store: etcd: %w", err)
	}
	if m.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if err := sweep(dir); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "etcd")
	there, err := examine(data)
	if err != nil {
		return nil, err
	}
	if err := c.prepare(there); err != nil {
		return nil, err
	}
	start := m.run
	if !there.member && c.Join != nil {
		start = m.join(ctx)
	}
	if err := start(c, data, there); err != nil {
		return nil, fmt.Errorf("store: etcd: start the member in %s: %w", c.Dir, err)
	}
	if err := m.await(ctx, c); err != nil {
		return nil, fmt.Errorf("store: etcd: start the member in %s: %w", c.Dir, err)
	}
	m.client = v3client.New(m.server())
	if err := m.announce(ctx, c); err != nil {
		return nil, fmt.Errorf("store: etcd: start the member in %s: %w", c.Dir, err)
	}
	return m, nil
}

// prepare makes what a member needs before it may begin.
func (c *Config) prepare(there found) error {
	switch {
	case there.member && c.ForceNew && there.learner:
		return errors.New("store: etcd: this member was still catching up, and cannot be the only one: use one of the others, or a backup")
	case !there.member && c.ForceNew:
		return fmt.Errorf("store: etcd: there is no member in %s to begin anew with", c.Dir)
	case !there.member && c.Join != nil:
		return c.takeKeys(c.Join)
	}
	return nil
}

// run starts etcd, and lets others reach it.
func (m *member) run(c *Config, data string, there found) (err error) {
	if c.Peer != nil {
		if m.files, err = newPeerFiles(c.Peer); err != nil {
			return err
		}
	}
	cfg, err := m.config(c, data, there)
	if err != nil {
		return err
	}
	m.logging.closing.Store(true) // what a failing start says is in its error
	err = m.launch(cfg)
	m.logging.closing.Store(false)
	if err != nil {
		return err
	}
	if own := m.server().MemberID().String(); !there.member && c.Join != nil && own != c.Join.MemberID {
		return fmt.Errorf("it is member %s for those it asked, and %s for those that added it", own, c.Join.MemberID)
	}
	if c.Peer == nil {
		return nil
	}
	held := newPeerConns()
	if m.fellows, err = newFellows(m.server(), c.Peer, held.reset); err != nil {
		return err
	}
	m.handler = newPeerHandler(cfg.GetLogger(), m.server(), m.fellows, held, c.Peer.Fellow)
	if c.Peer.Serve != nil {
		c.Peer.Serve(m.handler)
	}
	return nil
}

// join runs a new member, again for a while where it fails: etcd asks any of the others who the members are, and one that has not
// heard yet of this one may answer, or may take it for one before it at the same address.
func (m *member) join(ctx context.Context) func(*Config, string, found) error {
	return func(c *Config, data string, there found) error {
		for until := time.Now().Add(leaderPatience); ; sleep(ctx, 5*leaderPoll) {
			err := m.run(c, data, there)
			if err == nil || errors.Is(err, ErrDamaged) {
				return err
			}
			// Nothing was there before, and nothing of a member that never ran may stay.
			if failed := errors.Join(m.halt(), os.RemoveAll(data)); failed != nil {
				return errors.Join(err, failed)
			}
			m.etcd, m.fellows, m.files = nil, nil, nil
			if ctx.Err() != nil || time.Now().After(until) {
				return err
			}
		}
	}
}

// launch is etcd's start. What etcd would end the process for is an error.
func (m *member) launch(cfg *embed.Config) (err error) {
	m.logging.starting.Store(true)
	defer m.logging.starting.Store(false)
	defer func() {
		if r := recover(); r != nil {
			abandoned.Lock()
			abandoned.locks = append(abandoned.locks, m.lock)
			abandoned.Unlock()
			m.etcd, m.lock = nil, nil
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	m.etcd, err = embed.StartEtcd(cfg)
	return err
}

func (m *member) config(c *Config, data string, there found) (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = c.Name, data
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertiseClientUrls = nil
	own := alone
	if c.Peer != nil {
		u, err := url.Parse(c.Peer.URL)
		if err != nil || u.Scheme != "https" || u.Port() == "" {
			return nil, fmt.Errorf("the address %q for other members is not of the form https://host:port", c.Peer.URL)
		}
		own, cfg.PeerTLSInfo = *u, m.files.tlsInfo()
	}
	cfg.AdvertisePeerUrls = []url.URL{own}
	cfg.InitialCluster = c.Name + "=" + own.String()
	cfg.ClusterState = embed.ClusterStateFlagNew
	cfg.InitialClusterToken = rand.Text() // else all swarms' clusters and members had the same IDs
	if !there.member && c.Join != nil {
		cfg.ClusterState, cfg.InitialCluster = embed.ClusterStateFlagExisting, initialCluster(c.Join.Peers)
	}
	cfg.ForceNewCluster = c.ForceNew
	cfg.EnableGRPCGateway = false
	cfg.TickMs, cfg.ElectionMs, cfg.PreVote = heartbeat, election, true
	// etcd's own check counts who was started and who is connected to this member, in a way that refuses to remove a dead one of
	// three at times. RemoveMember has its own, and members are added as learners, who take no part in decisions.
	cfg.StrictReconfigCheck = false
	cfg.MaxLearners = maxLearners
	cfg.MaxTxnOps, cfg.MaxRequestBytes, cfg.QuotaBackendBytes = memberTxnOps, memberRequestBytes, c.quota
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = c.SnapshotCount, catchUp
	cfg.MaxSnapFiles = uint(c.KeepSnapshots) + 1
	cfg.AutoCompactionRetention = "0" // see maintain
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newLogger(c.Log, &m.logging))
	return cfg, nil
}

// initialCluster is etcd's text for who the members are.
func initialCluster(peers map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		parts = append(parts, name+"="+peers[name])
	}
	return strings.Join(parts, ",")
}

// await waits until the member takes part, and tells what it waits for.
func (m *member) await(ctx context.Context, c *Config) error {
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		select {
		case <-m.server().ReadyNotify():
			return nil
		case <-m.server().StopNotify():
			return m.whyStopped(ctx)
		case <-ctx.Done():
			return fmt.Errorf("%w: %s", context.Cause(ctx), m.missing())
		case <-ticker.C:
			c.Log.Warn("waiting for other managers: " + m.missing())
		}
	}
}

// announce tells the other members where this one is reached from now on, where that has changed.
func (m *member) announce(ctx context.Context, c *Config) error {
	self := m.server().Cluster().Member(m.server().MemberID())
	if c.Peer == nil || self == nil || urlOf(self) == c.Peer.URL {
		return nil
	}
	self.PeerURLs = []string{c.Peer.URL}
	for {
		try, cancel := context.WithTimeout(ctx, changeTry)
		_, err := m.server().UpdateMember(try, *self)
		cancel()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, membership.ErrPeerURLexists):
			return fmt.Errorf("another member has the address %s: %w", c.Peer.URL, err)
		case !passes(err) || ctx.Err() != nil:
			return fmt.Errorf("tell other managers the address %s: %w", c.Peer.URL, err)
		}
		c.Log.Warn("waiting to tell other managers this one's address: "+m.missing(), "err", err)
		sleep(ctx, leaderPoll)
	}
}

// missing tells how far the member is from a majority.
func (m *member) missing() string {
	var away []string
	voters, here := 0, 0
	for _, other := range m.server().Cluster().Members() {
		if other.IsLearner {
			continue
		}
		voters++
		if other.ID == m.server().MemberID() || m.fellows.reachable(other.ID) {
			here++
			continue
		}
		name, _ := nameOf(other)
		away = append(away, name+" at "+strings.Join(other.PeerURLs, " "))
	}
	slices.Sort(away)
	if len(away) == 0 {
		return fmt.Sprintf("all of %d can be reached, and have not agreed on a leader yet", voters)
	}
	return fmt.Sprintf("%d of %d are needed, and %d can be reached; not there: %s", voters/2+1, voters, here, strings.Join(away, ", "))
}

// whyStopped is the reason why etcd stopped by itself.
func (m *member) whyStopped(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*askTimeout)
	defer cancel()
	if m.server().IsIDRemoved(uint64(m.server().MemberID())) || m.fellows != nil && m.fellows.sayRemoved(ctx) {
		return ErrRemoved
	}
	return fmt.Errorf("%w: the etcd member inside this process stopped", store.ErrUnavailable)
}

// sweep removes what a crash left half done beside the member: a copy of the database may be as large as that, and a backup that was
// restored has what opens it.
func sweep(dir string) error {
	var left []string
	for _, pattern := range []string{copyTemp, backupTemp, restoreTemp} {
		names, _ := filepath.Glob(filepath.Join(dir, pattern))
		left = append(left, names...)
	}
	if len(left) == 0 {
		return nil
	}
	var errs []error
	for _, name := range left {
		errs = append(errs, os.RemoveAll(name))
	}
	if err := errors.Join(append(errs, syncDir(dir))...); err != nil {
		return fmt.Errorf("store: etcd: remove what a crash left: %w", err)
	}
	return nil
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

// leads tells whether this member leads the cluster, as far as it knows.
func (m *member) leads() bool { return m.server().Leader() == m.server().MemberID() }

// close ends the member. Where it leads and others can, one of them does from then on.
func (m *member) close() error {
	err := m.halt()
	if m.lock != nil {
		err = errors.Join(err, m.lock.Close())
	}
	return err
}

// halt is all of close but the lock.
func (m *member) halt() error {
	m.logging.closing.Store(true)
	var errs []error
	if m.client != nil {
		if err := m.client.Close(); !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	if m.etcd != nil {
		m.stop()
	}
	if m.fellows != nil {
		m.fellows.close()
	}
	if m.files != nil {
		errs = append(errs, m.files.close())
	}
	return errors.Join(errs...)
}

// stop stops etcd. Its own way of handing the lead over waits for seconds where nobody can take it.
func (m *member) stop() {
	if m.leads() && !m.abrupt {
		ctx, cancel := context.WithTimeout(context.Background(), changeTry)
		_ = m.handOver(ctx) // else the others elect
		cancel()
	}
	m.server().HardStop()
	m.etcd.Close()
}
