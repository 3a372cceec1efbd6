package main

import (
	"context"
	"fmt"
	"os"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/runtime/containerd"
)

// ours is the runtime of swarmd with all that a task has but its network: log, seccomp, limits.
type ours struct {
	runtime *containerd.Runtime
	image   string
}

func newOurs(ctx context.Context, o settings, r *containerd.Runtime) (*ours, error) {
	f, err := os.Open(o.archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	images, err := r.Load(ctx, f)
	if err != nil {
		return nil, err
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("no image in %s", o.archive)
	}
	return &ours{r, images[0].Name}, nil
}

func (o *ours) name() string { return "swarmd" }

func (o *ours) start(ctx context.Context, id string) error {
	image, err := o.runtime.Pull(ctx, o.image, runtime.Source{})
	if err != nil {
		return err
	}
	err = o.runtime.Create(ctx, runtime.Container{
		ID: id, Name: id, Image: image.Name,
		Spec:   v1.ContainerSpec{Image: image.Name},
		Limits: v1.ResourceLimits{CPUs: 1e9, Memory: 256 << 20, PIDs: 100},
	})
	if err != nil {
		return err
	}
	_, err = o.runtime.Start(ctx, id)
	return err
}

func (o *ours) remove(ctx context.Context, id string) error {
	if err := o.runtime.Remove(ctx, id); err != nil {
		return err
	}
	return o.runtime.RemoveLog(ctx, id)
}
