package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// otherSwarmd is another build of the daemon, for tests that are to fail with it.
var otherSwarmd = flag.String("swarmd", "", "the daemon to test, by its path, in place of the one in bin")

var long = flag.Bool("long", false, "take more rounds, for figures that are to be told to others")

// rounds is how often a test does what it measures.
func rounds(n int) int {
	if *long {
		return n
	}
	return 1
}

// swarm is a swarm of several hosts: managers first.
type swarm struct {
	*lab.Lab
	t        *testing.T
	managers int
	// nodes are the nodes' IDs by the names of their hosts.
	nodes map[string]string
}

// form makes a swarm by the documented commands, with the example images on every host.
func form(t *testing.T, managers, workers int) *swarm {
	t.Helper()
	s := hosts(t, lab.Names(managers, workers)...)
	s.managers = managers
	s.Form(managers)
	s.learnNodes()
	return s
}

// hosts are machines on which swarmd runs, in no swarm, with the example images.
func hosts(t *testing.T, names ...string) *swarm {
	t.Helper()
	s := &swarm{Lab: lab.New(t, names...), t: t, nodes: make(map[string]string)}
	s.Swarmd = *otherSwarmd
	s.StartAll()
	for _, h := range s.Hosts {
		if err := h.LoadImages(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range s.Hosts {
				t.Logf("the end of what %s logged:\n%s", h.Name, tail(h.Log(), 4000))
			}
		}
	})
	return s
}

func tail(text string, n int) string { return text[max(0, len(text)-n):] }

func (s *swarm) learnNodes() {
	s.t.Helper()
	for _, h := range s.Hosts {
		s.nodes[h.Name] = strings.TrimSpace(h.Must("info", "--format", "{{.Swarm.NodeID}}"))
		if s.nodes[h.Name] == "" {
			s.t.Fatalf("%s is in no swarm", h.Name)
		}
	}
}

// client speaks to the daemon of a host.
func (s *swarm) client(h *lab.Host) *client.Client {
	s.t.Helper()
	c, err := client.New("unix://" + h.Socket())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// leader is the manager that leads, as another one sees it; it waits for one.
func (s *swarm) leader(from *lab.Host) *lab.Host {
	s.t.Helper()
	var leader *lab.Host
	s.Eventually(30*time.Second, "there is a leader", func() error {
		r := from.Ctl("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
		for line := range strings.Lines(r.Stdout) {
			if name, ok := strings.CutSuffix(strings.TrimSpace(line), " Leader"); ok {
				if leader = s.Host(name); leader != nil {
					return nil
				}
			}
		}
		return fmt.Errorf("no leader: %v\n%s", r.Err, r.Stdout)
	})
	return leader
}

// otherThan is the first manager that is not among those.
func (s *swarm) otherThan(those ...*lab.Host) *lab.Host {
	for _, h := range s.Hosts[:s.managers] {
		if !slices.Contains(those, h) {
			return h
		}
	}
	s.t.Fatal("no other manager")
	return nil
}

// serve makes a service of the example and waits until it runs.
func (s *swarm) serve(h *lab.Host, name string, replicas int, args ...string) {
	s.t.Helper()
	h.Must(serving(name, replicas, args...)...)
}

// serving is the command that makes a service of the example.
func serving(name string, replicas int, args ...string) []string {
	return append([]string{"service", "create", "--quiet", "--name", name, "--replicas", fmt.Sprint(replicas), "--env", "TASK={{.Task.Name}}"},
		append(args, "hello:1")...)
}

// live are a service's tasks that are wanted and run, on nodes that are not among the lost.
func live(ctx context.Context, c *client.Client, service string, lost ...string) ([]*v1.Task, error) {
	all, err := client.List(ctx, c, v1.Tasks, v1.Filter{"service": {service}})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(t *v1.Task) bool {
		return t.Desired == nil || t.Desired.State != v1.TaskRunning || v1.Observed(t) != v1.TaskRunning || slices.Contains(lost, v1.TaskNode(t))
	}), nil
}

// converged waits until exactly so many tasks of a service are wanted, and run.
func (s *swarm) converged(h *lab.Host, service string, replicas int, within time.Duration) []*v1.Task {
	s.t.Helper()
	c := s.client(h)
	var tasks []*v1.Task
	s.Eventually(within, service+" converges", func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
		defer cancel()
		var err error
		if tasks, err = live(ctx, c, service); err != nil {
			return err
		}
		if len(tasks) != replicas {
			return fmt.Errorf("%d tasks run, want %d", len(tasks), replicas)
		}
		return nil
	})
	return tasks
}

// containersOf are the processes of all containers that run on a host, by the IDs of their tasks: what is really there, whatever
// anybody believes.
func containersOf(t *testing.T, h *lab.Host) map[string]int {
	t.Helper()
	found, err := h.Containers()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// settled waits until the containers on all hosts are exactly those of the service's wanted tasks, each once.
func (s *swarm) settled(h *lab.Host, within time.Duration, services ...string) {
	s.t.Helper()
	c := s.client(h)
	s.Eventually(within, "what runs is what is wanted", func() error {
		wanted := make(map[string]string)
		for _, service := range services {
			ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
			tasks, err := live(ctx, c, service)
			cancel()
			if err != nil {
				return err
			}
			for _, task := range tasks {
				wanted[task.Meta.ID] = v1.TaskNode(task)
			}
		}
		for _, host := range s.Hosts {
			for id := range containersOf(s.t, host) {
				if wanted[id] != s.nodes[host.Name] {
					return fmt.Errorf("on %s runs a container of task %s, which is wanted on node %q", host.Name, id, wanted[id])
				}
				delete(wanted, id)
			}
		}
		if len(wanted) > 0 {
			return fmt.Errorf("no container runs for %v", wanted)
		}
		return nil
	})
}

// median is that of some durations, rounded for people.
func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2].Round(10 * time.Millisecond)
}

// tree lists the files of a host's data directory that belong to the swarm, with their contents' sizes: what a refused command must
// leave as it was.
func tree(t *testing.T, h *lab.Host) []string {
	t.Helper()
	var files []string
	entries, err := os.ReadDir(h.Root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// containerd's logs and databases live a life of their own, and the audit log tells of what was refused, too.
		if e.Name() == "containerd" || strings.HasPrefix(e.Name(), "audit.log") {
			continue
		}
		err := filepath.WalkDir(filepath.Join(h.Root, e.Name()), func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil {
				files = append(files, fmt.Sprintf("%s %s %d", strings.TrimPrefix(path, h.Root), info.Mode(), info.Size()))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}
