package daemon

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
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
		Warnings:        d.network.Warnings(),
	}
	if id := d.identity(); id != nil {
		info.ID = id.NodeID
		info.Swarm.NodeID, info.Swarm.NodeAddr = id.NodeID, id.Addr
		info.Swarm.LocalNodeState = v1.LocalNodeActive
		info.Swarm.ControlAvailable = id.Role == v1.RoleManager
		info.Swarm.RemoteManagers = []v1.Peer{{NodeID: id.NodeID, Addr: id.Addr}}
	}
	return info, nil
}

// identity is nil while the machine is in no swarm.
func (d *Daemon) identity() *identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.node == nil {
		return nil
	}
	return d.node.identity
}

// Version implements apiserver.Host.
func (d *Daemon) Version(context.Context) (v1.VersionInfo, error) { return versionInfo(d.engine), nil }

// Init implements apiserver.Host.
func (d *Daemon) Init(ctx context.Context, r v1.InitRequest) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.node != nil {
		return "", &v1.Problem{Title: "Already in a swarm", Status: http.StatusServiceUnavailable,
			Detail: `This node is already part of a swarm. Use "swarmctl swarm leave" to leave this swarm and join another one.`}
	}
	addr, err := checkInit(&r)
	if err != nil {
		return "", &v1.Problem{Title: "Bad request", Status: http.StatusBadRequest, Detail: err.Error()}
	}
	id := &identity{NodeID: v1.NewID(), Role: v1.RoleManager, Addr: addr, Init: &r}
	if err := id.save(d.o.Root); err != nil {
		return "", err
	}
	n, err := d.enter(ctx, id)
	if err != nil {
		return "", errors.Join(err, os.Remove(identityFile(d.o.Root)), os.RemoveAll(d.path("etcd")))
	}
	d.node = n
	d.log.Info("this node is the first manager of a new swarm", "node.id", id.NodeID, "addr", addr)
	return id.NodeID, nil
}

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
