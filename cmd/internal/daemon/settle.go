package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// hasMember tells whether there is the state of a member that has started: the log is there last.
func (d disk) hasMember() bool {
	found, err := filepath.Glob(d.path(storeName + "/etcd/member/wal/*.wal"))
	return err == nil && len(found) > 0
}

// unsettled tells whether the state is not what managers work on: a new swarm whose objects are not written, one that was brought
// back from a backup, one that lost its other managers, or one of the time before there were certificates.
func (n *node) unsettled() bool { return n.remembers().Step != stepNone }

// checkState refuses to go on as the manager of a swarm whose state is gone, where no other manager has it: an empty store would
// look like a new swarm, and its first decision would be that nothing is to run.
func (n *node) checkState() error {
	id := n.remembers()
	here := id.Member == memberStarted || id.Step == stepUpgrade || id.Step == stepForce
	if !here || len(n.d.o.EtcdEndpoints) > 0 || n.disk.hasMember() || len(n.otherManagers()) > 0 {
		return nil
	}
	return fmt.Errorf("%s says that this node manages a swarm, but the swarm's state is gone: put %s back from a backup, "+
		"or run swarmd --cleanup to start anew without the swarm", n.disk.path(identityName), n.disk.path(storeName))
}

// storeConfig is how the node's store is opened.
func (n *node) storeConfig(id identity, metrics *storeMetrics) etcd.Config {
	c := etcd.Config{Name: id.NodeID, Log: n.d.log}
	if metrics != nil {
		c.OnCommit = metrics.commit
	}
	n.mu.Lock()
	c.WrapKey = n.unlock
	n.mu.Unlock()
	if len(n.d.o.EtcdEndpoints) > 0 {
		c.Endpoints, c.KeyFile = n.d.o.EtcdEndpoints, n.d.path("keyring.json")
		return c
	}
	c.Dir = n.disk.path(storeName)
	if id.Raft != nil {
		c.SnapshotCount, c.KeepSnapshots = id.Raft.SnapshotInterval, id.Raft.KeepOldSnapshots
	}
	return c
}

func (n *node) closeStore(s *etcd.Store) {
	defer n.d.parts.begin("the state's end")()
	if err := s.Close(); err != nil {
		n.log.Warn("close the swarm's store", "err", err)
	}
}

// settle makes the state ready for managers: it opens it with this node alone, writes what is missing, and makes the node's first
// certificate. A crash at any moment leaves it to be done again, which changes nothing that is done already.
func (n *node) settle(ctx context.Context) error {
	id := n.remembers()
	if id.Step == stepRestore && !n.disk.hasMember() {
		if err := n.unpack(ctx, id); err != nil {
			return err
		}
	}
	if err := n.checkState(); err != nil {
		return err
	}
	c := n.storeConfig(id, nil)
	c.ForceNew = id.Step == stepForce
	s, err := etcd.Start(ctx, c)
	if err != nil {
		return fmt.Errorf("open the swarm's store: %w", err)
	}
	defer n.closeStore(s)
	if err := n.writeObjects(ctx, s, id); err != nil {
		return fmt.Errorf("write the swarm's objects: %w", err)
	}
	if err := n.certify(ctx, s, id); err != nil {
		return fmt.Errorf("make the node's certificate: %w", err)
	}
	err = n.change(func(id *identity) {
		id.Step, id.Init, id.Role, id.Member = stepNone, nil, v1.RoleManager, memberStarted
	})
	return errors.Join(err, n.disk.remove(archiveName))
}

// archiveName is the backup that a swarm is made of, for as long as that takes: until somebody brings the unlock key, maybe.
const archiveName = "restore.tar"

// dropArchive removes a backup that a crash left behind: it is as secret as all secrets.
func (d *Daemon) dropArchive(id *identity) error {
	names := []string{archiveName, archiveName + ".new"}
	if id != nil && id.Step == stepRestore {
		names = names[1:]
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !d.disk().exists(name) })
	if len(names) == 0 {
		return nil
	}
	return d.disk().remove(names...)
}

