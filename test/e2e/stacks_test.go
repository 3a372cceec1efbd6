package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// publicStack is the compose file of a public project, and what is to be seen of it once it is deployed.
type publicStack struct {
	name string
	// services are how many tasks run of each, in stack services' words, on one manager and two workers.
	services map[string]string
	// ports answer on every host; hostPorts on those hosts that run a task.
	ports, hostPorts []int
	// from is a service with so many tasks; its tasks know the names in knows, and not those in not.
	from      string
	tasks     int
	knows, no []string
}

var publicStacks = []publicStack{
	{name: "voting", services: map[string]string{"redis": "2/2", "db": "1/1", "vote": "2/2", "result": "2/2", "worker": "1/1", "visualizer": "1/1"},
		ports: []int{5000, 5001, 8080}, from: "vote", tasks: 2, knows: []string{"redis", "worker", "vote"}, no: []string{"db", "result", "visualizer"}},
	{name: "wordpress", services: map[string]string{"db": "1/1", "wordpress": "2/2"}, ports: []int{8081}, from: "wordpress", tasks: 2,
		knows: []string{"db", "wordpress"}},
	{name: "traefik", services: map[string]string{"traefik": "1/1", "whoami": "3/3"}, hostPorts: []int{80}, from: "traefik", tasks: 1,
		knows: []string{"who", "whoami", "tasks.whoami"}},
	{name: "monitoring", services: map[string]string{"prometheus": "1/1", "node-exporter": "3/3", "alertmanager": "1/1", "cadvisor": "3/3",
		"grafana": "1/1 (max 1 per node)"}, ports: []int{9090, 9093, 3000}, hostPorts: []int{9100}, from: "prometheus", tasks: 1,
		knows: []string{"tasks.node-exporter", "cadvisor"}},
	{name: "nextcloud", services: map[string]string{"db": "1/1", "redis": "1/1", "prepare": "0/1 (1/1 completed)", "app": "2/2", "cron": "1/1"},
		ports: []int{8082}, from: "app", tasks: 2, knows: []string{"db", "redis", "cloud"}},
}

// TestStacks deploys five compose files of public projects, each with a second file that puts the test image in the place of the project's
// own: they converge, are found by name and port, stay as they are when deployed again, take an update, and go without a trace.
func TestStacks(t *testing.T) {
	s := form(t, 1, 2)
	first := s.Hosts[0]
	s.network(first, "edge")
	for _, p := range publicStacks {
		t.Log(p.name)
		p.deploy(s, first)
	}
	if out := first.Must("stack", "ls", "--format", "{{.Name}}"); out != "" {
		t.Errorf("stacks that are left: %s", out)
	}
	for _, kind := range []string{"service", "secret", "config"} {
		if out := first.Must(kind, "ls", "-q"); out != "" {
			t.Errorf("%s ls: %s", kind, out)
		}
	}
	if out := strings.TrimSpace(first.Must("network", "ls", "--format", "{{.Name}}")); out != "edge" {
		t.Errorf("networks that are left: %s", out)
	}
	s.settled(first, generous)
}

// files are the flags for the stack's files: what the project has, and the test's images.
func (p *publicStack) files(t *testing.T) []string {
	t.Helper()
	var flags []string
	for _, name := range []string{"compose.yml", "test.yml"} {
		path, err := filepath.Abs(filepath.Join("testdata", "stacks", p.name, name))
		if err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "-c", path)
	}
	return flags
}

func (p *publicStack) deploy(s *swarm, h *lab.Host) {
	files := p.files(s.t)
	up := func(args ...string) string {
		return h.Must(append(append([]string{"stack", "deploy", "--quiet", "--detach=false"}, append(files, args...)...), p.name)...)
	}
	s.t.Setenv("VERSION", "1")
	if out := up(); strings.Count(out, "Creating service ") != len(p.services) {
		s.t.Errorf("stack deploy:\n%s", out)
	}
	p.stands(s, h, "1")
	if out := up(); strings.Contains(out, "Creating") || strings.Contains(out, "Updating") {
		s.t.Errorf("stack deploy for the second time:\n%s", out)
	}
	s.t.Setenv("VERSION", "2")
	if out := up("--prune"); strings.Count(out, "Updating service ") != len(p.services) {
		s.t.Errorf("stack deploy with another image:\n%s", out)
	}
	p.stands(s, h, "2")
	h.Must("stack", "rm", p.name)
	if out := h.Must("network", "ls", "--format", "{{.Name}}"); strings.Contains(out, p.name) {
		s.t.Errorf("after stack rm there are the networks\n%s", out)
	}
	s.settled(h, generous)
}

// stands checks that everything is there that the file says, and runs the version.
func (p *publicStack) stands(s *swarm, h *lab.Host, version string) {
	s.t.Helper()
	seen := make(map[string]string)
	for line := range strings.Lines(h.Must("stack", "services", "--format", "{{.Name}}\t{{.Replicas}}\t{{.Image}}", p.name)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		service := strings.TrimPrefix(fields[0], p.name+"_")
		seen[service] = fields[1]
		if want := p.services[service]; fields[1] != want || fields[2] != "hello:"+version {
			s.t.Errorf("service %s is %s of %s, want %s of hello:%s", service, fields[1], fields[2], want, version)
		}
	}
	if len(seen) != len(p.services) {
		s.t.Errorf("stack services: %v", seen)
	}
	for _, port := range p.ports {
		for _, on := range s.Hosts {
			p.answers(s, on, port, version)
		}
	}
	for _, port := range p.hostPorts {
		p.answers(s, h, port, version)
	}
	for _, task := range s.tasksOf(h, p.name+"_"+p.from, p.tasks) {
		for _, name := range p.knows {
			if _, err := task.lookup(name); err != nil {
				s.t.Errorf("%s does not know %s: %v", task.name, name, err)
			}
		}
		for _, name := range p.no {
			if found, err := task.lookup(name); err == nil {
				s.t.Errorf("%s knows %s, which is on other networks: %v", task.name, name, found)
			}
		}
	}
}

func (p *publicStack) answers(s *swarm, on *lab.Host, port int, version string) {
	s.t.Helper()
	s.Eventually(generous, fmt.Sprintf("port %d of %s answers with version %s", port, on.Name, version), func() error {
		body, err := s.Client.Get(fmt.Sprintf("http://%s:%d/", on.Addr, port))
		if err == nil && !strings.Contains(body, "version "+version) {
			err = fmt.Errorf("it says %q", body)
		}
		return err
	})
}
