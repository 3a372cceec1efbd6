package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	goruntime "runtime"
	"slices"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/store"
)

// Info implements apiserver.Host.
func (d *Daemon) Info(ctx context.Context) (v1.Info, error) {
	engine, err := d.runtime.Info(ctx)
	if err != nil {
		return v1.Info{}, err
	}
	images, err := d.runtime.Images(ctx)
	if err != nil {
		return v1.Info{}, err
	}
	info := v1.Info{
		Name:            d.machine.hostname,
		ServerVersion:   Version(),
		OperatingSystem: d.machine.system,
		OSType:          goruntime.GOOS,
		Architecture:    architecture(),
		KernelVersion:   d.machine.kernel,
		NCPU:            goruntime.NumCPU(),
		MemTotal:        d.machine.memory,
		DefaultRuntime:  engine.Version,
		CgroupVersion:   strconv.Itoa(engine.Cgroup),
		RootDir:         d.o.Root,
		Images:          len(images),
		Swarm:           v1.SwarmInfo{LocalNodeState: v1.LocalNodeInactive},
	}
	if d.network != nil {
		info.Warnings = d.network.Warnings()
	}
	if n := d.inside.Load(); n != nil {
		info.ID = n.remembers().NodeID
		info.Swarm = n.info(ctx)
	}
	return info, nil
}

// info is what the node knows of its place in the swarm.
func (n *node) info(ctx context.Context) v1.SwarmInfo {
	n.mu.Lock()
	m := n.manager
	i := v1.SwarmInfo{
		NodeID: n.identity.NodeID, NodeAddr: hostOf(n.identity.Addr), LocalNodeState: v1.LocalNodeActive,
		Error: n.trouble, RemoteManagers: slices.Clone(n.managers),
	}
	locked, broken, arrived := n.locked, n.broken, n.arrived
	n.mu.Unlock()
	i.ControlAvailable = m != nil && m.up()
	if m != nil && len(i.RemoteManagers) == 0 {
		i.RemoteManagers = []v1.Peer{{NodeID: i.NodeID, Addr: n.remembers().Addr}}
	}
	switch {
	case locked:
		i.LocalNodeState = v1.LocalNodeLocked
	case i.ControlAvailable:
		i.Error = m.leaderless(ctx)
		i.Warnings = n.managerWarnings(ctx, m)
	case m != nil:
		i.LocalNodeState = v1.LocalNodePending
		if err := m.trouble(); err != nil {
			i.Error = err.Error()
		}
	case broken:
		i.LocalNodeState = v1.LocalNodeError
	case !arrived:
		i.LocalNodeState = v1.LocalNodePending
	}
	return i
}

func hostOf(addr string) string {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// leaderless is what is to be said where the managers have no leader just now, and empty where they have.
func (m *manager) leaderless(ctx context.Context) string {
	s := m.opened()
	if s == nil {
		return ""
	}
	asking, cancel := context.WithTimeout(ctx, hearWithin)
	defer cancel()
	if _, err := s.Sync(asking); err != nil && ctx.Err() == nil {
		return "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers " +
			"are online. What this manager shows is from before."
	}
	return ""
}

// twoManagers is Docker's advice.
const twoManagers = "Running Swarm in a two-manager configuration. This configuration provides no fault tolerance, and poses a high risk " +
	"to lose control over the cluster: where one of the two is lost, nothing can be changed any more. Have three managers, or one."

func (n *node) managerWarnings(ctx context.Context, m *manager) []string {
	s := m.opened()
	if s == nil {
		return nil
	}
	snapshot, err := s.Snapshot(ctx, 0)
	if err != nil {
		return nil
	}
	managers := 0
	for o := range store.All(snapshot, v1.Nodes) {
		if o.Spec.Role == v1.RoleManager {
			managers++
		}
	}
	if managers == 2 {
		return []string{twoManagers}
	}
	return nil
}

// Version implements apiserver.Host.
func (d *Daemon) Version(context.Context) (v1.VersionInfo, error) { return versionInfo(d.engine), nil }

// Images implements apiserver.Host.
func (d *Daemon) Images(ctx context.Context) ([]v1.Image, error) {
	images, err := d.runtime.Images(ctx)
	return told(images), err
}

// LoadImages implements apiserver.Host.
func (d *Daemon) LoadImages(ctx context.Context, archive io.Reader) ([]v1.Image, error) {
	images, err := d.runtime.Load(ctx, archive)
	if errors.Is(err, runtime.ErrInvalid) {
		return nil, &v1.Problem{Title: "Not an image archive", Status: http.StatusBadRequest, Detail: err.Error()}
	}
	return told(images), err
}

func told(images []runtime.Image) []v1.Image {
	all := make([]v1.Image, 0, len(images))
	for _, i := range images {
		all = append(all, v1.Image(i))
	}
	slices.SortFunc(all, func(a, b v1.Image) int { return b.Created.Compare(a.Created) })
	return all
}
