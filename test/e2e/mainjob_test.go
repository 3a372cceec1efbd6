package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// oneHost is a lab with one host that is a swarm of one and has the example images.
func oneHost(t *testing.T) (*lab.Lab, *lab.Host) {
	t.Helper()
	l := lab.New(t, "manager1")
	h := l.Hosts[0]
	h.Start()
	h.Must("swarm", "init", "--advertise-addr", h.Addr.String())
	for _, version := range []string{"1", "2"} {
		h.Must("image", "load", "--quiet", "-i", filepath.Join(l.Bin, "hello-"+version+".tar"))
	}
	return l, h
}

// example is the manifest that "make up" applies.
func example(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../deploy/examples/hello.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// running are the process IDs of a service's running containers, by task ID.
func running(t *testing.T, h *lab.Host, service string) map[string]int {
	t.Helper()
	pids := make(map[string]int)
	for _, task := range tasks(t, h, service) {
		if task.Status.State == "running" && task.Desired.State == "running" {
			pids[task.Metadata.ID] = task.Status.Container.PID
		}
	}
	return pids
}

type task struct {
	Metadata struct{ ID string }
	Desired  struct {
		State   string
		Slot    int
		Attempt int
		Pending string
	}
	Status struct {
		State     string
		Err       string
		Container struct {
			PID       int
			ExitCode  *int
			OOMKilled bool
		}
	}
}

func tasks(t *testing.T, h *lab.Host, service string) []task {
	t.Helper()
	var list struct{ Items []task }
	out := h.Must("get", "tasks", "--filter", "service="+service, "-o", "json")
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("get tasks: %v\n%s", err, out)
	}
	return list.Items
}

func TestMainJobApplyAndCurl(t *testing.T) {
	l, h := oneHost(t)
	h.Must("apply", "-f", example(t))
	if got := len(running(t, h, "hello")); got != 3 {
		t.Fatalf("%d tasks run, want 3\n%s", got, h.Must("service", "ps", "hello", "--no-trunc"))
	}
	if out := h.Must("apply", "-f", example(t)); !strings.Contains(out, "unchanged") {
		t.Errorf("applying again says %q, want unchanged", out)
	}

	// From outside, from the host, from its loopback: every copy answers, and sees the true client.
	for name, from := range map[string]struct {
		ns          *lab.Namespace
		url, client string
	}{
		"a machine outside": {l.Client, fmt.Sprintf("http://%s:8080/", h.Addr), "10.91.0.253"},
		"the host":          {h.Namespace, fmt.Sprintf("http://%s:8080/", h.Addr), h.Addr.String()},
		"loopback":          {h.Namespace, "http://127.0.0.1:8080/", "169.254.77.1"},
	} {
		seen := make(map[string]int)
		for range 60 {
			body, err := from.ns.Get(from.url)
			if err != nil {
				t.Fatalf("from %s: %v\n%s", name, err, h.Log())
			}
			var who, host, version, client string
			if _, err := fmt.Sscanf(body, "Hello from %s on %s version %s You are %s", &who, &host, &version, &client); err != nil {
				t.Fatalf("from %s: %q: %v", name, body, err)
			}
			seen[who]++
			if !strings.HasPrefix(client, from.client+":") {
				t.Fatalf("from %s: the container saw %s, want %s", name, client, from.client)
			}
		}
		if len(seen) != 3 {
			t.Errorf("from %s: answers came from %v, want from 3 tasks", name, seen)
		}
	}

	if out := h.Must("service", "ls"); !strings.Contains(out, "3/3") || !strings.Contains(out, "*:8080->8080/tcp") {
		t.Errorf("service ls:\n%s", out)
	}
	if out := h.Must("service", "logs", "hello"); strings.Count(out, "listens on port 8080") != 3 {
		t.Errorf("service logs:\n%s", out)
	}
}

