package daemon

import (
	"context"
	"io"
	"net/http"
	goruntime "runtime"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// apiHost is the machine of an API server that runs alone: it has a swarm, and no containers.
type apiHost struct{ machine machine }

// Info implements apiserver.Host.
func (h apiHost) Info(context.Context) (v1.Info, error) {
	return v1.Info{
		Name:            h.machine.hostname,
		ServerVersion:   Version(),
		OperatingSystem: h.machine.system,
		OSType:          goruntime.GOOS,
		Architecture:    architecture(),
		KernelVersion:   h.machine.kernel,
		NCPU:            goruntime.NumCPU(),
		MemTotal:        h.machine.memory,
		Swarm:           v1.SwarmInfo{LocalNodeState: v1.LocalNodeActive, ControlAvailable: true},
	}, nil
}

// Version implements apiserver.Host.
func (h apiHost) Version(context.Context) (v1.VersionInfo, error) { return versionInfo(""), nil }

// Init implements apiserver.Host.
func (h apiHost) Init(context.Context, v1.InitRequest) (string, error) {
	return "", alone("this API server works on an etcd of its own, and has its swarm: there is nothing to init")
}

// Leave implements apiserver.Host.
func (h apiHost) Leave(context.Context, bool) error {
	return alone("this API server works on an etcd of its own: stop the agent on the node that is to leave, and remove the node")
}

// Join implements apiserver.Host.
func (h apiHost) Join(context.Context, v1.JoinRequest) (v1.JoinResult, error) {
	return v1.JoinResult{}, alone("this API server works on an etcd of its own, and has its swarm: run an agent, or swarmd, to join another")
}

// Unlock implements apiserver.Host.
func (h apiHost) Unlock(context.Context, string) error {
	return alone("this API server works on an etcd of its own, which swarmd does not lock")
}

// Restore implements apiserver.Host.
func (h apiHost) Restore(context.Context, v1.InitRequest, io.Reader) (string, error) {
	return "", alone("this API server works on an etcd of its own: restore that one, with its own tools")
}

// Images implements apiserver.Host.
func (h apiHost) Images(context.Context) ([]v1.Image, error) {
	return nil, alone("this API server runs no containers and has no images")
}

// LoadImages implements apiserver.Host.
func (h apiHost) LoadImages(context.Context, io.Reader) ([]v1.Image, error) {
	return nil, alone("this API server runs no containers: load images on the nodes that do")
}

func alone(detail string) error {
	return &v1.Problem{Title: "Not here", Status: http.StatusNotImplemented, Detail: detail}
}