// unpack makes the state of a new member from the backup.
func (n *node) unpack(ctx context.Context, id identity) error {
	archive, err := os.Open(n.disk.path(archiveName))
	if err != nil {
		return fmt.Errorf("the backup to restore: %w", err)
	}
	defer archive.Close()
	if err := n.disk.remove(storeName); err != nil { // what a crash left
		return err
	}
	return etcd.Restore(ctx, n.storeConfig(id, nil), archive)
}

// writeObjects writes what the step needs, in one commit, unless it is there.
func (n *node) writeObjects(ctx context.Context, s *etcd.Store, id identity) error {
	snapshot, err := s.Snapshot(ctx, 0)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	request := id.Init
	if request == nil {
		request = &v1.InitRequest{}
	}
	var ops []store.Op
	if _, ok := store.Get(snapshot, v1.Clusters, v1.ClusterName); !ok && id.Step == stepFound {
		ops = append(ops, clusterOp(request.Spec, now))
	}
	if _, ok := store.Get(snapshot, v1.Authorities, v1.AuthorityName); !ok {
		more, err := authorityOps(request.Spec, now)
		if err != nil {
			return err
		}
		ops = append(ops, more...)
	}
	ops = append(ops, selfOps(snapshot, id.NodeID, request.Availability, now)...)
	if id.Step == stepRestore || id.Step == stepForce {
		ops = append(ops, demoteOthers(snapshot, id.NodeID, now)...)
	}
	if len(ops) == 0 {
		return nil
	}
	revision, err := s.Commit(ctx, store.Commit{Ops: ops})
	if err != nil {
		return err
	}
	_, err = s.Snapshot(ctx, revision)
	return err
}

func newMeta(name string, now time.Time) *v1.Meta {
	return &v1.Meta{Name: name, CreatedAt: now, UpdatedAt: now, Generation: 1}
}

// clusterOp writes the swarm's settings.
func clusterOp(spec *v1.ClusterSpec, now time.Time) store.Op {
	if spec == nil {
		spec = &v1.ClusterSpec{}
	}
	cluster := &v1.Cluster{Meta: v1.Meta{Name: v1.ClusterName}, Spec: spec}
	v1.Default(cluster)
	return store.Op{Kind: v1.KindCluster, ID: v1.ClusterName, Value: cluster.Spec, Meta: newMeta(v1.ClusterName, now), If: store.Absent()}
}

// authorityOps write a new CA, or the outside one of the settings, and new secrets.
func authorityOps(spec *v1.ClusterSpec, now time.Time) ([]store.Op, error) {
	if spec == nil {
		spec = &v1.ClusterSpec{}
	}
	a := &v1.AuthoritySpec{ClusterID: v1.NewID(), JoinSecrets: v1.JoinSecrets{Worker: ca.NewSecret(), Manager: ca.NewSecret()}}
	a.CA.External = spec.ExternalCAs
	if i := slices.IndexFunc(spec.ExternalCAs, func(e v1.ExternalCA) bool { return e.CACert != "" }); i >= 0 {
		a.CA.Cert = []byte(spec.ExternalCAs[i].CACert)
		if err := ca.CheckRoot(a.CA.Cert, nil, now); err != nil {
			return nil, fmt.Errorf("the external CA's certificate: %w", err)
		}
	} else {
		cert, key, err := ca.NewRoot(now)
		if err != nil {
			return nil, err
		}
		a.CA.Cert, a.CA.Key = cert, key
	}
	a.CA.Digest = ca.Digest(a.CA.Cert)
	if spec.AutoLock {
		a.UnlockKey = ca.NewUnlockKey()
	}
	return []store.Op{
		{Kind: v1.KindAuthority, ID: v1.AuthorityName, Value: a, Meta: newMeta(v1.AuthorityName, now), If: store.Absent()},
		{Kind: v1.KindAuthority, ID: v1.AuthorityName, Section: v1.SectionDesired, Value: &v1.AuthorityDesired{Cert: a.CA.Cert, Key: a.CA.Key, Digest: a.CA.Digest}, If: store.Always()},
	}, nil
}

