package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// TestAdministers: what a container with NET_ADMIN does to its links is its own business.
func TestAdministers(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		want := map[string]bool{"": false, "SYS_TIME": false, "NET_ADMIN": true, "cap_net_admin": true, "all": true}
		for add := range want {
			service := l.swarm.service("with"+add, func(s *v1.ServiceRevisionSpec) {
				if add != "" {
					s.Task.Container.CapabilityAdd = []string{"CHOWN", add}
				}
			})
			l.swarm.assign("task"+add, service, v1.TaskRunning)
		}
		l.start(nil)
		settle(time.Second)
		got := map[string]bool{}
		for _, link := range l.net.config().Tasks {
			got[strings.TrimPrefix(link.ID, "task")] = link.Administers
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestContainer(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		swap := v1.Bytes(-1)
		web := l.swarm.service("web", func(s *v1.ServiceRevisionSpec) {
			s.Task.Container = v1.ContainerSpec{Image: "hello:1", Hostname: "{{.Service.Name}}-{{.Task.Slot}}",
				Env:   []string{"NODE={{.Node.Hostname}}/{{.Node.Platform.Architecture}}", "TASK={{.Task.Name}}", "PLAIN", "A=b={{.Service.ID}}"},
				Hosts: []string{"10.0.0.9 db database"}, DNS: &v1.DNSConfig{Search: []string{"example.org"}},
				Sysctls: map[string]string{"net.core.somaxconn": "99", "kernel.msgmax": "1"},
				Mounts:  []v1.Mount{{Source: "data-{{.Task.Slot}}", Target: "/data", Volume: &v1.VolumeOptions{Labels: map[string]string{"of": "{{.Task.ID}}"}}}}}
			s.Task.Resources = &v1.Resources{Limits: &v1.ResourceLimits{Memory: 1 << 30, PIDs: 5}, MemorySwap: &swap}
			s.Task.LogDriver = &v1.Driver{Name: "json-file", Options: map[string]string{"max-size": "1m", "max-file": "7"}}
		})
		l.swarm.assign("task1", web, v1.TaskRunning)
		l.swarm.change("task1", func(t *v1.Task) *v1.Task {
			t.Desired.Placement.Generic = []v1.GenericResource{{Kind: "gpu", Value: "u1"}, {Kind: "gpu", Value: "u2"}}
			return t
		})
		l.start(nil)
		settle(time.Second)
		l.want("task1", v1.TaskRunning)
		got, _ := l.fake.Container("task1")
		dir := filepath.Join(l.dir, "tasks", "task1")
		want := engine.Container{ID: "task1", Name: "web.1.task1", Image: "hello:1", NetNS: "/netns/task1",
			Spec: v1.ContainerSpec{Image: "hello:1", Hostname: "web-1", Env: []string{"NODE=host7/amd64", "TASK=web.1.task1", "PLAIN", "A=b=web", "DOCKER_RESOURCE_GPU=u1,u2"},
				Hosts: []string{"10.0.0.9 db database"}, DNS: &v1.DNSConfig{Search: []string{"example.org"}}, Sysctls: map[string]string{"kernel.msgmax": "1"},
				Mounts: []v1.Mount{{Source: "data-1", Target: "/data", Volume: &v1.VolumeOptions{Labels: map[string]string{"of": "task1"}}}}},
			Labels: map[string]string{"com.docker.swarm.node.id": nodeID, "com.docker.swarm.service.id": "web", "com.docker.swarm.service.name": "web",
				"com.docker.swarm.task": "", "com.docker.swarm.task.id": "task1", "com.docker.swarm.task.name": "web.1.task1"},
			Limits: v1.ResourceLimits{Memory: 1 << 30, PIDs: 5}, MemorySwap: &swap, Log: engine.LogConfig{MaxSize: 1 << 20, MaxFiles: 7},
			Files: map[string]string{"/etc/hostname": filepath.Join(dir, "hostname"), "/etc/hosts": filepath.Join(dir, "hosts"), "/etc/resolv.conf": filepath.Join(dir, "resolv.conf")}}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("container (-want +got):\n%s", diff)
		}
		if c := l.net.config(); c.Tasks[0].Sysctls["net.core.somaxconn"] != "99" {
			t.Errorf("link is %+v", c.Tasks[0])
		}
		for name, want := range map[string]string{"hostname": "web-1\n", "hosts": hostsHead + "10.0.0.9\tdb database\n100.64.7.2\tweb-1\n",
			"resolv.conf": "nameserver 127.0.0.11\nsearch example.org\noptions ndots:0\n"} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want || err != nil {
				t.Errorf("%s is %q (%v), want %q", name, got, err, want)
			}
		}
		if spec := l.swarm.services[web].Spec.Task.Container; spec.Env[1] != "TASK={{.Task.Name}}" || spec.Mounts[0].Volume.Labels["of"] != "{{.Task.ID}}" {
			t.Errorf("the revision itself was changed: %+v", spec)
		}
	})
}

