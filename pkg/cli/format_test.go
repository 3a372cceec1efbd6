package cli

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func TestNaturalOrder(t *testing.T) {
	want := []string{"", "a", "a01", "a1", "a2", "a10", "a10b2", "a10b10", "b"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, naturalCompare)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestTable(t *testing.T) {
	rows := []any{
		serviceRow{ID: "abc", Name: "web", Mode: "replicated", Replicas: "1/3", Image: "nginx", Ports: "*:80->80/tcp"},
		serviceRow{ID: "def", Name: "a-rather-long-name", Mode: "global", Replicas: "2/2", Image: "hello"},
	}
	for _, c := range []struct {
		format string
		quiet  bool
		want   string
	}{
		{"", false, "ID        NAME                 MODE         REPLICAS   IMAGE     PORTS\n" +
			"abc       web                  replicated   1/3        nginx     *:80->80/tcp\n" +
			"def       a-rather-long-name   global       2/2        hello     \n"},
		{"", true, "abc\ndef\n"},
		{"table", true, "abc\ndef\n"},
		{`table {{.Name}}\t{{upper .Image}}`, false, "NAME                 IMAGE\nweb                  NGINX\na-rather-long-name   HELLO\n"},
		{"{{.Name}}: {{.Replicas}}", false, "web: 1/3\na-rather-long-name: 2/2\n"},
		{"json", false, `{"ID":"abc","Image":"nginx","Mode":"replicated","Name":"web","Ports":"*:80->80/tcp","Replicas":"1/3"}` + "\n" +
			`{"ID":"def","Image":"hello","Mode":"global","Name":"a-rather-long-name","Ports":"","Replicas":"2/2"}` + "\n"},
		{"raw", true, "id: abc\nid: def\n"},
	} {
		var out bytes.Buffer
		if err := serviceTable.write(&out, c.format, c.quiet, rows); err != nil {
			t.Errorf("%q: %v", c.format, err)
		} else if d := cmp.Diff(c.want, out.String()); d != "" {
			t.Errorf("%q: -want +got\n%s", c.format, d)
		}
	}
	for format, want := range map[string]string{
		"{{.Nope}}":                        "can't evaluate field Nope",
		"{{":                               "template parsing error: ",
		strings.Repeat("x", maxTemplate+1): "larger than",
		`{{join "a" ","}}`:                 "is no list",
	} {
		if err := serviceTable.write(&bytes.Buffer{}, format, false, rows); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: error %v, want %q", format, err, want)
		}
	}
}

func TestPortsText(t *testing.T) {
	p := func(published, target uint32, protocol, mode string) dockerPort {
		return dockerPort{Protocol: protocol, PublishedPort: published, TargetPort: target, PublishMode: mode}
	}
	for _, c := range []struct {
		ports []dockerPort
		want  string
	}{
		{nil, ""},
		{[]dockerPort{p(8080, 80, "tcp", "ingress")}, "*:8080->80/tcp"},
		{[]dockerPort{p(8080, 80, "tcp", "host")}, ""},
		{[]dockerPort{{"", "tcp", 80, 80, "ingress", "127.0.0.1", ""}, {"", "tcp", 80, 80, "ingress", "", "eth1"}, {"", "tcp", 81, 81, "ingress", "", "eth1"}},
			"127.0.0.1:80->80/tcp, eth1:80-81->80-81/tcp"},
		{[]dockerPort{p(0, 80, "tcp", "ingress"), p(8081, 81, "tcp", "ingress")}, "*:8081->81/tcp"},
		{[]dockerPort{p(81, 81, "tcp", "ingress"), p(80, 80, "tcp", "ingress")}, "*:80-81->80-81/tcp"},
		{[]dockerPort{p(80, 80, "tcp", "ingress"), p(81, 80, "tcp", "ingress")}, "*:80-81->80/tcp"},
		{[]dockerPort{p(80, 80, "tcp", "ingress"), p(81, 81, "tcp", "ingress"), p(82, 80, "tcp", "ingress")}, "*:80-81->80-81/tcp, *:82->80/tcp"},
		{[]dockerPort{p(80, 80, "udp", "ingress"), p(80, 80, "tcp", "ingress")}, "*:80->80/tcp, *:80->80/udp"},
		{[]dockerPort{p(80, 80, "tcp", "ingress"), p(82, 81, "tcp", "ingress")}, "*:80->80/tcp, *:82->81/tcp"},
	} {
		if got := portsText(c.ports); got != c.want {
			t.Errorf("%v: %q, want %q", c.ports, got, c.want)
		}
	}
}

