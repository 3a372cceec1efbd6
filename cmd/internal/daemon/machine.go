package daemon

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// machine is what does not change about the machine while the daemon runs.
type machine struct {
	hostname string
	kernel   string
	system   string
	memory   int64
	// generic are the generic resources that the daemon was told of.
	generic []v1.GenericResource
}

// thisMachine looks at the machine. Generic are its generic resources, as the flag has them.
func thisMachine(generic []string) (machine, error) {
	resources, err := v1.ParseGenericResources(generic)
	if err != nil {
		return machine{}, fmt.Errorf("--node-generic-resource: %w", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return machine{}, err
	}
	var memory unix.Sysinfo_t
	if err := unix.Sysinfo(&memory); err != nil {
		return machine{}, err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return machine{}, err
	}
	return machine{
		hostname: hostname,
		kernel:   string(bytes.TrimRight(name.Release[:], "\x00")),
		system:   prettyName("/etc/os-release"),
		memory:   int64(memory.Totalram) * int64(memory.Unit),
		generic:  resources,
	}, nil
}

// prettyName is what an os-release file calls the system.
func prettyName(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "Linux"
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			if name, err := strconv.Unquote(value); err == nil {
				return name
			}
			return value
		}
	}
	return "Linux"
}

// describe is the machine as its agent reports it. Addr is the node's, with or without a port.
func (m machine) describe(runtimeVersion, addr string) v1.NodeDescription {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		addr = host
	}
	return v1.NodeDescription{
		Addr:     addr,
		Hostname: m.hostname,
		Platform: v1.Platform{Architecture: architecture(), OS: runtime.GOOS},
		Resources: v1.NodeResources{
			CPUs:    v1.CPUs(runtime.NumCPU()) * 1e9,
			Memory:  v1.Bytes(m.memory),
			Generic: m.generic,
		},
		Engine: v1.Engine{Version: Version(), Runtime: runtimeVersion},
	}
}

// architecture is the machine's in the words of uname, as Docker's nodes give it.
func architecture() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// Version is that of the build: a release's tag, or what the build info knows of the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return strings.TrimPrefix(v, "v")
	}
	if commit := setting(info, "vcs.revision"); commit != "" {
		return "devel-" + commit[:min(12, len(commit))]
	}
	return "devel"
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// versionInfo is the answer to "swarmctl version".
func versionInfo(runtimeVersion string) v1.VersionInfo {
	v := v1.VersionInfo{Version: Version(), APIVersion: v1.APIVersion, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.GitCommit, v.BuildTime = setting(info, "vcs.revision"), setting(info, "vcs.time")
	for _, m := range info.Deps {
		if m.Path == "go.etcd.io/etcd/server/v3" {
			v.Components = append(v.Components, v1.ComponentVersion{Name: "etcd", Version: strings.TrimPrefix(m.Version, "v")})
		}
	}
	for part := range strings.SplitSeq(runtimeVersion, ", ") {
		if name, version, ok := strings.Cut(part, " "); ok {
			v.Components = append(v.Components, v1.ComponentVersion{Name: name, Version: version})
		}
	}
	return v
}
