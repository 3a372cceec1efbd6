package cli_test

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestVolumesAreRemovedEverywhereOrNowhere: none of a service that mounts it, and no copy while a container has another.
func TestVolumesAreRemovedEverywhereOrNowhere(t *testing.T) {
	s := newSwarm(t)
	s.start(2)
	ctl := func(args string, code int, want string) {
		t.Helper()
		if got, out, errs := run(t, s.host(), strings.Fields(args)...); got != code || !strings.Contains(out+errs, want) {
			t.Fatalf("%s: %d %s%s, want %d %s", args, got, out, errs, code, want)
		}
	}
	told := func(want string) {
		t.Helper()
		out := ""
		for range 600 {
			if _, out, _ = run(t, s.host(), "volume", "ls", "--format", "{{.Name}} {{.Nodes}}"); out == want {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatalf("volumes %q, want %q", out, want)
	}
	ctl("wait node/"+v1.HashID("manager1")+" --for=state=ready", 0, "")
	ctl("wait node/"+v1.HashID("worker1")+" --for=state=ready", 0, "")
	ctl("service create -q --name p --mount source=plain,target=/d --constraint node.hostname==worker1 hello:1", 0, "")
	ctl("service create -q --name v --mount source=data-{{.Task.Slot}},target=/d --constraint node.hostname==worker1 hello:1", 0, "")
	ctl("service update -q --constraint-rm node.hostname==worker1 --constraint-add node.hostname==manager1 v", 0, "")
	ctl("service scale p=0", 0, "")
	told("data-1 manager1,worker1\nplain worker1\n")
	ctl("volume rm plain", 1, "Error response from daemon: remove plain: volume is in use by service p\n")
	ctl("volume rm data-1", 1, "Error response from daemon: remove data-1: volume is in use by service v\n")
	ctl("volume prune --all --force", 0, "")
	told("data-1 manager1,worker1\nplain worker1\n")

	// The container of a service that is gone has one until it has stopped.
	ctl("service rm v", 0, "")
	ctl("service create -q --name w --mount source=data-1,target=/d --stop-grace-period 10m --constraint node.hostname==worker1 deaf:1", 0, "")
	ctl("service rm w", 0, "")
	ctl("volume rm data-1", 1, "volume data-1 stays on all nodes: node worker1: remove data-1: volume is in use - [")
	told("data-1 manager1,worker1\nplain worker1\n")

	ctl("service rm p", 0, "")
	for range 600 { // until its tasks are gone
		if code, _, _ := run(t, s.host(), "volume", "rm", "plain"); code == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	told("data-1 manager1,worker1\n")
}
