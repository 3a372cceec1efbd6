package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/moby/sys/signal"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// cleanupTimeout bounds what is undone after a failure, whose own context may have ended.
const cleanupTimeout = 30 * time.Second

// extension is the key under which a container's record carries meta.
const extension = "swarmd.container"

// meta is what we keep with a container's record. It is not kept in containerd's labels: those are short, and some of them
// mean something to containerd, which a user's must not.
type meta struct {
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// StopSignal is the spec's, or else the image's.
	StopSignal string `json:"stopSignal,omitempty"`
	// Healthcheck is the spec's, over the image's.
	Healthcheck *v1.Healthcheck `json:"healthcheck,omitempty"`
	// Owner is the paths.name of the Runtime that made the container: with Config.Address there may be another in the same
	// namespace.
	Owner string `json:"owner"`
	// Parts are the volumes that the container has a part of.
	Parts []string `json:"parts,omitempty"`
}

// Create implements runtime.Runtime. The container's first process is there afterwards, and waits: its command, user and
// mounts have been tried.
func (r *Runtime) Create(ctx context.Context, c runtime.Container) error {
	if err := validID(c.ID); err != nil {
		return err
	}
	if _, err := os.Stat(r.paths.mark(c.ID)); err == nil {
		return nil
	}
	ctx = r.namespaced(ctx)
	// What an earlier process left half made is in the way of the first attempt only.
	err := r.create(ctx, c)
	if errdefs.IsAlreadyExists(err) {
		if err = r.mayReplace(ctx, c.ID); err == nil {
			r.log.Info("containerd: making a container anew that was left half made", "task.id", c.ID)
			if err = r.remove(ctx, c.ID); err == nil {
				err = r.create(ctx, c)
			}
		}
	} else if err != nil { // half a container is none
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		err = errors.Join(err, r.remove(undo, c.ID))
	}
	if err != nil {
		return err
	}
	return os.WriteFile(r.paths.mark(c.ID), nil, 0o600)
}

// mayReplace refuses to touch a container that is somebody else's.
func (r *Runtime) mayReplace(ctx context.Context, id string) error {
	record, err := r.client.ContainerService().Get(ctx, id)
	if err != nil && !errdefs.IsNotFound(err) {
		return failed("create", id, err)
	}
	if owner := metaOf(record).Owner; owner != "" && owner != r.paths.name {
		return fmt.Errorf("containerd: create %s: there is a container of that name that %s made", id, owner)
	}
	return nil
}

// create makes record, snapshot and process. The record comes first: it is what keeps containerd's garbage collector from
// the snapshot.
func (r *Runtime) create(ctx context.Context, c runtime.Container) (err error) {
	record, image, err := r.image(ctx, c.Image)
	if err != nil {
		return err
	}
	if err := r.dropSubpaths(c.ID); err != nil { // of an earlier process
		return failed("create", c.ID, err)
	}
	defer func() { err = errors.Join(err, r.dropSubpaths(c.ID)) }()
	volumes, err := r.makeVolumes(ctx, c, image)
	if err != nil {
		return failed("create", c.ID, err)
	}
	spec, err := r.spec(c, image, volumes)
	if err != nil {
		return failed("create", c.ID, err)
	}
	if err := r.record(ctx, c, spec, image); err != nil {
		return failed("create", c.ID, err)
	}
	r.used(ctx, c.Image)
	mounts, err := r.client.SnapshotService(r.snapshotter).Prepare(ctx, c.ID, image.chain)
	if errdefs.IsNotFound(err) {
		// Somebody removed the snapshots since we read the image.
		r.images.drop(record.Target.Digest)
		if _, image, err = r.image(ctx, c.Image); err != nil {
			return err
		}
		mounts, err = r.client.SnapshotService(r.snapshotter).Prepare(ctx, c.ID, image.chain)
	}
	if err != nil {
		return failed("create", c.ID, err)
	}
	return r.task(ctx, c, mounts)
}

// record writes the container's record.
func (r *Runtime) record(ctx context.Context, c runtime.Container, spec *specs.Spec, i *image) error {
	stop, err := stopSignal(c, i)
	if err != nil {
		return err
	}
	specAny, err := typeurl.MarshalAny(spec)
	if err != nil {
		return err
	}
	// Docker's defaults for runc: its own keyring, its own pivot_root; only its state is kept elsewhere.
	runc, err := typeurl.MarshalAny(&options.Options{BinaryName: r.paths.bin("runc"), Root: r.paths.in("runc")})
	if err != nil {
		return err
	}
	more, err := json.Marshal(meta{Name: c.Name, Labels: labels(c), StopSignal: stop, Owner: r.paths.name, Healthcheck: healthcheck(c.Spec.Healthcheck, i), Parts: partly(c.Spec.Mounts)})
	if err != nil {
		return err
	}
	_, err = r.client.ContainerService().Create(ctx, containers.Container{
		ID:          c.ID,
		Image:       c.Image,
		Runtime:     containers.RuntimeInfo{Name: "io.containerd.runc.v2", Options: runc},
		Spec:        specAny,
		Snapshotter: r.snapshotter,
		SnapshotKey: c.ID,
		Extensions:  map[string]typeurl.Any{extension: &anypb.Any{TypeUrl: extension, Value: more}},
	})
	return err
}

