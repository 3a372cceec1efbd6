package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	fscopy "github.com/containerd/continuity/fs"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// A volume is a folder below Config.Volumes, as with Docker's local driver:
//
//	<name>/volume.json   what it was made with; it is written last, so that a folder without it is half made
//	<name>/_data         what containers see; with the option device, where that is mounted
//
// Nameless ones are below Root/anonymous, in a folder for each container.

const (
	volumeFile = "volume.json"
	volumeData = "_data"
	// maxVolumes bounds how many there may be on a machine.
	maxVolumes = 10_000
)

// volume is the folder of a volume.
func (p paths) volume(name string) string { return filepath.Join(p.volumes, name) }

// anonymous is the folder of a container's nameless volumes.
func (p paths) anonymous(id string) string { return p.in("anonymous", id) }

// makeVolumes makes the volumes of a container that are not here yet, and says where they are: by the mount's place in the spec.
func (r *Runtime) makeVolumes(ctx context.Context, c runtime.Container, i *image) (map[int]string, error) {
	at := make(map[int]string)
	for n, m := range c.Spec.Mounts {
		if m.Type != v1.MountVolume && m.Type != "" {
			continue
		}
		dir, err := r.makeVolume(ctx, c.ID, n, m, i)
		if err == nil && m.Volume != nil && m.Volume.Subpath != "" {
			dir, err = r.makeSubpath(c.ID, n, dir, m)
		}
		if err != nil {
			return nil, err
		}
		at[n] = dir
	}
	return at, nil
}

func (r *Runtime) makeVolume(ctx context.Context, id string, n int, m v1.Mount, i *image) (string, error) {
	v := runtime.Volume{Name: m.Source, Created: time.Now().UTC()}
	fill := true
	if o := m.Volume; o != nil {
		v.Labels, fill = o.Labels, !o.NoCopy && o.Subpath == "" // what the image has at the target is not of the whole volume
		if o.Driver != nil {
			v.Options = o.Driver.Options
		}
	}
	dir := filepath.Join(r.paths.anonymous(id), strconv.Itoa(n))
	if v.Name != "" {
		if err := v1.ValidateName(v1.KindVolume, v.Name); err != nil {
			return "", fmt.Errorf("volume %q: %w: %w", v.Name, err, runtime.ErrInvalid)
		}
		dir = r.paths.volume(v.Name)
	} else if len(v.Options) > 0 {
		return "", fmt.Errorf("mount of %s: a volume with driver options needs a name: want a source: %w", m.Target, runtime.ErrInvalid)
	}
	defer r.volumes.lock(dir)() // the first use of a volume fills it, and nobody sees it half filled
	kept, err := readVolume(dir)
	switch {
	case err == nil:
		return filepath.Join(dir, volumeData), mountVolume(dir, kept)
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("containerd: volume %s: %w", v.Name, err)
	}
	if err := v1.CheckVolumeOptions(v.Options); err != nil {
		return "", fmt.Errorf("volume %s: %w: %w", v.Name, err, runtime.ErrInvalid)
	}
	if err := r.newVolume(ctx, dir, v, fill, m.Target, i); err != nil {
		return "", err
	}
	return filepath.Join(dir, volumeData), nil
}

// newVolume makes a volume, with what the image has at the target in it where that is wanted.
func (r *Runtime) newVolume(ctx context.Context, dir string, v runtime.Volume, fill bool, target string, i *image) error {
	if entries, err := os.ReadDir(r.paths.volumes); err == nil && len(entries) >= maxVolumes && v.Name != "" {
		return fmt.Errorf("containerd: there are %d volumes on this node: remove some", len(entries))
	}
	data := filepath.Join(dir, volumeData)
	if err := dropMounts(data); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil { // half made by an earlier process
		return err
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(data, 0o755); err != nil {
		return err
	}
	if err := mountVolume(dir, v); err != nil {
		return err
	}
	if empty, err := isEmpty(data); err != nil || !empty {
		fill = false
	}
	if fill {
		if err := r.withImage(ctx, i.chain, func(root string) error { return fillVolume(data, root, target) }); err != nil {
			return fmt.Errorf("containerd: fill volume %s from the image: %w", v.Name, err)
		}
	}
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, volumeFile), body)
}

// fillVolume copies what the image has at a folder, owner and mode of the folder included.
func fillVolume(data, root, target string) error {
	from, err := fscopy.RootPath(root, target) // links in the image lead to places in the image
	if err != nil {
		return err
	}
	if info, err := os.Stat(from); err != nil || !info.IsDir() {
		return nil //nolint:nilerr // the image has no folder there
	}
	return fscopy.CopyDir(data, from, fscopy.WithAllowXAttrErrors())
}