func TestMainJobScaleUpdateRemove(t *testing.T) {
	l, h := oneHost(t)
	h.Must("apply", "-f", example(t))
	before := running(t, h, "hello")

	h.Must("service", "scale", "hello=5")
	after := running(t, h, "hello")
	if len(after) != 5 {
		t.Fatalf("%d tasks run, want 5", len(after))
	}
	for id, pid := range before {
		if after[id] != pid {
			t.Errorf("scaling up touched task %s", id)
		}
	}
	h.Must("service", "scale", "hello=2")
	l.Eventually(20*time.Second, "the surplus tasks are gone", func() error {
		if n := len(tasks(t, h, "hello")); n != 2 {
			return fmt.Errorf("%d tasks", n)
		}
		return nil
	})

	h.Must("service", "update", "--image", "hello:2", "--update-parallelism", "1", "--update-monitor", "1s", "hello")
	for range 10 {
		body, err := l.Client.Get(fmt.Sprintf("http://%s:8080/", h.Addr))
		if err != nil || !strings.Contains(body, "version 2.") {
			t.Fatalf("after the update: %q, %v", body, err)
		}
	}
	if out := h.Must("service", "inspect", "hello", "--format", "{{.UpdateStatus.State}}"); strings.TrimSpace(out) != "completed" {
		t.Errorf("update status is %q", out)
	}

	h.Must("service", "rm", "hello")
	if r := h.Ctl("service", "inspect", "hello"); r.Code != 1 || !strings.Contains(r.Stderr, "no such service: hello") {
		t.Errorf("inspect after rm: exit %d, %s", r.Code, r.Stderr)
	}
	h.Must("apply", "-f", example(t)) // the name is free at once
	l.Eventually(30*time.Second, "only the new service's containers run", func() error {
		if n := len(shims(t, h)); n != 3 {
			return fmt.Errorf("%d containers", n)
		}
		return nil
	})
}

