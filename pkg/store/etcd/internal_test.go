package etcd

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

func open(t *testing.T, c Config) *Store {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s, err := Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func secret(id, data string, c store.Condition) store.Op {
	return store.Op{Kind: v1.KindSecret, ID: id, Section: v1.SectionSpec, Value: &v1.SecretSpec{Data: []byte(data)}, Meta: &v1.Meta{Name: id}, If: c}
}

func commit(t *testing.T, s *Store, ops ...store.Op) int64 {
	t.Helper()
	revision, err := s.Commit(t.Context(), store.Commit{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// foreign runs an etcd of somebody else's: on a socket, with etcd's own limits.
func foreign(t *testing.T) *clientv3.Client {
	t.Helper()
	t.Chdir(t.TempDir()) // a socket's path must be short
	cfg := embed.NewConfig()
	cfg.Dir, cfg.Name = "data", "foreign"
	socket := url.URL{Scheme: "unix", Path: "c.sock"}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{socket}, []url.URL{socket}
	peer := url.URL{Scheme: "unix", Host: "p"}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = nil, []url.URL{peer}
	cfg.InitialCluster = "foreign=" + peer.String()
	quiet := new(logging)
	quiet.closing.Store(true)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newLogger(slog.New(slog.DiscardHandler), quiet))
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix:c.sock"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func remote(t *testing.T) Config {
	return Config{Endpoints: []string{"unix:c.sock"}, KeyFile: t.TempDir() + "/keys.json", Log: slog.New(slog.DiscardHandler)}
}

func TestForeignLimits(t *testing.T) {
	foreign(t)
	s := open(t, remote(t))
	if n := s.MaxOps(); n < 30 || n > 128 {
		t.Errorf("MaxOps is %d where etcd takes 128", n)
	}
	ops := make([]store.Op, 300)
	for i := range ops {
		ops[i] = secret(strings.Repeat("x", i+1), "", store.Absent())
	}
	_, err := s.Commit(t.Context(), store.Commit{Ops: ops})
	if !errors.Is(err, store.ErrTooLarge) || !strings.Contains(err.Error(), "--max-txn-ops") {
		t.Errorf("300 operations: %v", err)
	}
	big := secret("big", strings.Repeat("x", 1<<20), store.Absent())
	_, err = s.Commit(t.Context(), store.Commit{Ops: []store.Op{big, secret("big2", strings.Repeat("y", 1<<20), store.Absent())}})
	if !errors.Is(err, store.ErrTooLarge) || !strings.Contains(err.Error(), "--max-request-bytes") {
		t.Errorf("3 MB: %v", err)
	}
	revision, err := store.CommitAll(t.Context(), s, store.Commit{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := s.Snapshot(t.Context(), revision)
	if err != nil || snapshot.Count(v1.KindSecret) != len(ops) {
		t.Errorf("%d of %d are there: %v", snapshot.Count(v1.KindSecret), len(ops), err)
	}
}

// TestForeignRevisions: revisions of others' keys, which bring no event of ours, are reached too.
func TestForeignRevisions(t *testing.T) {
	client := foreign(t)
	s := open(t, remote(t))
	for range 5 {
		put, err := client.Put(t.Context(), "/somebody/else", "x")
		if err != nil {
			t.Fatal(err)
		}
		revision, err := s.Sync(t.Context())
		if err != nil || revision < put.Header.Revision {
			t.Fatalf("sync: %d %v", revision, err)
		}
		if _, err := s.Snapshot(t.Context(), revision); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTwoStores share an etcd: each sees the other's commits, one leads, and a third with other keys is refused.
func TestTwoStores(t *testing.T) {
	foreign(t)
	cfg := remote(t)
	cfg.LeaseTTL = time.Hour // nobody waits for that
	a, b := open(t, cfg), open(t, cfg)
	revision := commit(t, a, secret("a", "1", store.Absent()))
	snapshot, err := b.Snapshot(t.Context(), revision)
	if err != nil || snapshot.Revision() != revision {
		t.Fatalf("%d instead of %d: %v", snapshot.Revision(), revision, err)
	}
	lead, err := a.Campaign(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan store.Lead)
	go func() {
		l, err := b.Campaign(t.Context(), "b")
		if err != nil {
			t.Error(err)
		}
		next <- l
	}()
	a.Close()
	<-lead.Lost()
	fence := (<-next).Fence() // Close gave the lead up
	if _, err := b.Commit(t.Context(), store.Commit{Ops: []store.Op{secret("b", "", store.Absent())}, Fence: &fence}); err != nil {
		t.Error(err)
	}
	old := lead.Fence()
	if _, err := b.Commit(t.Context(), store.Commit{Fence: &old}); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the past leader's fence: %v", err)
	}
	_, err = Start(t.Context(), remote(t))
	if err == nil || !strings.Contains(err.Error(), "keys.json") {
		t.Errorf("start with other keys: %v", err)
	}
}

// TestLeaseLost: a leader whose lease goes, and one whose key does, learns it, and its commits are fenced.
func TestLeaseLost(t *testing.T) {
	lose := func(s *Store, end func(store.Lead) error) {
		l, err := s.Campaign(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if err := end(l); err != nil {
			t.Fatal(err)
		}
		<-l.Lost()
		fence := l.Fence()
		if _, err := s.Commit(t.Context(), store.Commit{Ops: []store.Op{secret("a", "", store.Absent())}, Fence: &fence}); !errors.Is(err, store.ErrFenced) {
			t.Errorf("commit: %v", err)
		}
		if err := l.Resign(t.Context()); err != nil {
			t.Error(err)
		}
		next, err := s.Campaign(t.Context(), "b")
		if err != nil || next.Fence() == fence {
			t.Errorf("the next lead: %v", err)
		}
	}
	inside := open(t, Config{Dir: t.TempDir()})
	lose(inside, func(l store.Lead) error {
		_, err := inside.client.Delete(t.Context(), leaders+l.Fence().Key)
		return err
	})
	foreign(t)
	outside := open(t, remote(t))
	lose(outside, func(l store.Lead) error {
		_, err := outside.client.Revoke(t.Context(), l.(*lead).lease)
		return err
	})
}

// TestBadValueInWatch: a value that does not open stops the view, loudly, and the view goes on when it is gone.
func TestBadValueInWatch(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	revision := commit(t, s, secret("a", "1", store.Absent()))
	if _, err := s.client.Put(t.Context(), objects+"Secret/b/spec", "hunter2"); err != nil {
		t.Fatal(err)
	}
	for _, err := range s.Watch(t.Context(), revision) {
		if err == nil || !strings.Contains(err.Error(), `"/swarm/v1/Secret/b/spec"`) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the watch ended with %v", err)
		}
		break
	}
	if _, err := s.client.Delete(t.Context(), objects+"Secret/b/spec"); err != nil {
		t.Fatal(err)
	}
	after := int64(0)
	for after == 0 {
		snapshot, err := s.Snapshot(t.Context(), revision+2)
		if err != nil { // until it was loaded again
			if !strings.Contains(err.Error(), "Secret/b/spec") {
				t.Fatal(err)
			}
			continue
		}
		after = snapshot.Revision()
	}
	for _, err := range s.Watch(t.Context(), revision) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a watch from before: %v", err)
		}
		break
	}
	commit(t, s, secret("c", "", store.Absent()))
}

// TestCompacted: a watch that etcd compacted away begins anew, and readers see it.
func TestCompactedWatch(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	first := commit(t, s, secret("a", "0", store.Absent()))
	stale := &Store{cfg: s.cfg, client: s.client, seal: s.seal, history: store.NewHistory(s.history.Newest(), 10)}
	for range 5 {
		commit(t, s, secret("a", "1", store.Exists()))
	}
	last := commit(t, s, secret("b", "", store.Absent()))
	if _, err := s.client.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	// A second follower of the same store, which has not got beyond the first commit.
	ctx, cancel := context.WithCancel(s.ctx)
	stale.ctx = ctx
	done := make(chan struct{})
	go func() { stale.follow(); close(done) }()
	snapshot, err := stale.history.Wait(t.Context(), last)
	if err != nil || snapshot.Count(v1.KindSecret) != 2 {
		t.Errorf("after the compaction: %v", err)
	}
	for _, err := range stale.history.Watch(t.Context(), first) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("a watch from before the compaction: %v", err)
		}
		break
	}
	cancel()
	<-done
}

func TestMaintenanceSchedule(t *testing.T) {
	var m maintenance
	at, size := time.Unix(0, 0), int64(0)
	turn := func(revision, keys int64) int64 {
		at = at.Add(maintainEvery)
		return m.turn(mark{at, revision, keys, size}, time.Minute)
	}
	for i := int64(1); i <= 7; i++ {
		if upTo := turn(i*10, i*10); upTo != 0 {
			t.Errorf("compacts to %d after %v", upTo, time.Duration(i)*maintainEvery)
		}
	}
	if upTo := turn(80, 80); upTo != 10 {
		t.Errorf("after more than a minute: %d", upTo)
	}
	if upTo := turn(90, 80+2*keepKeys); upTo != 80 {
		t.Errorf("after very many keys: %d", upTo)
	}
	for range 20 {
		if upTo := turn(90, 80+2*keepKeys); upTo >= 90 || len(m.marks) > 8 {
			t.Errorf("in silence: compacts to %d, remembers %d", upTo, len(m.marks))
		}
	}
	if !m.shouldDefragment(at, 400<<20, 100<<20) {
		t.Error("mostly free and quiet, and is not defragmented")
	}
	for name, sizes := range map[string][2]int64{"small": {100 << 20, 1 << 20}, "full": {4 << 30, 3 << 30}, "unknown": {-1, -1}} {
		if m.shouldDefragment(at, sizes[0], sizes[1]) {
			t.Errorf("%s, and is defragmented", name)
		}
	}
	turn(100, 81+2*keepKeys)
	if m.shouldDefragment(at, 400<<20, 100<<20) {
		t.Error("is defragmented while it is written to")
	}
	size += keepBytes / 2
	if upTo := turn(110, 82+2*keepKeys); upTo >= 100 {
		t.Errorf("after some bytes: %d", upTo)
	}
	size += keepBytes/2 + 1
	if upTo := turn(120, 83+2*keepKeys); upTo != 100 {
		t.Errorf("after very many bytes: %d", upTo)
	}
}

func TestDefragment(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	commit(t, s, secret("a", "kept", store.Absent()))
	for range 20 {
		commit(t, s, secret("b", strings.Repeat("x", 400_000), store.Always()))
	}
	last := commit(t, s, secret("c", "", store.Absent()))
	if _, err := s.Snapshot(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Compact(t.Context(), last, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	before := s.Stats(t.Context())
	s.defragment(before.DBSize)
	after := s.Stats(t.Context())
	if after.DBSize >= before.DBSize || after.Defragmentations != 1 || after.Revision != last || after.KeysWritten != 22 {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if got, err := s.Sync(t.Context()); err != nil || got != last {
		t.Errorf("after defragmenting: %d %v", got, err)
	}
}

func TestPaths(t *testing.T) {
	for _, id := range []string{"a", "a/b", "%", "%2F", "/", "a/spec", "%25"} {
		d, got, section, err := parsePath(sectionPath(v1.KindSecret, id, v1.SectionSpec))
		if err != nil || d.Kind() != v1.KindSecret || got != id || section != v1.SectionSpec {
			t.Errorf("%q: %q %v", id, got, err)
		}
	}
	for _, path := range []string{"", objects, objects + "Secret", objects + "Secret/a", objects + "Secret//spec", objects + "Pod/a/spec",
		objects + "Secret/a/status", objects + "Secret/a/b/spec", objects + "Secret/a/other", "/other/Secret/a/spec"} {
		if _, _, _, err := parsePath(path); err == nil {
			t.Errorf("%q is taken for a key of ours", path)
		}
	}
}

func TestLoadBounds(t *testing.T) {
	bounds := loadBounds()
	if !slices.IsSorted(bounds) || bounds[0] != objects || bounds[len(bounds)-1] != clientv3.GetPrefixRangeEnd(objects) {
		t.Errorf("the ranges do not cover the state in order: %q", bounds)
	}
}

// TestOrphan: a section whose object is not there was written by a stranger; the start says which it is.
func TestOrphan(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Config{Dir: dir})
	op := store.Op{Kind: v1.KindTask, ID: "a", Section: v1.SectionDesired, Value: &v1.TaskDesired{}, If: store.Absent()}
	commit(t, s, op, store.Op{Kind: v1.KindTask, ID: "a", Section: v1.SectionStatus, Value: &v1.TaskStatus{}, If: store.Always()})
	if _, err := s.client.Delete(t.Context(), sectionPath(v1.KindTask, "a", v1.SectionDesired)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Start(t.Context(), Config{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), `Task "a"`) {
		t.Errorf("start: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	seal := newSealer(newKeyring("keys.json"))
	path := sectionPath(v1.KindSecret, "a", v1.SectionSpec)
	content, err := encode(&v1.Meta{Name: "a"}, &v1.SecretSpec{Data: []byte("x")})
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := seal.sealAll([]string{path}, [][]byte{content})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(sealed[0]), content)
	f.Add([]byte{1}, []byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, envelope, content []byte) {
		if _, err := seal.open(path, envelope); err == nil && string(envelope) != sealed[0] {
			t.Error("what we did not seal opens")
		}
		decode(v1.Secrets, "a", v1.SectionSpec, content) // must not panic
	})
}

func TestSealed(t *testing.T) {
	ring := newKeyring("keys.json")
	seal := newSealer(ring)
	sealed, err := seal.sealAll([]string{"/a", "/b"}, [][]byte{[]byte("content"), []byte("content")})
	if err != nil {
		t.Fatal(err)
	}
	if sealed[0][headerSize:] == sealed[1][headerSize:] || strings.Contains(sealed[0], "content") {
		t.Error("sealing does not hide")
	}
	fails := func(what, path, envelope string, with *sealer) {
		t.Helper()
		if got, err := with.open(path, []byte(envelope)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: opens to %q, %v", what, got, err)
		}
	}
	if got, err := seal.open("/a", []byte(sealed[0])); err != nil || string(got) != "content" {
		t.Errorf("%q %v", got, err)
	}
	fails("moved", "/b", sealed[0], seal)
	fails("another ring", "/a", sealed[0], newSealer(newKeyring("other.json")))
	for i := range sealed[0] {
		changed := []byte(sealed[0])
		changed[i] ^= 1
		fails("changed", "/a", string(changed), seal)
		fails("cut", "/a", sealed[0][:i], seal)
	}
	// A further key seals from then on, and what the old one sealed still opens.
	next := newKeyring("keys.json")
	next.keys[ring.active] = ring.keys[ring.active]
	rotated := newSealer(next)
	if got, err := rotated.open("/a", []byte(sealed[0])); err != nil || string(got) != "content" {
		t.Errorf("after rotation: %q %v", got, err)
	}
	again, err := rotated.sealAll([]string{"/a"}, [][]byte{[]byte("content")})
	if err != nil {
		t.Fatal(err)
	}
	fails("new key, old ring", "/a", again[0], seal)
	seal.left = 0 // a new epoch of the same key
	later, err := seal.sealAll([]string{"/a"}, [][]byte{[]byte("content")})
	if err != nil || later[0][:headerSize] == sealed[0][:headerSize] {
		t.Errorf("the epoch did not change: %v", err)
	}
	if got, err := newSealer(ring).open("/a", []byte(later[0])); err != nil || string(got) != "content" {
		t.Errorf("%q %v", got, err)
	}
}

// TestOnCommit: every commit is told of, also what was refused.
func TestOnCommit(t *testing.T) {
	var told []CommitStats
	s := open(t, Config{Dir: t.TempDir(), OnCommit: func(c CommitStats) { told = append(told, c) }})
	commit(t, s, secret("a", "", store.Absent()), secret("b", "", store.Absent()))
	if _, err := s.Commit(t.Context(), store.Commit{Ops: []store.Op{secret("a", "", store.Absent())}}); err == nil {
		t.Error("no conflict")
	}
	if len(told) != 2 || told[0].Ops != 2 || told[0].Err != nil || told[0].Took <= 0 || !errors.Is(told[1].Err, store.ErrConflict) {
		t.Errorf("told %+v", told)
	}
	if st := s.Stats(t.Context()); st.Commits != 1 || st.Failed != 1 || st.KeysWritten != 2 || st.DBSize <= 0 {
		t.Errorf("counted %+v", st)
	}
}

// TestNothingStays: Close leaves no goroutine behind.
func TestNothingStays(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := open(t, Config{Dir: t.TempDir()})
	if _, err := s.Campaign(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	commit(t, s, secret("a", "", store.Absent()))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}