func isEmpty(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	names, _ := d.Readdirnames(1) // none is what an empty folder ends with
	return len(names) == 0, nil
}

// mountVolume mounts what a volume's options say, unless it is mounted.
func mountVolume(dir string, v runtime.Volume) error {
	data := filepath.Join(dir, volumeData)
	if v.Options["device"] == "" || isMount(data) {
		return nil
	}
	kind, options := v.Options["type"], v.Options["o"]
	if strings.HasPrefix(kind, "nfs") || kind == "cifs" {
		var err error
		if options, err = resolveAddr(options); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	m := mount.Mount{Type: kind, Source: v.Options["device"]}
	if options != "" {
		m.Options = strings.Split(options, ",")
	}
	if err := m.Mount(data); err != nil {
		return fmt.Errorf("error while mounting volume '%s': %w", data, err)
	}
	return nil
}

// resolveAddr puts the address in the place of a host's name in addr=, for the kernel knows no names.
func resolveAddr(options string) (string, error) {
	parts := strings.Split(options, ",")
	for i, p := range parts {
		host, ok := strings.CutPrefix(p, "addr=")
		if !ok || net.ParseIP(host) != nil {
			continue
		}
		addr, err := net.ResolveIPAddr("ip", host)
		if err != nil {
			return "", fmt.Errorf("error resolving passed in network volume address: %w", err)
		}
		parts[i] = "addr=" + addr.String()
	}
	return strings.Join(parts, ","), nil
}

func readVolume(dir string) (runtime.Volume, error) {
	var v runtime.Volume
	body, err := os.ReadFile(filepath.Join(dir, volumeFile))
	if err != nil {
		return v, err
	}
	v.Mountpoint = filepath.Join(dir, volumeData)
	return v, json.Unmarshal(body, &v)
}

// Volumes implements runtime.Runtime.
func (r *Runtime) Volumes(context.Context) ([]runtime.Volume, error) {
	entries, err := os.ReadDir(r.paths.volumes)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("containerd: list volumes: %w", err)
	}
	var all []runtime.Volume
	for _, e := range entries {
		if v, err := readVolume(r.paths.volume(e.Name())); err == nil { // else it is half made, or being removed
			all = append(all, v)
		}
	}
	return all, nil
}

// CheckVolume implements runtime.Runtime. It waits for nobody who makes or removes the volume.
func (r *Runtime) CheckVolume(ctx context.Context, name string) error {
	if err := v1.ValidateName(v1.KindVolume, name); err != nil {
		return fmt.Errorf("volume %q: %w: %w", name, err, runtime.ErrInvalid)
	}
	records, err := r.client.ContainerService().List(r.namespaced(ctx))
	if err != nil {
		return fmt.Errorf("containerd: remove volume %s: %w", name, err)
	}
	source := []byte(strconv.Quote(filepath.Join(r.paths.volume(name), volumeData)))
	for _, record := range records {
		if record.Spec != nil && bytes.Contains(record.Spec.GetValue(), source) || slices.Contains(metaOf(record).Parts, name) {
			return fmt.Errorf("remove %s: volume is in use - [%s]", name, record.ID)
		}
	}
	return nil
}

// RemoveVolume implements runtime.Runtime.
func (r *Runtime) RemoveVolume(ctx context.Context, name string) error {
	dir := r.paths.volume(name)
	defer r.volumes.lock(dir)()
	if err := r.CheckVolume(ctx, name); err != nil {
		return err
	}
	if err := dropMounts(filepath.Join(dir, volumeData)); err != nil { // or all that is on the device would go
		return fmt.Errorf("containerd: remove volume %s: %w", name, err)
	}
	if err := os.Remove(filepath.Join(dir, volumeFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("containerd: remove volume %s: %w", name, err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("containerd: remove volume %s: %w", name, err)
	}
	return nil
}

// removeAnonymous removes a container's nameless volumes.
func (r *Runtime) removeAnonymous(id string) error { return os.RemoveAll(r.paths.anonymous(id)) }

// locks are held by name: a file server that does not answer holds up nobody but those who want its volume.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock waits until nobody holds the name, and holds it until unlock is called.
func (l *locks) lock(name string) (unlock func()) {
	for {
		l.mu.Lock()
		other, taken := l.held[name]
		if !taken {
			break
		}
		l.mu.Unlock()
		<-other
	}
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(map[string]chan struct{})
	}
	free := make(chan struct{})
	l.held[name] = free
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, name)
		close(free)
	}
}
