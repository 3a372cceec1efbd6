package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// mounts are Docker's, those of the spec, the files from memory, the init, and the agent's files, the outer before the inner.
func (r *Runtime) mounts(c runtime.Container, volumes map[int]string) ([]specs.Mount, error) {
	var own []specs.Mount
	for n, m := range c.Spec.Mounts {
		made, err := mountOf(m, volumes[n])
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(own, func(o specs.Mount) bool { return o.Destination == made.Destination }) {
			return nil, fmt.Errorf("duplicate mount point %s: %w", m.Target, runtime.ErrInvalid)
		}
		own = append(own, made)
	}
	files, err := r.fileMounts(c.ID)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if slices.ContainsFunc(own, func(o specs.Mount) bool { return o.Destination == f.Destination }) {
			return nil, fmt.Errorf("duplicate mount point %s: %w", f.Destination, runtime.ErrInvalid)
		}
		own = append(own, f)
	}
	for target, source := range c.Files {
		own = append(own, specs.Mount{Destination: path.Clean(target), Source: source, Type: "bind", Options: []string{"rbind", "rprivate"}})
	}
	if c.Spec.Init != nil && *c.Spec.Init {
		own = append(own, specs.Mount{Destination: initPath, Source: r.paths.bin("init"), Type: "bind", Options: []string{"bind", "ro", "rprivate"}})
	}
	slices.SortStableFunc(own, func(a, b specs.Mount) int {
		return strings.Count(a.Destination, "/") - strings.Count(b.Destination, "/")
	})
	// What the container mounts itself replaces Docker's, such as a larger /dev/shm.
	all := slices.DeleteFunc(r.defaultMounts(), func(m specs.Mount) bool {
		return slices.ContainsFunc(own, func(o specs.Mount) bool { return o.Destination == m.Destination })
	})
	return append(all, own...), nil
}

func (r *Runtime) defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
	}
}

// mountOf translates one mount of the spec; a volume is at the path.
func mountOf(m v1.Mount, volume string) (specs.Mount, error) {
	if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
		return specs.Mount{}, fmt.Errorf("invalid mount target %q: want an absolute path other than /: %w", m.Target, runtime.ErrInvalid)
	}
	made := specs.Mount{Destination: path.Clean(m.Target), Source: m.Source}
	switch m.Type {
	case v1.MountBind:
		return bind(m, made)
	case v1.MountTmpfs:
		made.Type, made.Source = "tmpfs", "tmpfs"
		made.Options = []string{"nosuid", "nodev", "noexec"}
		if t := m.Tmpfs; t != nil && t.Size > 0 {
			made.Options = append(made.Options, "size="+strconv.FormatInt(int64(t.Size), 10))
		}
		if t := m.Tmpfs; t != nil && t.Mode != 0 {
			made.Options = append(made.Options, "mode="+strconv.FormatUint(uint64(t.Mode), 8))
		}
		if m.ReadOnly {
			made.Options = append(made.Options, "ro")
		}
		return made, nil
	}
	made.Type, made.Source, made.Options = "bind", volume, []string{"rbind", "rprivate"}
	if m.ReadOnly {
		made.Options = append(made.Options, "ro")
	}
	return made, nil
}

// bind mounts a path of this machine, which must be there: making it up would hide a mistake.
func bind(m v1.Mount, made specs.Mount) (specs.Mount, error) {
	if !path.IsAbs(m.Source) {
		return made, fmt.Errorf("invalid mount source %q: want an absolute path: %w", m.Source, runtime.ErrInvalid)
	}
	if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
		return made, fmt.Errorf("invalid mount config for type \"bind\": bind source path does not exist: %s: %w", m.Source, runtime.ErrInvalid)
	}
	propagation := "rprivate"
	if m.Bind != nil && m.Bind.Propagation != "" {
		propagation = m.Bind.Propagation
	}
	if !slices.Contains([]string{"private", "rprivate", "shared", "rshared", "slave", "rslave"}, propagation) {
		return made, fmt.Errorf("invalid bind propagation %q: want private, rprivate, shared, rshared, slave or rslave: %w", propagation, runtime.ErrInvalid)
	}
	recursive := ""
	if m.Bind != nil {
		recursive = m.Bind.Recursive
	}
	made.Type, made.Options = "bind", []string{"rbind", propagation}
	if recursive == "disabled" {
		made.Options[0] = "bind"
	}
	if !m.ReadOnly {
		return made, nil
	}
	made.Options = append(made.Options, "ro")
	switch able := canMountAttributes(); {
	case recursive == "readonly" && !able:
		return made, fmt.Errorf("bind-recursive=readonly: the kernel of this node cannot, want Linux 5.12 or later: %w", runtime.ErrInvalid)
	case recursive != "disabled" && recursive != "writable" && able:
		made.Options = append(made.Options, "rro")
	}
	return made, nil
}

// canMountAttributes tells whether the kernel can make what is mounted below a mount read-only too.
func canMountAttributes() bool {
	return !errors.Is(unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}), unix.ENOSYS)
}

// isShared tells whether a mount option needs the root to receive mounts.
func isShared(option string) bool {
	return slices.Contains([]string{"shared", "rshared", "slave", "rslave"}, option)
}
