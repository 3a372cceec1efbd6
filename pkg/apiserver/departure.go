package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// A task that is to stop has its stop signal once every node that may send to it follows the revision that says so. Its node's manager waits
// for them: for those that are connected to it by what their sessions confirm, for others by asking the managers that they are connected to.
// Nothing of this is stored. A manager that takes over a session begins the wait anew, as the tasks that are to stop are in the first message.

const (
	// maxDeparts is how many waits there are at once. A task that there is no place for waits v1.WithdrawWithin.
	maxDeparts = 1024
	// followPatience is how long a manager is asked at a time: nodes may go elsewhere meanwhile.
	followPatience = 500 * time.Millisecond
	// followGap is the least time between two rounds.
	followGap = 20 * time.Millisecond
	// maxFollowNodes is how many nodes one request asks about.
	maxFollowNodes = 10_000
	maxFollowBody  = 1 << 20
)

// departing are the tasks that are waited for.
type departing struct {
	mu    sync.Mutex
	tasks map[string]bool
}

// begin is those of the tasks that are to stop and that nobody waits for yet.
func (d *departing) begin(tasks []*v1.Task) (begun []*v1.Task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range tasks {
		if leaves(t) && !d.tasks[t.Meta.ID] {
			d.tasks[t.Meta.ID] = true
			begun = append(begun, t)
		}
	}
	return begun
}

func (d *departing) end(tasks []*v1.Task) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range tasks {
		delete(d.tasks, t.Meta.ID)
	}
}

// depart waits for all that may send to those of the tasks that are to stop since the revision, and has their nodes told then. It may be
// asked more than once: by the batch that says so, and by a session that begins or compares all.
func (b *backend) depart(revision int64, tasks []*v1.Task) {
	if tasks = b.departing.begin(tasks); len(tasks) == 0 {
		return
	}
	b.spawn(func() {
		ctx, cancel := context.WithTimeout(b.ctx, b.server.limits.WithdrawWait)
		defer cancel()
		snapshot, err := b.store.Snapshot(ctx, revision)
		if err != nil {
			b.departing.end(tasks)
			return
		}
		var all sync.WaitGroup
		for _, alike := range reachedAlike(snapshot, tasks) {
			all.Go(func() { b.departAlike(ctx, revision, snapshot, alike) })
		}
		all.Wait()
	})
}

// departAlike is depart for tasks that the same nodes send to.
func (b *backend) departAlike(ctx context.Context, revision int64, s *store.Snapshot, alike []*v1.Task) {
	followed := false
	if leave, err := b.departs.enter(); err != nil {
		b.server.log.Warn("tasks that are to stop are not waited for by name", "tasks", len(alike), "error", err)
	} else {
		followed = b.await(ctx, revision, senders(s, alike[0]))
		leave()
	}
	b.departing.end(alike) // first: a session that begins after the word was said asks for it again
	if followed {
		b.release(alike)
	}
}

// reachedAlike are the tasks in groups that the same nodes send to.
func reachedAlike(s *store.Snapshot, tasks []*v1.Task) [][]*v1.Task {
	groups := make(map[string][]*v1.Task)
	for _, t := range tasks {
		key := join(t.Desired.Networks, func(n v1.NetworkAddress) string { return n.Network })
		if meshed(s, t) {
			key = "" // every node
		}
		groups[key] = append(groups[key], t)
	}
	return slices.Collect(maps.Values(groups))
}

// meshed tells whether ports of every node lead to the task. Its service may be on its way out, or publish no more, by now.
func meshed(s *store.Snapshot, t *v1.Task) bool {
	r, ok := store.Get(s, v1.ServiceRevisions, t.Desired.Revision)
	return ok && r.Spec != nil && r.Spec.Endpoint != nil &&
		slices.ContainsFunc(r.Spec.Endpoint.Ports, func(p v1.PortConfig) bool { return p.Mode != v1.PublishHost })
}

// senders are the nodes that may send to a task.
func senders(s *store.Snapshot, t *v1.Task) []string {
	if meshed(s, t) {
		var all []string
		for p := range store.All(s, v1.Presences) {
			all = append(all, p.Meta.ID)
		}
		return all
	}
	nodes := make(map[string]bool)
	for _, n := range t.Desired.Networks {
		for other := range s.TasksOfNetwork(n.Network) {
			if node := v1.TaskNode(other); node != "" {
				nodes[node] = true
			}
		}
	}
	return slices.Collect(maps.Keys(nodes))
}