// shims are the processes that keep a host's containers.
func shims(t *testing.T, h *lab.Host) map[int]string {
	t.Helper()
	found, err := h.Shims()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestMainJobDaemonKilled(t *testing.T) {
	l, h := oneHost(t)
	h.Must("apply", "-f", example(t))
	before := running(t, h, "hello")

	h.Kill()
	if _, err := l.Client.Get(fmt.Sprintf("http://%s:8080/", h.Addr)); err != nil {
		t.Errorf("with swarmd dead, the service does not answer: %v", err)
	}
	h.Start()
	l.Eventually(10*time.Second, "the containers are adopted", func() error {
		if after := running(t, h, "hello"); !mapsEqual(before, after) {
			return fmt.Errorf("before %v, now %v", before, after)
		}
		return nil
	})

	// One that dies while the daemon is away is reported, and replaced.
	victim, pid := oneOf(before)
	h.Kill()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.Start()
	l.Eventually(20*time.Second, "the dead container is reported and replaced", func() error {
		after := running(t, h, "hello")
		if len(after) != 3 || after[victim] != 0 {
			return fmt.Errorf("running: %v", after)
		}
		for _, task := range tasks(t, h, "hello") {
			if task.Metadata.ID == victim {
				if code := task.Status.Container.ExitCode; task.Status.State != "failed" || code == nil || *code != 137 {
					return fmt.Errorf("the victim is reported as %+v", task.Status)
				}
				return nil
			}
		}
		return errors.New("the victim is forgotten")
	})
	for id, p := range running(t, h, "hello") {
		if before[id] != 0 && before[id] != p {
			t.Errorf("task %s was restarted", id)
		}
	}
}

func mapsEqual(a, b map[string]int) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

func oneOf(pids map[string]int) (string, int) {
	var ids []string
	for id := range pids {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids[0], pids[ids[0]]
}

func TestMainJobEndsAreToldTruthfully(t *testing.T) {
	l, h := oneHost(t)
	h.Must("service", "create", "--detach", "--name", "exits", "--restart-condition", "none", "hello:1", "exit", "3")
	h.Must("service", "create", "--detach", "--name", "eats", "--restart-condition", "none", "--limit-memory", "32m", "hello:1", "eat", "100000000")
	h.Must("service", "create", "--detach", "--name", "ends", "--restart-condition", "none", "hello:1", "exit", "0")
	h.Must("service", "create", "--detach", "--name", "nocommand", "--restart-condition", "none", "--entrypoint", "/nosuch", "hello:1")
	h.Must("service", "create", "--detach", "--name", "noimage", "--restart-condition", "none", "127.0.0.1:1/nosuch:1")
	for service, want := range map[string]struct {
		state, text string
		code        int
		oom         bool
	}{
		"exits":     {"failed", "non-zero exit (3)", 3, false},
		"eats":      {"failed", "", 137, true},
		"ends":      {"complete", "", 0, false},
		"nocommand": {"", "no such file", -1, false},
		"noimage":   {"rejected", "nosuch", -1, false},
	} {
		l.Eventually(30*time.Second, service+" ends", func() error {
			all := tasks(t, h, service)
			if len(all) != 1 {
				return fmt.Errorf("%d tasks", len(all))
			}
			s := all[0].Status
			switch {
			case want.state != "" && s.State != want.state, !slices.Contains([]string{"failed", "rejected", "complete"}, s.State):
				return fmt.Errorf("state %s, error %q", s.State, s.Err)
			case !strings.Contains(s.Err, want.text):
				return fmt.Errorf("error %q, want %q in it", s.Err, want.text)
			case want.code >= 0 && (s.Container.ExitCode == nil || *s.Container.ExitCode != want.code):
				return fmt.Errorf("exit code %v, want %d", s.Container.ExitCode, want.code)
			case s.Container.OOMKilled != want.oom:
				return fmt.Errorf("OOM %v, want %v", s.Container.OOMKilled, want.oom)
			}
			return nil
		})
	}
	if r := h.Ctl("service", "create", "--name", "waits", "--timeout", "5s", "--restart-condition", "none", "hello:1", "exit", "3"); r.Code == 0 {
		t.Errorf("a service that does not converge is reported as done:\n%s", r.Stdout)
	}
}

func TestMainJobCannotBePlaced(t *testing.T) {
	_, h := oneHost(t)
	h.Must("service", "create", "--detach", "--name", "big", "--reserve-memory", "900g", "hello:1")
	h.Must("service", "create", "--detach", "--name", "far", "--constraint", "node.labels.zone==moon", "hello:1")
	for service, want := range map[string]string{
		"big": "no suitable node (insufficient resources on 1 node)",
		"far": "no suitable node (scheduling constraints not satisfied on 1 node)",
	} {
		if out := h.Must("service", "ps", service, "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}"); !strings.Contains(out, want) {
			t.Errorf("service ps %s says %q, want %q", service, out, want)
		}
	}
	h.Must("node", "update", "--label-add", "zone=moon", "self")
	h.Must("wait", "service/far", "--for", "converged", "--timeout", "20s")
}

func TestMainJobLeaveLeavesNothing(t *testing.T) {
	l, h := oneHost(t)
	h.Must("apply", "-f", example(t))
	h.Must("swarm", "leave", "--force")
	if n := len(shims(t, h)); n != 0 {
		t.Errorf("%d containers run after leaving", n)
	}
	if got := strings.TrimSpace(h.Must("info", "--format", "{{.Swarm.LocalNodeState}}")); got != "inactive" {
		t.Errorf("after leaving, the node is %s", got)
	}
	h.Must("swarm", "init", "--advertise-addr", h.Addr.String())
	h.Must("apply", "-f", example(t))
	h.Stop()
	cleanup := h.Command(filepath.Join(l.Bin, "swarmd"), "--root", h.Root, "--cleanup")
	if out, err := cleanup.CombinedOutput(); err != nil {
		t.Fatalf("swarmd --cleanup: %v\n%s", err, out)
	}
	if left := h.Leftovers(); len(left) > 0 {
		t.Errorf("swarmd --cleanup left:\n%s", strings.Join(left, "\n"))
	}
}

func containsAll(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}
