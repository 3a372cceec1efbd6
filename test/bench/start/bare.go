package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
)

// cgroup is the parent of the control groups, by which they are found again.
const cgroup = "/swarm-bench-start"

// bare is what the documentation of containerd's client shows: no log, no limits, no seccomp, no network.
type bare struct {
	client    *client.Client
	namespace string
	image     client.Image
	// runcRoot keeps runc's state where it goes with the rest.
	runcRoot string
}

func newBare(ctx context.Context, o settings) (*bare, error) {
	c, err := client.New(o.address)
	if err != nil {
		return nil, err
	}
	b := &bare{client: c, namespace: o.namespace, runcRoot: o.root}
	f, err := os.Open(o.archive)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	defer f.Close()
	images, err := c.Import(b.in(ctx), f)
	if err != nil || len(images) == 0 {
		return nil, errors.Join(fmt.Errorf("import %s: %d images: %w", o.archive, len(images), err), c.Close())
	}
	b.image = client.NewImage(c, images[0])
	if err := b.image.Unpack(b.in(ctx), ""); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return b, nil
}

func (b *bare) in(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, b.namespace)
}

// close also removes the parent group that runc made.
func (b *bare) close() error {
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
	for _, group := range append(groups, "/sys/fs/cgroup"+cgroup) {
		if rerr := os.Remove(group); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return errors.Join(err, b.client.Close())
}

func (b *bare) name() string { return "bare" }

func (b *bare) start(ctx context.Context, id string) error {
	ctx = b.in(ctx)
	made := []client.NewContainerOpts{client.WithNewSnapshot(id, b.image), client.WithNewSpec(oci.WithImageConfig(b.image), oci.WithCgroup(cgroup+"/"+id))}
	if b.runcRoot != "" {
		made = append(made, client.WithRuntime("io.containerd.runc.v2", &options.Options{Root: b.runcRoot + "/bench-runc"}))
	}
	c, err := b.client.NewContainer(ctx, id, made...)
	if err != nil {
		return err
	}
	task, err := c.NewTask(ctx, cio.NullIO)
	if err != nil {
		return err
	}
	return task.Start(ctx)
}

func (b *bare) remove(ctx context.Context, id string) error {
	ctx = b.in(ctx)
	c, err := b.client.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if task, err := c.Task(ctx, nil); err == nil {
		ended, err := task.Wait(ctx)
		if err != nil {
			return err
		}
		if err := task.Kill(ctx, syscall.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		<-ended
		if _, err := task.Delete(ctx); err != nil {
			return err
		}
	}
	return c.Delete(ctx, client.WithSnapshotCleanup)
}
