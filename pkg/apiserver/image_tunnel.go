package apiserver

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// A node whose registry is away has the image of a task of its own from another node that runs, or ran, a task of the same service with
// the same image. It is led there as a user is to a task; the other node gives it nothing but parts of that image, and what it gets is what
// their digests say. Where that has it not any more, the node asks again and is led to the next.

// maxImageTunnels is how many parts of images are led to nodes through one server at a time, and maxImageTunnelsEach how many to one node,
// which pulls three images at once and one part of each.
const (
	maxImageTunnels     = 32
	maxImageTunnelsEach = 4
)

// maxImagePeers is how many other nodes are tried for one part of an image.
const maxImagePeers = 3

// imageTunnel leads a node to another that has an image.
func (s *Server) imageTunnel(w http.ResponseWriter, r *http.Request) (err error) {
	node, image := r.PathValue("ref"), r.URL.Query().Get("image")
	again, err := intQuery(r, "again", 0, 0, v1.MaxImageAgain)
	if err != nil {
		return err
	}
	end, b, err := s.tunnelEnd(w, r)
	if err != nil {
		return err
	}
	defer func() { end.over(err) }()
	of, who := s.placesOf(r)
	out, err := of.tunnels.enterAs(who)
	if err != nil {
		return err
	}
	defer out()
	snapshot, err := b.store.Snapshot(r.Context(), 0)
	if err != nil {
		return err
	}
	wanted, peers := imagePeers(snapshot, node, image)
	if !wanted {
		return problemf(http.StatusConflict, "no task of node %s is to run the image %s", node, clip(image))
	}
	ctx, cancel := b.bind(r.Context())
	defer cancel(nil)
	return b.leadToOne(ctx, end, inTurn(peers, node, int(again)))
}

// leadToOne leads to the first of a few tasks whose node answers.
func (b *backend) leadToOne(ctx context.Context, end *tunnelEnd, peers []*v1.Task) error {
	var err error = problemf(http.StatusNotFound, "no other node has run a task with this image")
	for _, t := range peers[:min(len(peers), maxImagePeers)] {
		to, node := v1.StreamRequest{Task: t.Meta.ID, Image: true}, v1.TaskNode(t)
		if se := b.sessions.of(node); se != nil {
			err = b.lead(ctx, end, se, to)
		} else {
			err = b.leadOn(ctx, end, node, to)
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// imagePeers tells whether a task of a node is to run an image, and which tasks of the same services may have it on other nodes, one for
// each. One that is on its way out, or has ended, left it there until that node's disk gets full.
func imagePeers(s *store.Snapshot, node, image string) (wanted bool, peers []*v1.Task) {
	of := func(t *v1.Task) bool {
		r, ok := store.Get(s, v1.ServiceRevisions, t.Desired.Revision)
		return ok && r.Spec.Task.Container.Image == image
	}
	services, best := make(map[string]bool), make(map[string]*v1.Task)
	for t := range s.TasksOfNode(node) {
		service := t.Desired.Service
		if services[service] || !v1.Wanted(t.Desired) || !of(t) {
			continue
		}
		services[service] = true
		for other := range s.TasksOfService(service) {
			at := v1.TaskNode(other)
			if at != "" && at != node && mayGive(s, other) && of(other) && (best[at] == nil || givesBefore(other, best[at])) {
				best[at] = other
			}
		}
	}
	return len(services) > 0, slices.Collect(maps.Values(best))
}

// mayGive tells whether the node of a task may have its image: it has got as far as that, and the node is there.
func mayGive(s *store.Snapshot, t *v1.Task) bool {
	state := v1.Observed(t)
	if state == v1.TaskRunning {
		return true
	}
	n, ok := store.Get(s, v1.Nodes, v1.TaskNode(t))
	return state >= v1.TaskReady && state <= v1.TaskFailed && ok && n.Status != nil && n.Status.State == v1.NodeReady
}

// givesBefore tells whether a task is sooner asked for its image than another: one that runs is, then the later one.
func givesBefore(t, other *v1.Task) bool {
	runs, otherRuns := v1.Observed(t) == v1.TaskRunning, v1.Observed(other) == v1.TaskRunning
	return runs && !otherRuns || runs == otherRuns && t.Meta.CreatedAt.After(other.Meta.CreatedAt)
}

// inTurn puts those in front that run. The first time any of them is asked first; a node that got nothing there asks again, and is led
// to one after the other, in an order of its own.
func inTurn(peers []*v1.Task, node string, again int) []*v1.Task {
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	key := func(t *v1.Task) string {
		if again == 0 {
			return ""
		}
		return v1.HashID(node, t.Meta.ID)
	}
	slices.SortStableFunc(peers, func(x, y *v1.Task) int {
		xRuns, yRuns := v1.Observed(x) == v1.TaskRunning, v1.Observed(y) == v1.TaskRunning
		switch {
		case xRuns && !yRuns:
			return -1
		case yRuns && !xRuns:
			return 1
		}
		return strings.Compare(key(x), key(y))
	})
	return peers[min(len(peers), max(0, again-1)):]
}
