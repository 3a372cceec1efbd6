package v1

import (
	"cmp"
	"path"
	"strings"
)

// ContainerSpec is what runs in a task's container.
type ContainerSpec struct {
	// Image is a reference such as nginx:1.27 or nginx@sha256:….
	Image  string            `json:"image"`
	Labels map[string]string `json:"labels,omitempty"`
	// Command replaces the image's entrypoint; its first is the program, never empty.
	Command []string `json:"command,omitempty"`
	// Args replace the image's command.
	Args     []string `json:"args,omitempty"`
	Hostname string   `json:"hostname,omitempty"`
	// Env holds NAME=value.
	Env []string `json:"env,omitempty"`
	// Dir is the working directory.
	Dir string `json:"dir,omitempty"`
	// User is a name, or a number of 0 to 4294967294, with an optional :group.
	User       string      `json:"user,omitempty"`
	Groups     []string    `json:"groups,omitempty"`
	Privileges *Privileges `json:"privileges,omitempty"`
	// Init runs a small init as process 1, which reaps zombies and forwards signals.
	Init       *bool  `json:"init,omitempty"`
	StopSignal string `json:"stopSignal,omitempty"`
	// StopGracePeriod is the time between the stop signal and the kill; default 10 s.
	StopGracePeriod *Duration `json:"stopGracePeriod,omitempty"`
	// StopDrainDelay is how long a task that is to stop goes on with what it has, from when no name and no balancer of any node leads to
	// it any more until the stop signal; default 300 ms for a service on networks or with published ports, else 0.
	StopDrainDelay *Duration `json:"stopDrainDelay,omitempty"`
	TTY            bool      `json:"tty,omitempty"`
	OpenStdin      bool      `json:"openStdin,omitempty"`
	ReadOnly       bool      `json:"readOnly,omitempty"`
	Mounts         []Mount   `json:"mounts,omitempty"`
	// Healthcheck gates RUNNING and restarts what is unhealthy.
	Healthcheck *Healthcheck `json:"healthcheck,omitempty"`
	// Hosts are extra lines of /etc/hosts, each "IP name…".
	Hosts          []string          `json:"hosts,omitempty"`
	DNS            *DNSConfig        `json:"dns,omitempty"`
	Secrets        []FileReference   `json:"secrets,omitempty"`
	Configs        []FileReference   `json:"configs,omitempty"`
	Sysctls        map[string]string `json:"sysctls,omitempty"`
	CapabilityAdd  []string          `json:"capabilityAdd,omitempty"`
	CapabilityDrop []string          `json:"capabilityDrop,omitempty"`
	Ulimits        []Ulimit          `json:"ulimits,omitempty"`
	// OOMScoreAdj is -1000 to 1000.
	OOMScoreAdj int64 `json:"oomScoreAdj,omitempty"`
}

// Privileges are the security settings of a container.
type Privileges struct {
	NoNewPrivileges bool            `json:"noNewPrivileges,omitempty"`
	Seccomp         *SeccompConfig  `json:"seccomp,omitempty"`
	AppArmor        *AppArmorConfig `json:"appArmor,omitempty"`
	SELinux         *SELinuxConfig  `json:"seLinux,omitempty"`
}

// SeccompConfig chooses the system call filter: default, unconfined, or custom with a Profile in Docker's JSON.
type SeccompConfig struct {
	Mode    string `json:"mode,omitempty"`
	Profile string `json:"profile,omitempty"`
}

// AppArmorConfig chooses the AppArmor profile: default or disabled.
type AppArmorConfig struct {
	Mode string `json:"mode,omitempty"`
}

// SELinuxConfig sets the SELinux label.
type SELinuxConfig struct {
	Disable bool   `json:"disable,omitempty"`
	User    string `json:"user,omitempty"`
	Role    string `json:"role,omitempty"`
	Type    string `json:"type,omitempty"`
	Level   string `json:"level,omitempty"`
}

// Healthcheck is how a container is found to be healthy, with Docker's fields and meaning. Of Test, HTTP and TCP one is given; with
// none the image's test holds. What is 0 is the image's, and else as said here.
type Healthcheck struct {
	// Test is empty (the image's), {"NONE"}, {"CMD", args…} or {"CMD-SHELL", command}: it is run in the container, and exit code 0
	// means healthy.
	Test []string `json:"test,omitempty"`
	// HTTP and TCP are asked by the node, in the task's network namespace: the image needs no program for it.
	HTTP *HTTPProbe `json:"http,omitempty"`
	TCP  *TCPProbe  `json:"tcp,omitempty"`
	// Interval is between the end of one check and the beginning of the next; 30 s.
	Interval Duration `json:"interval,omitempty"`
	// Timeout is when a check has failed that has not ended; 30 s.
	Timeout Duration `json:"timeout,omitempty"`
	// StartPeriod is how long after its start failures of a container that was not healthy yet do not count.
	StartPeriod Duration `json:"startPeriod,omitempty"`
	// StartInterval is Interval in the start period; 5 s.
	StartInterval Duration `json:"startInterval,omitempty"`
	// Retries is how many failures in a row make a container unhealthy; 3.
	Retries int `json:"retries,omitempty"`
}

