package containerd

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

const (
	defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// initPath is where Docker puts its init, and tools look for it.
	initPath = "/sbin/docker-init"
	// cpuPeriod is the kernel's default, in microseconds.
	cpuPeriod = 100_000
)

// What Docker hides of /proc and /sys, and what it makes read-only.
var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// spec is what runc is told: Docker's defaults, the image's configuration, and over it what the container asks for. Volumes are
// where its volumes are.
func (r *Runtime) spec(c runtime.Container, i *image, volumes map[int]string) (*specs.Spec, error) {
	process, err := r.process(c, i)
	if err != nil {
		return nil, err
	}
	mounts, err := r.mounts(c, volumes)
	if err != nil {
		return nil, err
	}
	resources, err := r.resources(c)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:  specs.Version,
		Hostname: hostname(c),
		Process:  process,
		Root:     &specs.Root{Path: "rootfs", Readonly: c.Spec.ReadOnly},
		Mounts:   mounts,
		Linux: &specs.Linux{
			CgroupsPath:   r.cgroup.path(c.ID),
			Namespaces:    r.spaces(c),
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: readonlyPaths,
			Resources:     resources,
			Sysctl:        sysctls(c),
		},
	}
	if slices.ContainsFunc(mounts, func(m specs.Mount) bool { return slices.ContainsFunc(m.Options, isShared) }) {
		s.Linux.RootfsPropagation = "rslave"
	}
	s.Linux.Seccomp, err = seccompProfile(c.Spec.Privileges, s)
	return s, err
}

// process is the container's first process.
func (r *Runtime) process(c runtime.Container, i *image) (*specs.Process, error) {
	args, err := command(c.Spec, i)
	if err != nil {
		return nil, err
	}
	name := c.Spec.User
	if name == "" {
		name = i.config.User
	}
	user, err := findUser(name, c.Spec.Groups, i)
	if err != nil {
		return nil, err
	}
	caps, err := capabilities(c.Spec.CapabilityAdd, c.Spec.CapabilityDrop, user.UID)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(c.Spec.Ulimits)
	if err != nil {
		return nil, err
	}
	p := &specs.Process{
		Terminal:     c.Spec.TTY,
		User:         user,
		Args:         args,
		Env:          environment(c, i),
		Cwd:          firstOf(c.Spec.Dir, i.config.WorkingDir, "/"),
		Capabilities: caps,
		Rlimits:      limits,
	}
	if !strings.HasPrefix(p.Cwd, "/") {
		return nil, fmt.Errorf("the working directory %q is invalid, it needs to be an absolute path: %w", p.Cwd, runtime.ErrInvalid)
	}
	if score := int(c.Spec.OOMScoreAdj); score != 0 {
		p.OOMScoreAdj = &score
	} else {
		p.OOMScoreAdj = new(int) // else it would inherit the shim's, which protects it
	}
	if p := c.Spec.Privileges; p != nil {
		if l := p.SELinux; l != nil && !l.Disable && (l.User != "" || l.Role != "" || l.Type != "" || l.Level != "") {
			return nil, fmt.Errorf("SELinux labels are not supported yet: %w", runtime.ErrInvalid)
		}
	}
	p.NoNewPrivileges = c.Spec.Privileges != nil && c.Spec.Privileges.NoNewPrivileges
	return p, nil
}

// command is entrypoint and arguments. A new entrypoint drops the image's arguments, as in Docker.
func command(s v1.ContainerSpec, i *image) ([]string, error) {
	entrypoint, args := s.Command, s.Args
	if len(entrypoint) == 0 {
		entrypoint = i.config.Entrypoint
		if len(args) == 0 {
			args = i.config.Cmd
		}
	}
	all := slices.Concat(entrypoint, args)
	if len(all) == 0 {
		return nil, fmt.Errorf("no command specified, and the image has none: %w", runtime.ErrInvalid)
	}
	if all[0] == "" {
		return nil, fmt.Errorf("the command is empty: %w", runtime.ErrInvalid)
	}
	if s.Init != nil && *s.Init {
		all = append([]string{initPath, "--"}, all...)
	}
	for _, a := range all {
		if strings.ContainsRune(a, 0) {
			return nil, fmt.Errorf("a NUL byte in the command %q: %w", a, runtime.ErrInvalid)
		}
	}
	return all, nil
}