// TestTemplates: every place that may hold a template, and everything that one may name, of a task of a global service.
func TestTemplates(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		agents := l.swarm.service("agent", func(s *v1.ServiceRevisionSpec) {
			s.Task.Container.Hostname = "{{.Node.Hostname}}"
			s.Task.Container.Env = []string{"SERVICE={{.Service.ID}} {{.Service.Name}} {{.Service.Labels.tier}}",
				"NODE={{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.Architecture}} {{.Node.Platform.OS}}", "TASK={{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}"}
			s.Task.Container.Mounts = []v1.Mount{{Type: v1.MountVolume, Source: "{{.Service.Name}}-{{.Task.Slot}}", Target: "/data/{{.Task.ID}}", Volume: &v1.VolumeOptions{
				Labels: map[string]string{"of": "{{.Service.ID}}"}, Driver: &v1.Driver{Name: "local", Options: map[string]string{"device": "/shelf/{{.Node.ID}}"}}}}}
			// What is no place for templates is left as it is.
			s.Task.Container.Args, s.Task.Container.User, s.Task.Container.Labels = []string{"{{.Task.Slot}}"}, "{{.Task.Slot}}", map[string]string{"of": "{{.Task.Slot}}"}
		})
		l.swarm.services[agents].Meta.Labels = map[string]string{"tier": "front"}
		l.swarm.assign("task1", agents, v1.TaskRunning)
		l.swarm.change("task1", func(task *v1.Task) *v1.Task {
			d := *task.Desired
			d.Slot, d.Node = 7, nodeID
			return &v1.Task{Meta: task.Meta, Desired: &d}
		})
		l.start(nil)
		settle(time.Second)
		l.want("task1", v1.TaskRunning)
		got, _ := l.fake.Container("task1")
		name := "agent." + nodeID + ".task1"
		want := v1.ContainerSpec{Image: "hello:1", Hostname: "host7",
			Env: []string{"SERVICE=agent agent front", "NODE=" + nodeID + " host7 amd64 linux", "TASK=task1 " + name + " " + nodeID},
			Mounts: []v1.Mount{{Type: v1.MountVolume, Source: "agent-" + nodeID, Target: "/data/task1", Volume: &v1.VolumeOptions{
				Labels: map[string]string{"of": "agent"}, Driver: &v1.Driver{Name: "local", Options: map[string]string{"device": "/shelf/" + nodeID}}}}},
			Args: []string{"{{.Task.Slot}}"}, User: "{{.Task.Slot}}", Labels: map[string]string{"of": "{{.Task.Slot}}"}}
		if diff := cmp.Diff(want, got.Spec, cmpopts.EquateEmpty()); diff != "" || got.Name != name {
			t.Errorf("container %q (-want +got):\n%s", got.Name, diff)
		}
	})
}

