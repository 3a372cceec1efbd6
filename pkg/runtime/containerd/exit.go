package containerd

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	shim "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/ttrpc"
	"golang.org/x/sync/errgroup"
)

// askTimeout bounds how long one shim may take to answer.
const askTimeout = 2 * time.Second

// saveExits asks each shim how its container ended, and keeps that in the mark. A containerd that starts throws away the
// shims of containers that have ended, and what they know with them; so this comes before each start of one.
func (d *daemon) saveExits(ctx context.Context) {
	bundles, err := filepath.Glob(d.paths.in("state", "io.containerd.runtime.v2.task", d.namespace, "*"))
	if err != nil {
		return
	}
	var group errgroup.Group
	group.SetLimit(8)
	for _, bundle := range bundles {
		group.Go(func() error {
			id := filepath.Base(bundle)
			m, marked := d.paths.readMark(id)
			if !marked || m.Exit != nil {
				return nil
			}
			e, err := d.askShim(ctx, bundle, id)
			if err == nil && e != nil {
				m.Exit = e
				err = d.paths.writeMark(id, m)
			}
			if err != nil { // a shim that is dead has nothing to tell; the container then counts as lost
				d.log.Warn("containerd: the shim does not tell how its container is", "task.id", id, "error", err)
			}
			return nil
		})
	}
	_ = group.Wait() // each has told its own error
}

// askShim is how the bundle's container ended, or nil if it has not.
func (d *daemon) askShim(ctx context.Context, bundle, id string) (*exit, error) {
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, d.namespace), askTimeout)
	defer cancel()
	data, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if err != nil {
		return nil, err
	}
	var bootstrap struct {
		Address string `json:"address"`
	}
	if err := json.Unmarshal(data, &bootstrap); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", strings.TrimPrefix(bootstrap.Address, "unix://"))
	if err != nil {
		return nil, err
	}
	c := ttrpc.NewClient(conn)
	defer func() { _ = c.Close() }()
	state, err := shim.NewTTRPCTaskClient(c).State(ctx, &shim.StateRequest{ID: id})
	if err != nil || state.Status != task.Status_STOPPED {
		return nil, err
	}
	code := int(state.ExitStatus)
	return &exit{Code: code, OOMKilled: code != 0 && d.cgroup.oomKills(id) > 0, At: state.ExitedAt.AsTime()}, nil
}