// selfOps make this node a manager in the list of nodes.
func selfOps(s *store.Snapshot, id string, availability v1.NodeAvailability, now time.Time) []store.Op {
	if availability == "" {
		availability = v1.AvailabilityActive
	}
	if self, ok := store.Get(s, v1.Nodes, id); ok {
		if self.Spec.Role == v1.RoleManager {
			return nil
		}
		return []store.Op{roleOp(self, v1.RoleManager, now)}
	}
	index := freeIndex(s)
	return []store.Op{
		{Kind: v1.KindNode, ID: id, Value: &v1.NodeSpec{Role: v1.RoleManager, Availability: availability, Index: index}, Meta: newMeta("", now), If: store.Absent()},
		{Kind: v1.KindClaim, ID: v1.NodeIndexClaim(index), Value: &v1.ClaimSpec{Holder: id}, Meta: newMeta("", now), If: store.Absent()},
	}
}

func freeIndex(s *store.Snapshot) uint32 {
	for index := uint32(1); ; index++ {
		if _, taken := store.Get(s, v1.Claims, v1.NodeIndexClaim(index)); !taken {
			return index
		}
	}
}

// demoteOthers make workers of all other managers: their members are no part of the store any more.
func demoteOthers(s *store.Snapshot, id string, now time.Time) (ops []store.Op) {
	for o := range store.All(s, v1.Nodes) {
		if o.Meta.ID != id && o.Spec.Role == v1.RoleManager {
			ops = append(ops, roleOp(o, v1.RoleWorker, now))
		}
	}
	return ops
}

func roleOp(o *v1.Node, role v1.NodeRole, now time.Time) store.Op {
	spec, meta := *o.Spec, o.Meta
	spec.Role = role
	meta.UpdatedAt = now
	meta.Generation++
	return store.Op{Kind: v1.KindNode, ID: o.Meta.ID, Value: &spec, Meta: &meta, If: store.AtRevision(o.Meta.Revisions[v1.SectionSpec])}
}

// certify makes the node's certificate by the swarm's own authority, unless it has a good one of it.
func (n *node) certify(ctx context.Context, s *etcd.Store, id identity) error {
	snapshot, err := s.Snapshot(ctx, 0)
	if err != nil {
		return err
	}
	a, ok := store.Get(snapshot, v1.Authorities, v1.AuthorityName)
	if !ok || a.Spec == nil {
		return errors.New("the swarm has no certificate authority")
	}
	expiry := time.Duration(v1.DefaultNodeCertExpiry)
	if c, ok := store.Get(snapshot, v1.Clusters, v1.ClusterName); ok && c.Spec.NodeCertExpiry != nil {
		expiry = time.Duration(*c.Spec.NodeCertExpiry)
	}
	chain, key, err := n.sign(ctx, a.Spec, id.NodeID, expiry)
	if err != nil {
		return err
	}
	roots := v1.TrustedRoots(a)
	cert, err := ca.NewIdentity(chain, key, roots)
	if err != nil {
		return err
	}
	n.files.Lock()
	defer n.files.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.certs.save(chain, key, roots, n.unlock); err != nil {
		return err
	}
	if n.cert != nil && n.cert.Update(chain, key, roots) == nil {
		return nil
	}
	n.setCertificate(cert)
	return nil
}

// sign gets a certificate for this node as a manager.
func (n *node) sign(ctx context.Context, a *v1.AuthoritySpec, id string, expiry time.Duration) (chain, key []byte, err error) {
	if key, err = ca.NewKey(); err != nil {
		return nil, nil, err
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return nil, nil, err
	}
	var signer ca.Signer
	if len(a.CA.Key) > 0 {
		if signer, err = ca.NewSigner(a.CA.Cert, a.CA.Key, a.CA.Cross, time.Now); err != nil {
			return nil, nil, err
		}
	} else {
		var urls []string
		for _, e := range a.CA.External {
			urls = append(urls, e.URL)
		}
		signer = ca.NewExternal(urls, a.CA.Cert, a.CA.Cross, outsideTLS(a.CA.Cert))
	}
	chain, err = signer.Sign(ctx, csr, ca.Subject{ID: id, Role: ca.RoleManager, Cluster: a.ClusterID}, expiry)
	return chain, key, err
}

// outsideTLS is for calls to an external CA by a node that has no certificate yet.
func outsideTLS(root []byte) *tls.Config {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any: the CA's own is enough
	}
	pool.AppendCertsFromPEM(root)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
}
