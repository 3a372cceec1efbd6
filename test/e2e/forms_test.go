package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestClusterForms makes a swarm of three managers and two workers by the documented commands, and looks at it from everywhere.
func TestClusterForms(t *testing.T) {
	s := form(t, 3, 2)
	for _, h := range s.Hosts[:3] {
		var rows []string
		for line := range strings.Lines(h.Must("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}} {{.Self}}")) {
			rows = append(rows, strings.TrimSpace(line))
		}
		var want []string
		for _, other := range s.Hosts {
			want = append(want, fmt.Sprintf("%s Ready Active %v", other.Name, other == h))
		}
		if !slices.Equal(rows, want) {
			t.Errorf("node ls on %s:\n%s\nwant\n%s", h.Name, strings.Join(rows, "\n"), strings.Join(want, "\n"))
		}
		var info v1.Info
		if err := json.Unmarshal([]byte(h.Must("info", "--format", "json")), &info); err != nil {
			t.Fatal(err)
		}
		if sw := info.Swarm; sw.LocalNodeState != v1.LocalNodeActive || !sw.ControlAvailable || sw.Managers != 3 || sw.Nodes != 5 || sw.NodeAddr != h.Addr.String() {
			t.Errorf("info on %s: %+v", h.Name, sw)
		}
		// Any manager serves the whole API, and what it wrote is there when another is asked.
		h.Must("service", "create", "--quiet", "--name", "by-"+h.Name, "hello:1")
		other := s.otherThan(h)
		if out := other.Must("service", "ls", "--format", "{{.Name}} {{.Replicas}}"); !strings.Contains(out, "by-"+h.Name+" 1/1") {
			t.Errorf("service ls on %s, after create on %s:\n%s", other.Name, h.Name, out)
		}
	}
	for _, h := range s.Hosts[3:] {
		out := h.Must("info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{len .Swarm.RemoteManagers}}")
		if strings.TrimSpace(out) != "active false 3" {
			t.Errorf("info on %s: %s", h.Name, out)
		}
		for _, args := range [][]string{{"node", "ls"}, {"service", "ls"}, {"service", "rm", "by-manager1"}, {"swarm", "join-token", "worker"}} {
			if r := h.Ctl(args...); r.Code != 1 || !strings.Contains(r.Stderr, "This node is not a swarm manager") {
				t.Errorf("%v on %s: exit %d, %q", args, h.Name, r.Code, r.Stderr)
			}
		}
	}
	var all int64
	for _, h := range s.Hosts {
		used, err := h.Memory()
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, bytes := range used {
			sum += bytes
		}
		all += sum
		t.Logf("%s takes %d MB: swarmd %d, containerd %d, the shims %d", h.Name, sum>>20, used["swarmd"]>>20, used["containerd"]>>20, used["containerd-shim"]>>20)
	}
	t.Logf("five hosts take %d MB", all>>20)
	if all == 0 || all > 4<<30 {
		t.Errorf("five hosts take %d bytes, want at most 4 GB", all)
	}
	listensOnNothing(t, s.Hosts[3])
	if conn, err := s.Client.DialContext(t.Context(), "tcp", s.Hosts[3].Addr.String()+":53"); err == nil {
		conn.Close()
		t.Error("a worker's resolver takes connections from other machines")
	}
}

// resolver is 169.254.77.53:53 as the kernel lists it: an address of the link to the machine's own tasks, which no other machine has a way to.
const resolver = "354DFEA9:0035"

// listensOnNothing holds a worker to opening no port to other machines.
func listensOnNothing(t *testing.T, h *lab.Host) {
	t.Helper()
	out, err := h.Command("cat", "/proc/net/tcp", "/proc/net/tcp6").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[3] == "0A" && fields[1] != resolver {
			t.Errorf("%s listens at %s", h.Name, fields[1])
		}
	}
}