func (b *backend) release(tasks []*v1.Task) {
	byNode := make(map[string][]string)
	for _, t := range tasks {
		node := v1.TaskNode(t)
		byNode[node] = append(byNode[node], t.Meta.ID)
	}
	for node, ids := range byNode {
		if se := b.sessions.of(node); se != nil {
			se.release(ids)
		}
	}
}

// await waits until every node follows the revision, wherever it is connected, or is gone; it tells whether that is so before ctx ends.
func (b *backend) await(ctx context.Context, revision int64, nodes []string) bool {
	for len(nodes) > 0 {
		snapshot, err := b.store.Snapshot(ctx, revision)
		if err != nil {
			return false
		}
		at := make(map[string][]string) // by manager
		for _, node := range nodes {
			p, ok := store.Get(snapshot, v1.Presences, node)
			if n, there := store.Get(snapshot, v1.Nodes, node); ok && there && !v1.NodeLost(n) {
				at[p.Status.Manager] = append(at[p.Status.Manager], node)
			}
		}
		if len(at) == 0 {
			return true
		}
		gap := time.NewTimer(followGap)
		nodes = b.round(ctx, snapshot, revision, at)
		if len(nodes) > 0 {
			select {
			case <-gap.C:
			case <-ctx.Done():
				return false
			}
		}
		gap.Stop()
	}
	return true
}

// round asks all managers at once, and is who is not known to follow after that.
func (b *backend) round(ctx context.Context, s *store.Snapshot, revision int64, at map[string][]string) (left []string) {
	var mu sync.Mutex
	var asking sync.WaitGroup
	for manager, nodes := range at {
		asking.Go(func() {
			var do []string
			if manager == b.backing.Node {
				do = b.awaitHere(ctx, revision, nodes)
			} else if addr := managerAddr(s, manager); addr != "" && b.relays.client != nil {
				do = b.askFollowed(ctx, addr, v1.FollowQuery{Revision: revision, Nodes: nodes[:min(len(nodes), maxFollowNodes)]})
			}
			mu.Lock()
			defer mu.Unlock()
			left = append(left, without(nodes, do)...)
		})
	}
	asking.Wait()
	return left
}

// without is what of all is not among some.
func without(all, some []string) []string {
	if len(all) == len(some) {
		return nil
	}
	done := make(map[string]bool, len(some))
	for _, one := range some {
		done[one] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(one string) bool { return done[one] })
}

// awaitHere waits a moment for nodes that are connected here, and is those that follow.
func (b *backend) awaitHere(ctx context.Context, revision int64, nodes []string) (do []string) {
	patience := time.NewTimer(followPatience)
	defer patience.Stop()
	b.sessions.waiting.Add(1)
	defer b.sessions.waiting.Add(-1)
	for {
		now, wait, again := b.sessions.followers(revision, nodes)
		do, nodes = append(do, now...), wait
		if len(nodes) == 0 {
			return do
		}
		select {
		case <-again:
		case <-patience.C:
			return do
		case <-ctx.Done():
			return do
		}
	}
}

// askFollowed asks another manager for what awaitHere is there.
func (b *backend) askFollowed(ctx context.Context, addr string, q v1.FollowQuery) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*followPatience)
	defer cancel()
	body, err := json.Marshal(q)
	if err != nil {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+"/v1/followed", bytes.NewReader(body))
	if err != nil {
		return nil
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.relays.client.Do(req)
	if err != nil {
		return nil // it may be down: its nodes go elsewhere, or are lost
	}
	defer resp.Body.Close()
	var result v1.FollowResult
	if resp.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(resp.Body, maxFollowBody)).Decode(&result) != nil {
		return nil
	}
	return result.Nodes
}

// followed answers another manager.
func (s *Server) followed(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	body, err := s.readBody(w, r, maxFollowBody)
	if err != nil {
		return err
	}
	var q v1.FollowQuery
	if err := v1.DecodeStrict(body, &q); err != nil {
		return err
	}
	if len(q.Nodes) > maxFollowNodes {
		return problemf(http.StatusRequestEntityTooLarge, "%d nodes are too many in one request: at most %d", len(q.Nodes), maxFollowNodes)
	}
	leave, err := b.departs.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := b.bind(r.Context())
	defer cancel(nil)
	return writeJSON(w, http.StatusOK, v1.FollowResult{Nodes: b.awaitHere(ctx, q.Revision, q.Nodes)})
}
