package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// probeResult is what process three says at its end.
type probeResult struct {
	// Gets are how long each read took, in milliseconds.
	Gets []float64 `json:"gets"`
	// Seen are when each watched change arrived.
	Seen []sight `json:"seen"`
	// Errors are reads that failed.
	Errors []string `json:"errors,omitempty"`
}

// sight is the arrival of a change at a watcher.
type sight struct {
	Revision int64 `json:"r"`
	At       int64 `json:"t"` // nanoseconds since 1970
}

const (
	watchers = 10                   // each watches the tasks of one node
	readGap  = 5 * time.Millisecond // between one read and the next
	mostSeen = 1_000_000
)

// probe is process three: a client that reads and watches while the swarm is busy.
func probe(ctx context.Context, o options) error {
	c, err := client.New("unix://" + o.socket)
	if err != nil {
		return err
	}
	defer c.Close()
	var mu sync.Mutex
	var r probeResult
	var readers sync.WaitGroup
	for i := range min(watchers, o.nodes) {
		filter := v1.Filter{"node": {nodeID(i * o.nodes / min(watchers, o.nodes))}}
		readers.Go(func() {
			for event, err := range client.Watch(ctx, c, v1.Tasks, filter, -1) {
				now := time.Now().UnixNano()
				mu.Lock()
				if err != nil && ctx.Err() == nil {
					r.Errors = append(r.Errors, "watch: "+err.Error())
				} else if err == nil && len(r.Seen) < mostSeen {
					r.Seen = append(r.Seen, sight{event.Revision, now})
				}
				mu.Unlock()
			}
		})
	}
	fmt.Println("watching")
	for i := 0; ctx.Err() == nil; i++ {
		began := time.Now()
		err := read(ctx, c, o, i)
		took := time.Since(began)
		if ctx.Err() == nil {
			mu.Lock()
			r.Gets = append(r.Gets, float64(took)/1e6)
			if err != nil && len(r.Errors) < 100 {
				r.Errors = append(r.Errors, err.Error())
			}
			mu.Unlock()
		}
		select {
		case <-time.After(readGap):
		case <-ctx.Done():
		}
	}
	readers.Wait()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// read reads one object or a short list.
func read(ctx context.Context, c *client.Client, o options, i int) (err error) {
	switch i % 4 {
	case 0:
		if _, err = client.Get(ctx, c, v1.Services, serviceName(i%o.services)); client.Status(err) == 404 {
			err = nil // not applied yet
		}
	case 1:
		_, err = client.Get(ctx, c, v1.Nodes, nodeID(i%o.nodes))
	case 2:
		_, err = client.List(ctx, c, v1.Tasks, v1.Filter{"node": {nodeID(i % o.nodes)}})
	case 3:
		_, err = c.ServiceStatuses(ctx)
	}
	return err
}

// probed takes what process three measured.
func probed(ctx context.Context, s *counted, prober *child, r *result) error {
	var p probeResult
	if err := prober.finish(ctx, &p); err != nil {
		return err
	}
	if len(p.Errors) > 0 {
		return fmt.Errorf("%d reads failed, the first with: %s", len(p.Errors), p.Errors[0])
	}
	if len(p.Gets) == 0 {
		return errors.New("nothing was read during the run")
	}
	r.GetP50, r.GetP99 = quantile(p.Gets, 0.5), quantile(p.Gets, 0.99)
	lags := make([]float64, 0, len(p.Seen))
	for _, seen := range p.Seen {
		if at, ok := s.committed(seen.Revision); ok {
			lags = append(lags, max(0, float64(seen.At-at.UnixNano())/1e6))
		}
	}
	if len(lags) == 0 {
		return errors.New("the watchers saw nothing")
	}
	r.WatchLagP50, r.WatchLagP99 = quantile(lags, 0.5), quantile(lags, 0.99)
	progress("%d reads, %d watched changes", len(p.Gets), len(lags))
	return nil
}

// quantile is the smallest value that is not less than the share q of all.
func quantile(values []float64, q float64) float64 {
	slices.Sort(values)
	return values[min(len(values)-1, int(math.Ceil(q*float64(len(values))))-1)]
}