// environment is Docker's, then the image's, then the container's; later ones replace earlier ones, and a name without a
// value removes it.
func environment(c runtime.Container, i *image) []string {
	env := []string{defaultPath, "HOSTNAME=" + hostname(c)}
	if c.Spec.TTY {
		env = append(env, "TERM=xterm")
	}
	for _, e := range slices.Concat(i.config.Env, c.Spec.Env) {
		name, _, hasValue := strings.Cut(e, "=")
		at := slices.IndexFunc(env, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		switch {
		case at >= 0 && hasValue:
			env[at] = e
		case at >= 0:
			env = slices.Delete(env, at, at+1)
		case hasValue:
			env = append(env, e)
		}
	}
	return env
}

// hostname is Docker's default: the first twelve characters of the container's ID.
func hostname(c runtime.Container) string {
	return firstOf(c.Spec.Hostname, c.ID[:min(len(c.ID), 12)])
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// spaces are the kernel namespaces of the container.
func (r *Runtime) spaces(c runtime.Container) []specs.LinuxNamespace {
	all := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
		{Type: specs.NetworkNamespace, Path: c.NetNS},
	}
	if r.cgroup.unified { // as Docker: with version 1 the host's
		all = append(all, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return all
}

// sysctls adds Docker's two: anybody in a container may bind low ports and ping. A network namespace that was made for the
// container has them already, and over them what the user asked for, which must not be undone.
func sysctls(c runtime.Container) map[string]string {
	asked := c.Spec.Sysctls
	if c.NetNS != "" {
		return maps.Clone(asked)
	}
	all := make(map[string]string, len(asked)+2)
	for name, value := range map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	} {
		if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); err == nil {
			all[name] = value
		}
	}
	maps.Copy(all, asked)
	return all
}

// rlimits checks and translates ulimits; -1 is unlimited.
func rlimits(ulimits []v1.Ulimit) ([]specs.POSIXRlimit, error) {
	known := []string{"core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}
	var all []specs.POSIXRlimit
	for _, u := range ulimits {
		if !slices.Contains(known, u.Name) {
			return nil, fmt.Errorf("invalid ulimit type %q: want one of %s: %w", u.Name, strings.Join(known, ", "), runtime.ErrInvalid)
		}
		// As unsigned numbers -1 is the largest, which the kernel calls infinity.
		limit := specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)}
		if limit.Soft > limit.Hard {
			return nil, fmt.Errorf("ulimit %s: the soft limit %d is over the hard limit %d: %w", u.Name, u.Soft, u.Hard, runtime.ErrInvalid)
		}
		all = append(all, limit)
	}
	return all, nil
}

// seccompProfile is Docker's default filter unless the container asks for another or none. It depends on the
// capabilities, so they must be in the spec.
func seccompProfile(p *v1.Privileges, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	mode, custom := "", ""
	if p != nil && p.Seccomp != nil {
		mode, custom = p.Seccomp.Mode, p.Seccomp.Profile
	}
	switch mode {
	case "", "default":
		return seccomp.GetDefaultProfile(s)
	case "unconfined":
		return nil, nil
	case "custom":
		filter, err := seccomp.LoadProfile(custom, s)
		if err == nil && filter == nil {
			err = errors.New("it is empty")
		}
		if err != nil {
			return nil, fmt.Errorf("the custom seccomp profile: %w: %w", err, runtime.ErrInvalid)
		}
		return filter, nil
	}
	return nil, fmt.Errorf("invalid seccomp mode %q: want default, unconfined or custom: %w", mode, runtime.ErrInvalid)
}
