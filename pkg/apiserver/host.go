package apiserver

import (
	"net/http"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// imageList is the answer that lists images.
type imageList struct {
	Items []v1.Image `json:"items"`
}

// hostRoutes are the doors of the machine's daemon. They are open whether or not there is a swarm.
func (s *Server) hostRoutes() []route {
	if s.host == nil {
		return nil
	}
	return []route{
		{method: http.MethodGet, path: "/v1/info", unlocked: true, resource: "info", summary: "Read what the daemon says of its node and the swarm.",
			may: rightsView, out: v1.Info{}, handle: s.info},
		{method: http.MethodGet, path: "/v1/version", unlocked: true, resource: "version", may: rightsView, summary: "Read the daemon's version.",
			out: v1.VersionInfo{}, handle: s.version},
		{method: http.MethodPost, path: "/v1/swarm/init", resource: "swarm", may: rightsRoot, in: v1.InitRequest{}, out: v1.InitResult{},
			summary: "Make a new swarm, of which this node is the first manager.", handle: s.init},
		{method: http.MethodPost, path: "/v1/swarm/join", resource: "swarm", may: rightsRoot, in: v1.JoinRequest{}, out: v1.JoinResult{},
			summary: "Join a swarm.", handle: s.join},
		{method: http.MethodPost, path: "/v1/swarm/unlock", unlocked: true, resource: "swarm", may: rightsRoot, in: v1.UnlockRequest{},
			summary: "Unlock a manager that was restarted.", handle: s.unlock},
		{method: http.MethodPost, path: "/v1/swarm/leave", unlocked: true, resource: "swarm", may: rightsRoot, query: []string{"force"},
			summary: "Leave the swarm.", handle: s.leave},
		{method: http.MethodPost, path: "/v1/swarm/restore", resource: "backup", stream: true, may: rightsRoot, out: v1.InitResult{},
			query:   []string{"listenAddr", "advertiseAddr", "dataPathAddr", "availability"},
			summary: "Become the first manager of the swarm of a backup, which is the body.", handle: s.restore},
		{method: http.MethodGet, path: "/v1/images", resource: "images", may: rightsRoot, summary: "List the images on this machine.",
			out: imageList{}, handle: s.images},
		{method: http.MethodPost, path: "/v1/images/load", resource: "images", stream: true, may: rightsRoot, out: imageList{},
			summary: "Load images from an OCI or docker archive.", handle: s.loadImages},
	}
}

func (s *Server) info(w http.ResponseWriter, r *http.Request) error {
	info, err := s.host.Info(r.Context())
	if err != nil {
		return err
	}
	if b := s.current.Load(); b != nil && info.Swarm.ControlAvailable {
		if err := b.describe(r, &info.Swarm); err != nil {
			s.log.Debug("the swarm could not be described", "error", err)
		}
	}
	return writeJSON(w, http.StatusOK, info)
}

// describe fills in what the store knows of the swarm.
func (b *backend) describe(r *http.Request, info *v1.SwarmInfo) error {
	snapshot, err := b.store.Snapshot(r.Context(), 0)
	if err != nil {
		return err
	}
	b.counts.mu.Lock()
	managers := b.counts.managers
	b.counts.mu.Unlock()
	info.Nodes, info.Managers = snapshot.Count(v1.KindNode), managers
	c, ok := store.Get(snapshot, v1.Clusters, v1.ClusterName)
	if !ok {
		return nil
	}
	info.Cluster = clusterInfo(snapshot, c)
	return nil
}

// clusterInfo is what everybody who may look around is told of the swarm.
func clusterInfo(s *store.Snapshot, c *v1.Cluster) *v1.ClusterInfo {
	spec := lasting(c)
	info := &v1.ClusterInfo{
		ID: c.Meta.ID, CreatedAt: c.Meta.CreatedAt, UpdatedAt: c.Meta.UpdatedAt, TaskHistoryLimit: *spec.TaskHistoryLimit,
		GatewayPool: gatewayPool(s), AutoLock: spec.AutoLock, DefaultAddrPool: spec.DefaultAddrPool, SubnetSize: spec.SubnetSize,
		DataPathPort: spec.DataPathPort, HeartbeatPeriod: newsOf(s, nil).swarm.Heartbeat, NodeCertExpiry: *spec.NodeCertExpiry,
	}
	if a, err := authorityOf(s); err == nil {
		info.ID, info.TrustRoot, info.RootRotationInProgress = a.Spec.ClusterID, string(v1.SettledRoot(a)), v1.Rotating(a)
	}
	return info
}

func (s *Server) version(w http.ResponseWriter, r *http.Request) error {
	version, err := s.host.Version(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, version)
}

func (s *Server) init(w http.ResponseWriter, r *http.Request) error {
	body, err := s.readBody(w, r, maxBody)
	if err != nil {
		return err
	}
	var request v1.InitRequest
	if len(body) > 0 {
		if err := v1.DecodeStrict(body, &request); err != nil {
			return err
		}
	}
	node, err := s.host.Init(r.Context(), request)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v1.InitResult{NodeID: node})
}

func (s *Server) join(w http.ResponseWriter, r *http.Request) error {
	var request v1.JoinRequest
	if err := s.readInto(w, r, &request); err != nil {
		return err
	}
	result, err := s.host.Join(r.Context(), request)
	if err != nil {
		return err
	}
	noteWrite(r.Context(), v1.KindNode, result.NodeID, "", 0)
	return writeJSON(w, http.StatusOK, result)
}

func (s *Server) unlock(w http.ResponseWriter, r *http.Request) error {
	var request v1.UnlockRequest
	if err := s.readInto(w, r, &request); err != nil {
		return err
	}
	if err := s.host.Unlock(r.Context(), request.UnlockKey); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) leave(w http.ResponseWriter, r *http.Request) error {
	force, err := boolQuery(r, "force")
	if err != nil {
		return err
	}
	if err := s.host.Leave(r.Context(), force); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) images(w http.ResponseWriter, r *http.Request) error {
	list, err := s.host.Images(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, imageList{nonNil(list)})
}

// loadImages streams an archive to the daemon. It may take long, but not stand still.
func (s *Server) loadImages(w http.ResponseWriter, r *http.Request) error {
	archive := &movingReader{r: r, control: http.NewResponseController(w), within: s.limits.BodyTimeout}
	list, err := s.host.LoadImages(r.Context(), archive)
	if err != nil {
		w.Header().Set("Connection", "close") // the rest of the archive is not wanted
		return err
	}
	return writeJSON(w, http.StatusOK, imageList{nonNil(list)})
}

func nonNil[V any](list []V) []V {
	if list == nil {
		return []V{}
	}
	return list
}

// movingReader reads a body of any length, each part of which has to come within a time.
type movingReader struct {
	r       *http.Request
	control *http.ResponseController
	within  time.Duration
}

// Read implements io.Reader.
func (m *movingReader) Read(b []byte) (int, error) {
	_ = m.control.SetReadDeadline(time.Now().Add(m.within))
	n, err := m.r.Body.Read(b)
	_ = m.control.SetReadDeadline(time.Time{})
	return n, err
}