// stopSignal is what the container wants to be stopped by. The image's may be nonsense, for which the user of it is not to
// be blamed.
func stopSignal(c runtime.Container, i *image) (string, error) {
	if name := c.Spec.StopSignal; name != "" {
		if _, err := signal.ParseSignal(name); err != nil {
			return "", fmt.Errorf("stop signal: %w: want one such as SIGTERM: %w", err, runtime.ErrInvalid)
		}
		return name, nil
	}
	if _, err := signal.ParseSignal(i.config.StopSignal); err != nil {
		return "SIGTERM", nil
	}
	return i.config.StopSignal, nil
}

// labels are those of the spec, under those of the container.
func labels(c runtime.Container) map[string]string {
	all := make(map[string]string, len(c.Spec.Labels)+len(c.Labels))
	maps.Copy(all, c.Spec.Labels)
	maps.Copy(all, c.Labels)
	return all
}

// task starts the shim, the logger and the container's first process, which waits for Start.
func (r *Runtime) task(ctx context.Context, c runtime.Container, mounts []mount.Mount) error {
	request := &tasks.CreateTaskRequest{ContainerID: c.ID, Terminal: c.Spec.TTY}
	for _, m := range mounts {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	if err := r.connect(ctx, c, request); err != nil {
		return failed("create", c.ID, err)
	}
	if _, err := r.client.TaskService().Create(ctx, request); err != nil {
		return failed("create", c.ID, explainRunc(errgrpc.ToNative(err)))
	}
	return nil
}

// loggerOptions are what swarm-logger is told.
func (r *Runtime) loggerOptions(c runtime.Container) url.Values {
	q := url.Values{"dir": {r.paths.logs(c.ID)}}
	if c.Log.MaxSize > 0 {
		q.Set("size", strconv.FormatInt(c.Log.MaxSize, 10))
	}
	if c.Log.MaxFiles > 0 {
		q.Set("files", strconv.Itoa(c.Log.MaxFiles))
	}
	if c.Spec.TTY || c.Spec.OpenStdin {
		q.Set("idle", strconv.FormatInt(attachedIdle.Milliseconds(), 10))
	}
	return q
}

// logger is the address of the container's log: a program for the shim to start.
func (r *Runtime) logger(c runtime.Container) string {
	scheme := "binary-v2" // which fails when the logger does; only containerds of 2.3 and later know it
	if r.daemon == nil {
		scheme = "binary"
	}
	return (&url.URL{Scheme: scheme, Path: r.paths.bin("swarm-logger"), RawQuery: r.loggerOptions(c).Encode()}).String()
}

// refusals are the beginnings of what runc says when what it was asked for cannot work, whenever it is tried.
var refusals = []string{"exec: ", "exec ", "chdir to cwd", "mkdir ", "error mounting ", "error setting rlimit", "sysctl ", "open sysctl ", "write sysctl"}

// explainRunc reduces the layers of containerd's and runc's errors to the one that tells a user what to change, as Docker
// does: exec: "nosuch": executable file not found in $PATH.
func explainRunc(err error) error {
	text := err.Error()
	for _, layer := range []string{"OCI runtime create failed: ", "OCI runtime start failed: ", "runc create failed: ", "runc start failed: ", "unable to start container process: ", "error during container init: "} {
		if i := strings.LastIndex(text, layer); i >= 0 {
			text = text[i+len(layer):]
		}
	}
	for _, start := range refusals {
		if strings.HasPrefix(text, start) {
			return &refusal{text}
		}
	}
	if text != err.Error() {
		return errors.New(text)
	}
	return err
}

// failed says what was done to which container. What is the user's to change goes without: the user reads it as the error
// of the task, and has asked for no containerd.
func failed(what, id string, err error) error {
	if errors.Is(err, runtime.ErrInvalid) {
		return err
	}
	return fmt.Errorf("containerd: %s %s: %w", what, id, err)
}

// refusal is an error whose text is the user's, and which is runtime.ErrInvalid.
type refusal struct{ text string }

// Error implements error.
func (e *refusal) Error() string { return e.text }

// Unwrap makes it runtime.ErrInvalid.
func (e *refusal) Unwrap() error { return runtime.ErrInvalid }

// validID refuses IDs that would be no file name, or no name of a control group.
func validID(id string) error {
	if id == "" || len(id) > 76 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
		return fmt.Errorf("containerd: %q is no container ID: want 1 to 76 letters, digits, - and _: %w", id, runtime.ErrInvalid)
	}
	return nil
}
