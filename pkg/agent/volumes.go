package agent

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// A node says which volumes it has, in its description: tasks come back to them.

// describe is what this node is, and which volumes it has. Any goroutine may call it.
func (a *Agent) describe() v1.NodeDescription {
	d := a.o.Describe()
	if names := a.volumes.Load(); names != nil {
		d.Volumes = *names
	}
	return d
}

// lookAtVolumes finds out which volumes there are. Workers call it. Too many to be told are told in part.
func (a *Agent) lookAtVolumes(ctx context.Context) {
	all, err := a.o.Runtime.Volumes(ctx)
	if err != nil {
		a.log.Warn("cannot list the volumes; tasks may not come back to them", "err", err)
		return
	}
	names := make([]string, 0, len(all))
	size := 0
	for _, v := range all {
		if size += len(v.Name); size > v1.MaxNodeVolumes {
			a.log.Warn("this node has more volumes than it can tell of; tasks may not come back to the others", "volumes", len(all), "told", len(names))
			break
		}
		names = append(names, v.Name)
	}
	a.volumes.Store(&names)
}

// tunnelVolume removes a volume, or tells whether it could be, if it is the one that the manager wrote down that it may be.
func (a *Agent) tunnelVolume(ctx context.Context, may, name string, remove bool) v1.TunnelEnd {
	if name == "" || name != may {
		return v1.TunnelEnd{Error: "the tunnel is not for the removal of this volume", Invalid: true}
	}
	do := a.o.Runtime.CheckVolume
	if remove {
		do = a.o.Runtime.RemoveVolume
	}
	if err := do(ctx, name); err != nil {
		return v1.TunnelEnd{Error: forPeople.Replace(err.Error()), Invalid: errors.Is(err, engine.ErrInvalid)}
	}
	if remove {
		a.log.Info("a volume was removed", "volume", name)
		a.lookAtVolumes(ctx)
	}
	return v1.TunnelEnd{}
}

// tunnelInspectVolume tells what a volume of this node is like. The node's description has the names alone: it is kept small.
func (a *Agent) tunnelInspectVolume(ctx context.Context, to v1.Tunnel, v *v1.InspectVolumeStart) v1.TunnelEnd {
	all, err := a.o.Runtime.Volumes(ctx)
	if err != nil {
		return v1.TunnelEnd{Error: forPeople.Replace(err.Error())}
	}
	i := slices.IndexFunc(all, func(one engine.Volume) bool { return one.Name == v.Name })
	if i < 0 {
		return v1.TunnelEnd{Error: "there is no such volume", Invalid: true}
	}
	is := all[i]
	_ = json.NewEncoder(v1.FrameWriter{To: to, Kind: v1.FrameOutput}).Encode(v1.NodeVolume{Name: is.Name, Options: is.Options, Labels: is.Labels,
		CreatedAt: is.Created, Mountpoint: is.Mountpoint}) // who is gone needs no answer
	return v1.TunnelEnd{}
}

// hasVolumes tells whether a container has volumes.
func hasVolumes(c *v1.ContainerSpec) bool {
	for i := range c.Mounts {
		if c.Mounts[i].Type == v1.MountVolume {
			return true
		}
	}
	return false
}
