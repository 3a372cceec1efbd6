package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/metrics"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

const (
	// residents are nodes that stay, and run what is deployed.
	residents = 4
	// churners is how many rounds are under way at once.
	churners = 4
	// copies is how many tasks each deployed service has.
	copies = 4
	// points is how often the level is measured.
	points = 12
)

// level is what the process holds when it is at rest.
type level struct {
	Rounds     int     `json:"rounds"`
	Heap       float64 `json:"heap_mb"` // live objects, after a collection
	Goroutines int     `json:"goroutines"`
}

// churnResult is the last line.
type churnResult struct {
	JoinLeave    []level `json:"join_leave"`
	DeployRemove []level `json:"deploy_remove"`
	Seconds      float64 `json:"seconds"`
}

// churn has nodes join and leave, and then services come and go, and holds memory and goroutines to staying level. Managers and nodes
// are in this one process: what either does not let go of shows.
func churn(ctx context.Context, o options, log *slog.Logger) (err error) {
	dir, err := os.MkdirTemp(o.dir, "swarm-churn-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.socket = filepath.Join(dir, "s.sock")
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	began := time.Now()
	m, err := startManager(ctx, o, filepath.Join(dir, "etcd"), log, fail)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	gate, err := openGate(ctx, m, log, fail)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, gate.close()) }()
	c, err := client.New("unix://" + o.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range residents {
		n, err := gate.join(ctx, fmt.Sprintf("resident-%d", i))
		if err != nil {
			return err
		}
		defer n.stop()
		if err := ready(ctx, m.store, n.id, true); err != nil {
			return err
		}
	}
	var r churnResult
	if r.JoinLeave, err = series(ctx, "join and leave", o.churn, gate, func(i int) error { return joinAndLeave(ctx, gate, c, m.store, i) }); err != nil {
		return err
	}
	if r.DeployRemove, err = series(ctx, "deploy and remove", o.churn, gate, func(i int) error { return deployAndRemove(ctx, c, m.store, i) }); err != nil {
		return err
	}
	r.Seconds = time.Since(began).Seconds()
	if err := writeMemProfile(o.memProfile); err != nil {
		return err
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	return errors.Join(levels("join and leave", r.JoinLeave), levels("deploy and remove", r.DeployRemove))
}

// series does rounds, and measures in between, at rest.
func series(ctx context.Context, what string, rounds int, g *gate, do func(i int) error) ([]level, error) {
	var all []level
	for point := range points {
		from, to := rounds*point/points, rounds*(point+1)/points
		if err := parallel(churners, to-from, func(i int) error { return do(from + i) }); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		now, err := rest(ctx, g, to)
		if err != nil {
			return nil, err
		}
		all = append(all, now)
		progress("%5d rounds of %s: %6.1f MB live, %4d goroutines", to, what, now.Heap, now.Goroutines)
	}
	return all, nil
}

// rest waits until nothing changes any more, and measures.
func rest(ctx context.Context, g *gate, rounds int) (level, error) {
	last := -1
	for same := 0; same < 10; {
		if same == 5 {
			g.sweep()
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return level{}, context.Cause(ctx)
		}
		if n := goruntime.NumGoroutine(); n != last {
			last, same = n, 0
		} else {
			same++
		}
	}
	goruntime.GC()
	goruntime.GC() // the first one leaves what finalizers keep
	live := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(live)
	return level{Rounds: rounds, Heap: float64(live[0].Value.Uint64()) / (1 << 20), Goroutines: goruntime.NumGoroutine()}, nil
}

// levels tells where the last third of a series is above the second. Before that, caches and histories of bounded length fill up.
func levels(what string, all []level) error {
	third := len(all) / 3
	heap, goroutines := mean(all[third : 2*third])
	laterHeap, laterGoroutines := mean(all[2*third:])
	var errs []error
	if bound := heap*1.05 + 2; laterHeap > bound {
		errs = append(errs, fmt.Errorf("%s: %.1f MB live in the last third of the rounds, %.1f MB in the second: want at most %.1f", what, laterHeap, heap, bound))
	}
	if bound := goroutines*1.02 + 5; laterGoroutines > bound {
		errs = append(errs, fmt.Errorf("%s: %.0f goroutines in the last third of the rounds, %.0f in the second: want at most %.0f", what, laterGoroutines, goroutines, bound))
	}
	return errors.Join(errs...)
}

func mean(all []level) (heap, goroutines float64) {
	for _, l := range all {
		heap += l.Heap / float64(len(all))
		goroutines += float64(l.Goroutines) / float64(len(all))
	}
	return heap, goroutines
}

// joinAndLeave is the life of a node in the swarm, by the doors that a daemon goes through, and its removal by the user.
func joinAndLeave(ctx context.Context, g *gate, c *client.Client, s store.Store, i int) error {
	n, err := g.join(ctx, fmt.Sprintf("guest-%d", i))
	if err != nil {
		return err
	}
	defer n.stop()
	if err := ready(ctx, s, n.id, true); err != nil {
		return err
	}
	if err := n.leave(ctx); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	if err := ready(ctx, s, n.id, false); err != nil {
		return err
	}
	return client.Delete(ctx, c, v1.Nodes, n.id)
}

// ready waits until a node is there, or is not.
func ready(ctx context.Context, s store.Store, id string, want bool) error {
	return await(ctx, s, "node "+id, func(snapshot *store.Snapshot) bool {
		n, ok := store.Get(snapshot, v1.Nodes, id)
		return (ok && n.Status != nil && n.Status.State == v1.NodeReady && !v1.NodeLost(n)) == want
	})
}

// deployAndRemove is the life of a service.
func deployAndRemove(ctx context.Context, c *client.Client, s store.Store, i int) error {
	replicas := uint64(copies)
	service := &v1.Service{Meta: v1.Meta{Name: fmt.Sprintf("churn-%d", i)}, Spec: &v1.ServiceSpec{Replicas: &replicas}}
	service.Spec.Task.Container.Image = "hollow:1"
	made, _, err := client.Create(ctx, c, v1.Services, service)
	if err != nil {
		return err
	}
	if err := await(ctx, s, service.Meta.Name+" runs", func(snapshot *store.Snapshot) bool {
		return snapshot.CountsOf(made.Meta.ID).Running == copies
	}); err != nil {
		return err
	}
	if err := client.Delete(ctx, c, v1.Services, made.Meta.ID); err != nil {
		return err
	}
	return await(ctx, s, service.Meta.Name+" is gone", func(snapshot *store.Snapshot) bool {
		_, there := store.Get(snapshot, v1.Services, made.Meta.ID)
		return !there && snapshot.CountsOf(made.Meta.ID).Total == 0
	})
}

// await waits until the state is such.
func await(ctx context.Context, s store.Store, what string, is func(*store.Snapshot) bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	snapshot, err := s.Snapshot(ctx, 0)
	for ; err == nil; snapshot, err = s.Snapshot(ctx, snapshot.Revision()+1) {
		if is(snapshot) {
			return nil
		}
	}
	return fmt.Errorf("waiting until %s: %w", what, err)
}