// HTTPProbe asks for a page of the task: an answer with a status of 200 to 399 is healthy. Redirects are not followed, and a
// certificate is not checked.
type HTTPProbe struct {
	// Port is in the container, on its loopback address.
	Port uint16 `json:"port"`
	// Path begins with a slash, and may have a query; default /.
	Path string `json:"path,omitempty"`
	// Scheme is http (default) or https.
	Scheme string `json:"scheme,omitempty"`
}

// TCPProbe connects to the task: a connection is healthy.
type TCPProbe struct {
	// Port is in the container, on its loopback address.
	Port uint16 `json:"port"`
}

// DNSConfig overrides the container's resolver settings.
type DNSConfig struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// FileReference puts a secret or a config into a container as a file.
type FileReference struct {
	// Source is the name or ID of the secret or config.
	Source string `json:"source"`
	// ID is what Source means. Whoever writes a service leaves it out: the API server finds it with each write, so that a task never
	// gets something else of the same name.
	ID string `json:"id,omitempty"`
	// Target is the path; default /run/secrets/<source> for a secret and /<source> for a config.
	Target string `json:"target,omitempty"`
	UID    string `json:"uid,omitempty"`
	GID    string `json:"gid,omitempty"`
	// Mode is the file's permission bits; default 0444.
	Mode *uint32 `json:"mode,omitempty"`
	// OnChange is what becomes of tasks when an update puts another secret or config at the target: restart (default) replaces them, none
	// changes the file under them, and signal sends SIGHUP to the container's first process after that.
	OnChange ChangeAction `json:"onChange,omitempty"`
}

// The folders below which secrets and configs are, unless their targets are whole paths.
const (
	SecretsFolder = "/run/secrets"
	ConfigsFolder = "/"
)

// At is the path of the file, whose kind belongs below the folder.
func (r *FileReference) At(folder string) string {
	at := cmp.Or(r.Target, r.Source)
	if at == "" || strings.HasPrefix(at, "/") {
		return at
	}
	return path.Join(folder, at)
}

// ChangeAction is what follows when a file of a task changes.
type ChangeAction string

// The change actions.
const (
	ChangeRestart ChangeAction = "restart"
	ChangeNone    ChangeAction = "none"
	ChangeSignal  ChangeAction = "signal"
)

// Live tells whether the file changes while the task runs.
func (r *FileReference) Live() bool { return r.OnChange == ChangeNone || r.OnChange == ChangeSignal }

// Ulimit is a resource limit of the container's processes; -1 is unlimited.
type Ulimit struct {
	Name string `json:"name"`
	Soft int64  `json:"soft"`
	Hard int64  `json:"hard"`
}

// Mount puts something into the container's file system.
type Mount struct {
	// Type is volume (default), bind or tmpfs.
	Type     MountType      `json:"type,omitempty"`
	Source   string         `json:"source,omitempty"`
	Target   string         `json:"target"`
	ReadOnly bool           `json:"readOnly,omitempty"`
	Bind     *BindOptions   `json:"bind,omitempty"`
	Volume   *VolumeOptions `json:"volume,omitempty"`
	Tmpfs    *TmpfsOptions  `json:"tmpfs,omitempty"`
}

// MountType is what a mount is of.
type MountType string

// The mount types.
const (
	MountVolume MountType = "volume"
	MountBind   MountType = "bind"
	MountTmpfs  MountType = "tmpfs"
)

// BindOptions are those of a bind mount.
type BindOptions struct {
	// Propagation is private, rprivate (default), shared, rshared, slave or rslave.
	Propagation string `json:"propagation,omitempty"`
	// Recursive is what becomes of what is mounted below the source: enabled (default), where read-only is for all of it as far as the
	// kernel can, readonly, where a kernel that cannot is an error, writable, where it is for the source alone, or disabled.
	Recursive string `json:"recursive,omitempty"`
}

// VolumeOptions are those of a volume mount.
type VolumeOptions struct {
	NoCopy bool `json:"noCopy,omitempty"`
	// Subpath is what of the volume is mounted: a path in it that must be there and does not lead out of it.
	Subpath string            `json:"subpath,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Driver  *Driver           `json:"driver,omitempty"`
}

// TmpfsOptions are those of a tmpfs mount.
type TmpfsOptions struct {
	Size Bytes  `json:"size,omitempty"`
	Mode uint32 `json:"mode,omitempty"`
}
