package containerd

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	containerregistry "github.com/google/go-containerregistry/pkg/v1"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// yes is for fields that are nil by default.
var yes = true

// TestSpec runs containers and reads what they see.
func TestSpec(t *testing.T) {
	r := theRuntime(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "file"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		spec v1.ContainerSpec
		more func(*runtime.Container)
		want []string // lines that are in the output
	}{
		{name: "defaults", args: []string{"id", "", "cwd", "", "pid", "", "env", "FROM", "env", "HOSTNAME", "links", ""},
			want: []string{"0 0 [0]", "/", "1", "image", "lo"}},
		{name: "env", args: []string{"env", "BOTH", "env", "NEW", "env", "FROM"},
			spec: v1.ContainerSpec{Env: []string{"BOTH=mine", "NEW=a=b", "FROM"}}, want: []string{"mine", "a=b", ""}},
		{name: "home of the user", args: []string{"env", "HOME"}, spec: v1.ContainerSpec{User: "anna"}, want: []string{"/data"}},
		{name: "user by name", args: []string{"id"}, spec: v1.ContainerSpec{User: "anna"}, want: []string{"1001 1002 [1002 1003]"}},
		{name: "user and group", args: []string{"id"}, spec: v1.ContainerSpec{User: "anna:more"}, want: []string{"1001 1004 [1004]"}},
		{name: "user by number", args: []string{"id"}, spec: v1.ContainerSpec{User: "77:78"}, want: []string{"77 78 [78]"}},
		{name: "groups", args: []string{"id"}, spec: v1.ContainerSpec{Groups: []string{"staff", "99"}}, want: []string{"0 0 [0 99 1002]"}},
		{name: "dir is made", args: []string{"cwd"}, spec: v1.ContainerSpec{Dir: "/new/dir"}, want: []string{"/new/dir"}},
		{name: "hostname", args: []string{"hostname", "", "env", "HOSTNAME"}, spec: v1.ContainerSpec{Hostname: "web-1"}, want: []string{"web-1", "web-1"}},
		{name: "command replaces the entrypoint", spec: v1.ContainerSpec{Command: []string{"workload", "out"}}, args: []string{"by path"}, want: []string{"by path"}},
		{name: "capabilities", args: []string{"cat", "/proc/self/status"},
			want: []string{"CapBnd:\t00000000a80425fb", "CapEff:\t00000000a80425fb", "CapInh:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t0"}},
		{name: "capabilities of a user", args: []string{"cat", "/proc/self/status"}, spec: v1.ContainerSpec{User: "anna"},
			want: []string{"CapBnd:\t00000000a80425fb", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000"}},
		{name: "drop and add", args: []string{"cat", "/proc/self/status"},
			spec: v1.ContainerSpec{CapabilityDrop: []string{"all"}, CapabilityAdd: []string{"net_admin", "CAP_CHOWN"}}, want: []string{"CapEff:\t0000000000001001"}},
		{name: "add all", args: []string{"cat", "/proc/self/status"},
			spec: v1.ContainerSpec{CapabilityAdd: []string{"ALL"}, CapabilityDrop: []string{"chown"}}, want: []string{fmt.Sprintf("CapEff:\t%016x", ownCapabilities(t)&^1)}},
		{name: "no new privileges", args: []string{"cat", "/proc/self/status"},
			spec: v1.ContainerSpec{Privileges: &v1.Privileges{NoNewPrivileges: true}}, want: []string{"NoNewPrivs:\t1"}},
		{name: "seccomp forbids", args: []string{"unshare"}, want: []string{"operation not permitted"}},
		{name: "seccomp unconfined", args: []string{"cat", "/proc/self/status", "unshare"},
			spec: v1.ContainerSpec{Privileges: &v1.Privileges{Seccomp: &v1.SeccompConfig{Mode: "unconfined"}}}, want: []string{"Seccomp:\t0"}},
		{name: "seccomp custom", args: []string{"cat", "/proc/self/status", "hostname"},
			spec: v1.ContainerSpec{Privileges: &v1.Privileges{Seccomp: &v1.SeccompConfig{Mode: "custom",
				Profile: `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["sethostname"],"action":"SCMP_ACT_ERRNO"}]}`}}}, want: []string{"Seccomp:\t2"}},
		{name: "read-only", args: []string{"write", "/data/x", "write", "/dev/shm/x"}, spec: v1.ContainerSpec{ReadOnly: true},
			want: []string{"open /data/x: read-only file system", "wrote /dev/shm/x"}},
		{name: "writable", args: []string{"write", "/data/x"}, want: []string{"wrote /data/x"}},
		{name: "proc is guarded", args: []string{"write", "/proc/sys/kernel/domainname", "cat", "/proc/kcore"},
			want: []string{"open /proc/sys/kernel/domainname: read-only file system"}},
		{name: "sysctls", args: []string{"cat", "/proc/sys/net/ipv4/ip_forward", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"},
			spec: v1.ContainerSpec{Sysctls: map[string]string{"net.ipv4.ip_forward": "1"}}, want: []string{"1", "0"}},
		{name: "ulimits", args: []string{"cat", "/proc/self/limits"}, spec: v1.ContainerSpec{Ulimits: []v1.Ulimit{{Name: "core", Soft: 5, Hard: 7}, {Name: "stack", Soft: 8 << 20, Hard: -1}}},
			want: []string{"Max core file size        5                    7                    bytes     ", "Max stack size            8388608              unlimited            bytes     "}},
		{name: "tty", args: []string{"tty", "", "env", "TERM"}, spec: v1.ContainerSpec{TTY: true}, want: []string{"tty true\r", "xterm\r"}},
		{name: "no tty", args: []string{"tty"}, want: []string{"tty false"}},
		{name: "init", args: []string{"pid", "", "cat", "/proc/1/comm"}, spec: v1.ContainerSpec{Init: &yes}, want: []string{"docker-init"}},
		{name: "oom score", args: []string{"cat", "/proc/self/oom_score_adj"}, want: []string{"0"}},
		{name: "oom score set", args: []string{"cat", "/proc/self/oom_score_adj"}, spec: v1.ContainerSpec{OOMScoreAdj: 500}, want: []string{"500"}},
		{name: "files", args: []string{"cat", "/etc/hosts"}, more: func(c *runtime.Container) {
			c.Files = map[string]string{"/etc/hosts": filepath.Join(host, "file")}
		}, want: []string{"of the host"}},
		{name: "bind", args: []string{"cat", "/mnt/file", "write", "/mnt/file"},
			spec: v1.ContainerSpec{Mounts: []v1.Mount{{Type: v1.MountBind, Source: host, Target: "/mnt", ReadOnly: true}}},
			want: []string{"of the hostopen /mnt/file: read-only file system"}},
		{name: "tmpfs", args: []string{"write", "/scratch/x", "cat", "/proc/mounts"},
			spec: v1.ContainerSpec{ReadOnly: true, Mounts: []v1.Mount{{Type: v1.MountTmpfs, Target: "/scratch", Tmpfs: &v1.TmpfsOptions{Size: 1 << 20, Mode: 0o700}}}},
			want: []string{"wrote /scratch/x", "tmpfs /scratch tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k,mode=700 0 0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := container(test.args...)
			test.spec.Args, test.spec.Image = test.args, imageName
			c.Spec = test.spec
			if test.more != nil {
				test.more(&c)
			}
			s := run(t, r, c)
			got := output(t, r, c.ID)
			if s.ExitCode != 0 {
				t.Errorf("exit code %d: %s", s.ExitCode, got)
			}
			lines := strings.Split(got, "\n")
			for _, want := range test.want {
				found := false
				for _, line := range lines {
					found = found || line == want
				}
				if !found {
					t.Errorf("no line %q in %q", want, got)
				}
			}
		})
	}
}

// TestBad is what can never work: each is runtime.ErrInvalid, says what a user can understand, and leaves nothing.
func TestBad(t *testing.T) {
	r := theRuntime(t)
	for _, test := range []struct {
		name string
		spec v1.ContainerSpec
		more func(*runtime.Container)
		want string
	}{
		{name: "no such command", spec: v1.ContainerSpec{Command: []string{"nosuch"}}, want: `exec: "nosuch": executable file not found in $PATH`},
		{name: "no such file", spec: v1.ContainerSpec{Command: []string{"/no/such"}}, want: `exec: "/no/such": stat /no/such: no such file or directory`},
		{name: "not executable", spec: v1.ContainerSpec{Command: []string{"/bin/plain"}}, want: `exec: "/bin/plain": permission denied`},
		{name: "a folder", spec: v1.ContainerSpec{Command: []string{"/etc"}}, want: `exec: "/etc": is a directory`},
		{name: "no such user", spec: v1.ContainerSpec{User: "nosuch"}, want: "unable to find user nosuch: no matching entries in passwd file"},
		{name: "no such group", spec: v1.ContainerSpec{User: "anna:nosuch"}, want: "unable to find group nosuch: no matching entries in group file"},
		{name: "dir is a file", spec: v1.ContainerSpec{Dir: "/etc/passwd"}, want: "not a directory"},
		{name: "relative dir", spec: v1.ContainerSpec{Dir: "data"}, want: `the working directory "data" is invalid, it needs to be an absolute path`},
		{name: "capability", spec: v1.ContainerSpec{CapabilityAdd: []string{"FLY"}}, want: `invalid capability "FLY"`},
		{name: "seccomp profile", spec: v1.ContainerSpec{Privileges: &v1.Privileges{Seccomp: &v1.SeccompConfig{Mode: "custom", Profile: "{"}}}, want: "the custom seccomp profile"},
		{name: "sysctl of the host", spec: v1.ContainerSpec{Sysctls: map[string]string{"vm.swappiness": "1"}}, want: `sysctl "vm.swappiness" is not in a separate kernel namespace`},
		{name: "ulimit", spec: v1.ContainerSpec{Ulimits: []v1.Ulimit{{Name: "luck"}}}, want: `invalid ulimit type "luck"`},
		{name: "bind of nothing", spec: v1.ContainerSpec{Mounts: []v1.Mount{{Type: v1.MountBind, Source: "/no/such", Target: "/x"}}},
			want: "bind source path does not exist: /no/such"},
		{name: "mount twice", spec: v1.ContainerSpec{Mounts: []v1.Mount{{Type: v1.MountTmpfs, Target: "/x"}, {Type: v1.MountTmpfs, Target: "/x/"}}},
			want: "duplicate mount point"},
		{name: "stop signal", spec: v1.ContainerSpec{StopSignal: "SIGNOSUCH"}, want: "stop signal"},
		{name: "NUL", spec: v1.ContainerSpec{Args: []string{"out", "a\x00b"}}, want: "NUL byte"},
		{name: "ID", more: func(c *runtime.Container) { c.ID = "../x" }, want: "no container ID"},
		{name: "sysctl that is none", spec: v1.ContainerSpec{Sysctls: map[string]string{"net.no.such": "1"}}, want: "sysctl"},
		{name: "folder over a file", spec: v1.ContainerSpec{Mounts: []v1.Mount{{Type: v1.MountBind, Source: "/tmp", Target: "/etc/passwd"}}},
			want: "not a directory"},
		{name: "a hundredth of a hundredth", more: func(c *runtime.Container) { c.Limits.CPUs = 1e6 }, want: "too small"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := container()
			c.Spec = test.spec
			if test.more != nil {
				test.more(&c)
			}
			err := r.Create(t.Context(), c)
			if !errors.Is(err, runtime.ErrInvalid) {
				t.Errorf("Create: %v, want ErrInvalid", err)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Create: %v, want %q in it", err, test.want)
			}
			if err != nil && test.name != "ID" && strings.Contains(err.Error(), "containerd: ") {
				t.Errorf("Create: %v: the user asked for no containerd", err)
			}
			if err != nil && strings.Contains(err.Error(), "OCI runtime") {
				t.Errorf("Create: %v: that is for nobody to read", err)
			}
			if all, err := r.List(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("left behind: %+v, %v", all, err)
			}
			for _, group := range r.cgroup.groups() {
				if filepath.Base(group) != filepath.Base(r.cgroup.parent) {
					t.Errorf("left behind: %s", group)
				}
			}
		})
	}
}

// TestImageConfig is what an image says where the container says nothing.
func TestImageConfig(t *testing.T) {
	r := theRuntime(t)
	for _, test := range []struct {
		name   string
		change func(*containerregistry.Config)
		args   []string
		want   string
	}{
		{"user", func(c *containerregistry.Config) { c.User = "anna" }, []string{"id"}, "1001 1002 [1002 1003]\n"},
		{"dir", func(c *containerregistry.Config) { c.WorkingDir = "/data" }, []string{"cwd"}, "/data\n"},
		{"cmd", func(c *containerregistry.Config) { c.Cmd = []string{"out", "the image's"} }, nil, "the image's\n"},
		{"no path", func(c *containerregistry.Config) { c.Env = nil }, []string{"env", "PATH"}, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ref := "config-" + strings.ReplaceAll(test.name, " ", "-") + ":1"
			loadImage(t, r, ref, testImage(t, test.change))
			c := container(test.args...)
			c.Image = "docker.io/library/" + ref
			run(t, r, c)
			if got := output(t, r, c.ID); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	t.Run("nothing to run", func(t *testing.T) {
		loadImage(t, r, "empty:1", testImage(t, func(c *containerregistry.Config) { c.Entrypoint, c.Cmd = nil, nil }))
		c := container()
		c.Image = "docker.io/library/empty:1"
		if err := r.Create(t.Context(), c); !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(fmt.Sprint(err), "no command specified") {
			t.Errorf("Create: %v", err)
		}
	})
}

func TestNetworkNamespace(t *testing.T) {
	r := theRuntime(t)
	gone := container("forever")
	gone.NetNS = "/no/such/netns"
	if err := r.Create(t.Context(), gone); err == nil || errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), gone.NetNS) {
		t.Errorf("Create: %v, want an error that a later attempt need not have", err)
	}
	path := namespace(t)
	c := container("cat", "/proc/self/net/dev", "wait", "/data/end")
	c.NetNS = path
	create(t, r, c)
	pid, err := r.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil || !os.SameFile(want, got) {
		t.Errorf("process %d is not in the namespace: %v", pid, err)
	}
}

// TestSysctlDefaults: Docker's defaults are below what the user asks for, and not in the way of who made the namespace.
func TestSysctlDefaults(t *testing.T) {
	const ports, ping, shm = "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "kernel.shmmax"
	for _, test := range []struct {
		netns       string
		asked, want map[string]string
	}{
		{"", nil, map[string]string{ports: "0", ping: "0 2147483647"}},
		{"", map[string]string{ports: "1024", shm: "1"}, map[string]string{ports: "1024", ping: "0 2147483647", shm: "1"}},
		{"/run/netns/x", nil, nil},
		{"/run/netns/x", map[string]string{shm: "1"}, map[string]string{shm: "1"}},
	} {
		c := container()
		c.NetNS, c.Spec.Sysctls = test.netns, test.asked
		if got := sysctls(c); !maps.Equal(got, test.want) {
			t.Errorf("namespace %q, asked %v: got %v, want %v", test.netns, test.asked, got, test.want)
		}
	}
	// The same seen from inside, where somebody has made the namespace with a setting of the user's.
	r := theRuntime(t)
	c := container("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
	c.NetNS = namespace(t) // the kernel's own value is 1024
	run(t, r, c)
	if got := output(t, r, c.ID); strings.TrimSpace(got) != "1024" {
		t.Errorf("ip_unprivileged_port_start is %q in a namespace where it was 1024", got)
	}
}

// TestFailed: what is not the user's fault says where it comes from.
func TestFailed(t *testing.T) {
	if err := failed("create", "x", errors.New("disk full")); err.Error() != "containerd: create x: disk full" {
		t.Error(err)
	}
	if err := failed("create", "x", &refusal{"exec: no"}); err.Error() != "exec: no" || !errors.Is(err, runtime.ErrInvalid) {
		t.Error(err)
	}
}

// ownCapabilities are the effective ones of this process.
func ownCapabilities(t *testing.T) (bits uint64) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(data), "CapEff:\t")
	if _, err := fmt.Sscanf(after, "%x", &bits); err != nil {
		t.Fatal(err)
	}
	return bits
}
