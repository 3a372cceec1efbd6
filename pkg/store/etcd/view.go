package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

const (
	// loadPage is how many keys are loaded at a time.
	loadPage = 5000
	// watchAtOnce bounds how many events go into one new snapshot.
	watchAtOnce = 20_000
)

// load reads the whole state at one revision.
func (s *Store) load(ctx context.Context) (*store.Snapshot, error) {
	for {
		snapshot, err := s.loadOnce(ctx)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			return snapshot, err
		}
		s.cfg.Log.Debug("the state was compacted while it was loaded; loading it again")
	}
}

func (s *Store) loadOnce(ctx context.Context) (*store.Snapshot, error) {
	b, revision := store.NewBuilder(), int64(0)
	bounds := loadBounds()
	for i := range len(bounds) - 1 {
		var err error
		if revision, err = s.loadRange(ctx, b, bounds[i], bounds[i+1], revision); err != nil {
			return nil, err
		}
	}
	return b.Snapshot(revision)
}

// loadBounds cut the state into ranges, in order, without a gap. etcd counts all keys of the range that is left for every
// page of it: with a million tasks in one range, that would take longer than the loading.
func loadBounds() []string {
	tasks := objects + string(v1.KindTask) + "/"
	bounds := []string{objects}
	for _, first := range "0123456789abcdefghijklmnopqrstuvwxyz" { // of an ID
		bounds = append(bounds, tasks+string(first))
	}
	return append(bounds, clientv3.GetPrefixRangeEnd(tasks), clientv3.GetPrefixRangeEnd(objects))
}

// loadRange adds what is in a range at the revision, or at that of the first page where it is 0, which it returns.
func (s *Store) loadRange(ctx context.Context, b *store.Builder, from, end string, revision int64) (int64, error) {
	for {
		got, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(loadPage), clientv3.WithRev(revision))
		if err != nil {
			return 0, fmt.Errorf("store: etcd: load the state: %w", err)
		}
		if revision == 0 {
			revision = got.Header.Revision
		}
		for _, kv := range got.Kvs {
			op, err := s.decode(kv)
			if err != nil {
				return 0, err
			}
			if err := b.Add(op, kv.ModRevision); err != nil {
				return 0, fmt.Errorf("store: etcd: key %q: %w", kv.Key, err)
			}
		}
		if !got.More {
			return revision, nil
		}
		from = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
	}
}

// decode makes the operation that wrote a key. Its errors name the key, not what is in it.
func (s *Store) decode(kv *mvccpb.KeyValue) (store.Op, error) {
	path := string(kv.Key)
	d, id, section, err := parsePath(path)
	if err != nil {
		return store.Op{}, err
	}
	content, err := s.seal.open(path, kv.Value)
	if err != nil {
		return store.Op{}, err
	}
	meta, value, err := decode(d, id, section, content)
	if err != nil {
		return store.Op{}, fmt.Errorf("store: etcd: value of key %q: %w", path, err)
	}
	return store.Op{Kind: d.Kind(), ID: id, Section: section, Value: value, Meta: meta}, nil
}

// errStale says that the state must be loaded again before it can be followed.
var errStale = errors.New("the state must be loaded again")

// follow keeps the history up to date until the store ends.
func (s *Store) follow() {
	const shortest, longest = 100 * time.Millisecond, 10 * time.Second
	pause, stale := shortest, false
	for {
		before := s.history.Newest().Revision()
		var err error
		if stale {
			err = s.reload()
			stale = err != nil
		}
		if err == nil {
			err = s.watch()
		}
		if s.ctx.Err() != nil {
			return
		}
		stale = stale || errors.Is(err, errStale) || errors.Is(err, rpctypes.ErrCompacted)
		if s.history.Newest().Revision() > before {
			pause = shortest
		}
		s.cfg.Log.Warn("the state could not be followed; trying again", "err", err, "pause", pause)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return
		}
		pause = min(2*pause, longest)
	}
}

// reload begins anew: what is watched from before ends with ErrCompacted.
func (s *Store) reload() error {
	snapshot, err := s.load(s.ctx)
	if err != nil {
		s.history.Break(err)
		return fmt.Errorf("%w: %w", errStale, err)
	}
	s.history.Reset(snapshot)
	return nil
}

