package apiserver

import (
	"context"
	"math/rand/v2"
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// A node whose registry is away has the image of a task of its own from another node that runs a task of the same service with the
// same image. It is led there as a user is to a task; the other node gives it nothing but parts of that image, and what it gets is what
// their digests say.

// maxImageTunnels is how many parts of images are led to nodes through one server at a time, and maxImageTunnelsEach how many to one node,
// which pulls three images at once and one part of each.
const (
	maxImageTunnels     = 32
	maxImageTunnelsEach = 4
)

// maxImagePeers is how many other nodes are tried for one part of an image.
const maxImagePeers = 3

// imageTunnel leads a node to another that has an image.
func (s *Server) imageTunnel(w http.ResponseWriter, r *http.Request) error {
	node, image := r.PathValue("ref"), r.URL.Query().Get("image")
	end, b, err := s.tunnelEnd(w, r)
	if err != nil {
		return err
	}
	defer end.wake()
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
	return b.leadToOne(ctx, end, peers)
}

// leadToOne leads to the first of a few tasks whose node answers.
func (b *backend) leadToOne(ctx context.Context, end *tunnelEnd, peers []*v1.Task) error {
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	var err error = problemf(http.StatusNotFound, "no other node runs a task with this image")
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

// imagePeers tells whether a task of a node is to run an image, and which tasks of the same services on other nodes run it.
func imagePeers(s *store.Snapshot, node, image string) (wanted bool, peers []*v1.Task) {
	runs := func(t *v1.Task) bool {
		r, ok := store.Get(s, v1.ServiceRevisions, t.Desired.Revision)
		return ok && v1.Wanted(t.Desired) && r.Spec.Task.Container.Image == image
	}
	services := make(map[string]bool)
	for t := range s.TasksOfNode(node) {
		if service := t.Desired.Service; !services[service] && runs(t) {
			services[service] = true
			for other := range s.TasksOfService(service) {
				if v1.TaskNode(other) != node && v1.Observed(other) == v1.TaskRunning && runs(other) {
					peers = append(peers, other)
				}
			}
		}
	}
	return len(services) > 0, peers
}