// TestTaskPorts: a task's ports are shown with where they answer, as those of its service are.
func TestTaskPorts(t *testing.T) {
	task := &v1.Task{Desired: &v1.TaskDesired{Slot: 1}, Status: &v1.TaskStatus{Ports: []v1.PortConfig{
		{Protocol: v1.TCP, Target: 80, Published: 8091, Mode: v1.PublishHost, HostIP: "127.0.0.1"},
		{Protocol: v1.UDP, Target: 53, Published: 8053, Mode: v1.PublishHost}}}}
	if got, want := newTaskRow(task, "", false, time.Time{}).Ports, "127.0.0.1:8091->80/tcp,*:8053->53/udp"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestReplicasText(t *testing.T) {
	three := uint64(3)
	status := v1.ServiceStatus{RunningTasks: 1, DesiredTasks: 2, CompletedTasks: 4}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cron := &v1.Service{Spec: &v1.ServiceSpec{Mode: v1.ModeCron, Schedule: &v1.Schedule{TimeZone: "Asia/Tokyo"}},
		Desired: &v1.ServiceDesired{Cron: &v1.CronStatus{Next: at}}}
	if got, want := replicasText(cron, status), "1/2 (next 2026-01-02 12:04 JST)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for want, s := range map[string]*v1.ServiceSpec{
		"1/2":                  {Mode: v1.ModeGlobal},
		"1/2 (max 2 per node)": {Mode: v1.ModeReplicated, Task: v1.TaskSpec{Placement: &v1.Placement{MaxReplicas: 2}}},
		"1/2 (4/3 completed)":  {Mode: v1.ModeReplicatedJob, Replicas: &three},
		"1/2 (suspended)":      {Mode: v1.ModeCron, Schedule: &v1.Schedule{Suspend: true}},
		"1/2 (4/6 completed)":  {Mode: v1.ModeGlobalJob},
	} {
		if got := replicasText(&v1.Service{Spec: s}, status); got != want {
			t.Errorf("%s: got %q, want %q", s.Mode, got, want)
		}
	}
}

func TestFamiliarImage(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("ab", 32)
	for image, want := range map[string]string{
		"docker.io/library/nginx:1.27" + digest: "nginx:1.27",
		"nginx" + digest:                        "nginx" + digest,
		"localhost:5000/a/b:c":                  "localhost:5000/a/b:c",
		"NOT AN IMAGE":                          "NOT AN IMAGE",
	} {
		if got := familiarImage(image); got != want {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
}

func TestSelector(t *testing.T) {
	labels := map[string]string{"a": "1", "b": ""}
	for text, want := range map[string]bool{
		"": true, "a": true, "b": true, "c": false, "a=1": true, "a==1": true, "a=2": false, "a!=2": true, "a!=1": false, "c!=1": true,
		"a=1,b": true, "a=1, c": false, "b=": true,
	} {
		match, err := parseSelector(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := match(labels); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
	if _, err := parseSelector("=x"); err == nil {
		t.Error("a selector without a key was read")
	}
}

// TestProgress shows what a terminal and a file get.
func TestProgress(t *testing.T) {
	for _, c := range []struct {
		name  string
		width int
		want  string
	}{
		{"file", 0, "1/1: preparing\noverall progress: 0 out of 1 tasks\n1/1: running\n"},
		{"terminal", 60, "\r\x1b[2K1/1: preparing [====================>          ]\n" +
			"\x1b[1A\r\x1b[2Koverall progress: 0 out of 1 tasks\n\r\x1b[2K1/1: preparing [====================>          ]\n" +
			"\x1b[2A\r\x1b[2Koverall progress: 0 out of 1 tasks\n\r\x1b[2K1/1: running   [==============================>]\n"},
		{"narrow terminal", 20, "\r\x1b[2K1/1: preparing \n" +
			"\x1b[1A\r\x1b[2Koverall progress: …\n\r\x1b[2K1/1: preparing \n" +
			"\x1b[2A\r\x1b[2Koverall progress: …\n\r\x1b[2K1/1: running   \n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{Options: withDefaults(Options{Out: &out, Terminal: func() int { return c.width }})}
			p := a.newProgress(false)
			p.set("1/1", "preparing", 6)
			p.set(overall, "0 out of 1 tasks", 0)
			p.set("1/1", "preparing", 6) // nothing new
			p.set("1/1", "running", 9)
			if d := cmp.Diff(c.want, out.String()); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}
