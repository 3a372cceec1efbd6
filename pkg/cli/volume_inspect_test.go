package cli_test

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestVolumeInspect: what a task's volume was made with, and where it is, the nodes that have it tell; who is away is left out and named.
func TestVolumeInspect(t *testing.T) {
	s := newSwarm(t)
	s.start(2)
	must := func(args ...string) (stdout, stderr string) {
		t.Helper()
		code, stdout, stderr := run(t, s.host(), args...)
		if code != 0 {
			t.Fatalf("%q: %s", args, stderr)
		}
		return stdout, stderr
	}
	must("volume", "create", "--label", "from=object", "described")
	must("service", "create", "-q", "--name", "v", "--mode", "global", "--mount", "type=volume,source=data,target=/data,volume-label=own={{.Service.Name}}",
		"--mount", "type=volume,source=described,target=/described,volume-label=from=mount", "hello:1")
	must("service", "create", "-q", "--name", "one", "--constraint", "node.hostname==worker1",
		"--mount", "type=volume,source=only,target=/data,volume-opt=type=tmpfs,volume-opt=device=tmpfs", "hello:1")
	want := "data=manager1,worker1 described=manager1,worker1 only=worker1"
	for until := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) { // nodes tell what they have with their heartbeats
		got, _ := must("volume", "ls", "--format", "{{.Name}}={{.Nodes}}")
		if strings.Join(strings.Fields(got), " ") == want {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("volumes are %q, want %q", got, want)
		}
	}
	for _, c := range []struct{ name, format, want string }{
		{"data", "{{json .Labels}} {{.Mountpoint}} {{range .OnNodes}}{{.Node}}={{.Labels.own}}@{{.Mountpoint}} {{end}}",
			`{"own":"v"} /volumes/data manager1=v@/volumes/data worker1=v@/volumes/data `},
		{"only", "{{json .Options}} {{json .Labels}} {{.Nodes}} {{.CreatedAt.IsZero}}", `{"device":"tmpfs","type":"tmpfs"} null [worker1] false`},
		{"described", "{{.Labels.from}} {{(index .OnNodes 1).Labels.from}} {{.Mountpoint}}", "object mount /volumes/described"},
	} {
		if got, warnings := must("volume", "inspect", "--format", c.format, c.name); got != c.want+"\n" || warnings != "" {
			t.Errorf("%s: %q, %s; want %q", c.name, got, warnings, c.want)
		}
	}
	away := v1.HashID("worker9")
	if _, err := s.store.Commit(t.Context(), store.Commit{Ops: []store.Op{
		{Kind: v1.KindNode, ID: away, Meta: &v1.Meta{}, Value: &v1.NodeSpec{Role: v1.RoleWorker, Index: 9}, If: store.Absent()},
		{Kind: v1.KindNode, ID: away, Section: v1.SectionStatus, If: store.Always(), Value: &v1.NodeStatus{State: v1.NodeReady,
			Description: v1.NodeDescription{Hostname: "worker9", Volumes: []string{"data"}}}},
	}}); err != nil {
		t.Fatal(err)
	}
	got, warnings := must("volume", "inspect", "--format", "{{.Nodes}} {{len .OnNodes}}", "data")
	if got != "[manager1 worker1 worker9] 2\n" || !strings.HasPrefix(warnings, "WARNING: volume data of node worker9 is left out: ") {
		t.Errorf("with a node that is away: %q, %q", got, warnings)
	}
	if code, _, stderr := run(t, s.host(), "volume", "inspect", "nope"); code == 0 || !strings.Contains(stderr, "get nope: no such volume") {
		t.Errorf("one that is not there: %d %s", code, stderr)
	}
}
