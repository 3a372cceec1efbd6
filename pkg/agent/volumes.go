package agent

import (
	"context"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
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

// hasVolumes tells whether a container has volumes.
func hasVolumes(c *v1.ContainerSpec) bool {
	for i := range c.Mounts {
		if c.Mounts[i].Type == v1.MountVolume {
			return true
		}
	}
	return false
}