// watch follows etcd from the newest snapshot, until it cannot. It returns nil where the state must be loaded again.
func (s *Store) watch() error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(s.ctx))
	defer cancel()
	events := s.client.Watch(ctx, ours, clientv3.WithPrefix(), clientv3.WithRev(s.history.Newest().Revision()+1))
	for resp := range events {
		pending := []clientv3.WatchResponse{resp}
		count := len(resp.Events)
	more:
		for count < watchAtOnce {
			select {
			case next, ok := <-events:
				if !ok {
					break more
				}
				pending = append(pending, next)
				count += len(next.Events)
			default:
				break more
			}
		}
		if err := s.advance(pending); err != nil {
			return err
		}
	}
	return errors.New("store: etcd: the watch ended")
}

// advance appends what a watch told.
func (s *Store) advance(pending []clientv3.WatchResponse) error {
	var revisions []store.Revised
	upTo := int64(0)
	for i := range pending {
		resp := &pending[i]
		if err := resp.Err(); err != nil {
			return fmt.Errorf("store: etcd: watch: %w", err)
		}
		for _, e := range resp.Events {
			rev := e.Kv.ModRevision
			if n := len(revisions); n == 0 || revisions[n-1].Revision != rev {
				revisions = append(revisions, store.Revised{Revision: rev})
			}
			upTo = rev
			op, ours, err := s.decodeEvent(e)
			if err != nil {
				s.history.Break(err)
				return fmt.Errorf("%w: %w", errStale, err)
			}
			if ours {
				last := &revisions[len(revisions)-1]
				last.Ops = append(last.Ops, op)
			}
		}
		if resp.IsProgressNotify() {
			upTo = max(upTo, resp.Header.Revision)
		}
	}
	keys, size := count(pending)
	s.counters.seen.Add(keys)
	s.counters.seenBytes.Add(size)
	base := s.history.Newest()
	if upTo <= base.Revision() {
		return nil
	}
	next, batches, err := base.WithAll(upTo, revisions)
	if err != nil {
		s.history.Break(err)
		return fmt.Errorf("%w: %w", errStale, err)
	}
	s.history.Append(next, batches...)
	return nil
}

// count is how many keys were written or removed, and about what etcd keeps for that.
func count(pending []clientv3.WatchResponse) (keys, size int64) {
	const overhead = 64 // of an entry of the history
	for i := range pending {
		for _, e := range pending[i].Events {
			keys++
			size += overhead + int64(len(e.Kv.Key)+len(e.Kv.Value))
		}
	}
	return keys, size
}

// decodeEvent makes the operation of an event, where its key is state.
func (s *Store) decodeEvent(e *clientv3.Event) (store.Op, bool, error) {
	if len(e.Kv.Key) < len(objects) || string(e.Kv.Key[:len(objects)]) != objects {
		return store.Op{}, false, nil
	}
	if e.Type == clientv3.EventTypeDelete {
		d, id, section, err := parsePath(string(e.Kv.Key))
		if err != nil {
			return store.Op{}, false, err
		}
		return store.Op{Kind: d.Kind(), ID: id, Section: section}, true, nil
	}
	op, err := s.decode(e.Kv)
	return op, true, err
}

// askProgress asks the watch how far it is while somebody waits for a revision: revisions that wrote no key of ours bring
// no event.
func (s *Store) askProgress() {
	const soon, often = 5 * time.Millisecond, 50 * time.Millisecond
	timer := time.NewTimer(soon)
	defer timer.Stop()
	for {
		select {
		case <-s.waits:
		case <-s.ctx.Done():
			return
		}
		for pause := soon; s.waiting.Load() > 0; pause = often {
			timer.Reset(pause)
			select {
			case <-timer.C:
			case <-s.ctx.Done():
				return
			}
			if s.waiting.Load() > 0 {
				// An error means that there is no watch just now, and the next one begins at the newest revision.
				_ = s.client.RequestProgress(clientv3.WithRequireLeader(s.ctx))
			}
		}
	}
}