func TestBadSpecsAreRejected(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*v1.ServiceRevisionSpec)
		want   string
	}{
		{"syntax", env("A={{.Service"), "template in env[0]: template: line:1: unclosed action"},
		{"field", env("A={{.Service.Nick}}"), "can't evaluate field Nick"},
		{"missing label", env("A={{.Service.Labels.zone}}"), `map has no entry for key "zone"`},
		{"endless", env("A={{range 9999999999999}}{{end}}"), "range is not supported"},
		{"hidden", env("A={{if true}}{{if false}}{{else}}{{range 9999999999999}}{{end}}{{end}}{{end}}"), "range is not supported"},
		{"growing by variables", env(`A={{$a := .Task.ID}}{{$b := print $a $a}}{{$c := print $b $b}}`), "variables are not supported"},
		{"growing by with", env(`A={{with print .Task.ID}}{{with print . .}}{{end}}{{end}}`), "with is not supported"},
		{"growing by printf", env(`A={{.Task.ID | printf "%[1]s%[1]s" | printf "%[1]s%[1]s"}}`), "printf is not supported: use print"},
		{"nested printf", env(`A={{print (printf "%999999d" 1)}}`), "printf is not supported: use print"},
		{"chained printf", env(`A={{(printf "%999999d" 1).X}}`), "printf is not supported: use print"},
		{"recursive", env(`A={{define "x"}}{{template "x"}}{{end}}{{template "x"}}`), "define and block are not supported"},
		{"huge", env("A=" + strings.Repeat("{{.Task.ID}}", 33000)), "expands to more than 65536 bytes"},
		{"long hostname", func(s *v1.ServiceRevisionSpec) { s.Task.Container.Hostname = strings.Repeat("{{.Task.ID}}", 33) }, "has 66 characters, and Linux takes 64"},
		{"log driver", func(s *v1.ServiceRevisionSpec) { s.Task.LogDriver = &v1.Driver{Name: "syslog"} }, `log driver "syslog" is not supported: want json-file, local or none`},
		{"log size", logOption("max-size", "much"), `log option max-size "much" is not a size such as 10m`},
		{"log files", logOption("max-file", "0"), `log option max-file "0" is not a number from 1`},
		{"log option", logOption("tag", "x"), `log option "tag" is not supported: want max-size or max-file`},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
				l.swarm.assign("t1", l.swarm.service("web", c.change), v1.TaskRunning)
				l.start(nil)
				settle(time.Second)
				if status := l.want("t1", v1.TaskRejected); !strings.Contains(status.Err, c.want) {
					t.Errorf("error is %q, want %q", status.Err, c.want)
				}
				l.wantClean()
			})
		})
	}
}

func env(e string) func(*v1.ServiceRevisionSpec) {
	return func(s *v1.ServiceRevisionSpec) { s.Task.Container.Env = []string{e} }
}

func logOption(name, value string) func(*v1.ServiceRevisionSpec) {
	return func(s *v1.ServiceRevisionSpec) {
		s.Task.LogDriver = &v1.Driver{Options: map[string]string{name: value}}
	}
}

func TestResolver(t *testing.T) {
	for _, c := range []struct {
		name, machine string
		dns           *v1.DNSConfig
		want          string
	}{
		{"plain", "# comment\nnameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:2\n", nil,
			"nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:2\n"},
		{"loopback", "nameserver 127.0.0.53\nnameserver ::1\nnameserver 192.168.1.1\n", nil, "nameserver 192.168.1.1\n"},
		{"only loopback", "nameserver 127.0.0.1\n", nil, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		{"nothing", "", nil, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		{"garbage", "nameserver\nnameserver x\n\x00\xff\n", nil, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		{"link local", "nameserver fe80::1%eth0\n", nil, "nameserver fe80::1%eth0\n"},
		{"spec wins", "nameserver 10.0.0.1\nsearch a.example\noptions ndots:2\n",
			&v1.DNSConfig{Nameservers: []string{"127.0.0.1", "9.9.9.9"}, Search: []string{"."}, Options: []string{"timeout:1"}},
			"nameserver 127.0.0.1\nnameserver 9.9.9.9\noptions timeout:1\n"},
	} {
		if got := string(parseResolver([]byte(c.machine)).forContainer().override(c.dns).file()); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestResolverBySwarm: tasks ask the swarm's resolver, with the machine's search domains and options, or the spec's.
func TestResolverBySwarm(t *testing.T) {
	for _, c := range []struct {
		machine string
		dns     *v1.DNSConfig
		want    string
	}{
		{"nameserver 10.0.0.1\nsearch a.example\noptions timeout:1\n", nil, "nameserver 127.0.0.11\nsearch a.example\noptions timeout:1 ndots:0\n"},
		{"nameserver 10.0.0.1\noptions ndots:2\n", nil, "nameserver 127.0.0.11\noptions ndots:2\n"},
		{"search a.example\noptions ndots:2\n", &v1.DNSConfig{Nameservers: []string{"9.9.9.9"}, Search: []string{"b.example"}, Options: []string{"rotate"}},
			"nameserver 127.0.0.11\nsearch b.example\noptions rotate ndots:0\n"},
	} {
		if got := string(parseResolver([]byte(c.machine)).forContainer().override(c.dns).bySwarm().file()); got != c.want {
			t.Errorf("%q: %q, want %q", c.machine, got, c.want)
		}
	}
}

func TestHostsFileWithoutAddress(t *testing.T) {
	if got := string(hostsFile(nil, "x", nil)); got != hostsHead {
		t.Errorf("hosts is %q", got)
	}
}
