package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// tutorialImages are archives of what stands in for the images that the tutorial names.
var tutorialImages = []string{"alpine-latest", "redis-3.0.6", "redis-3.0.7", "nginx-latest"}

// TestTutorial is the swarm tutorial of docs.docker.com, steps 1 to 15 and the first half of 16, with docker read as swarmctl: three
// machines named as there, the commands as they stand, and what each is promised to show.
func TestTutorial(t *testing.T) {
	s := hosts(t, "manager1", "worker1", "worker2")
	s.managers = 1
	for _, h := range s.Hosts {
		for _, name := range tutorialImages {
			h.Must("image", "load", "--quiet", "-i", filepath.Join(s.Bin, "tutorial-"+name+".tar"))
		}
	}
	tut := &tutorial{s, s.Hosts[0]}
	tut.createSwarm()
	tut.addNodes()
	tut.deployInspectScaleDelete()
	tut.rollingUpdate()
	tut.failingUpdate()
	tut.drain()
	tut.publish()
}

type tutorial struct {
	*swarm
	manager *lab.Host
}

// run runs a line of the tutorial on a host, and holds what it prints to containing the parts.
func (s *tutorial) run(h *lab.Host, line string, parts ...string) string {
	s.t.Helper()
	out := h.Must(strings.Fields(strings.TrimPrefix(line, "docker "))...)
	words := strings.Join(strings.Fields(out), " ")
	for _, p := range parts {
		if !strings.Contains(words, strings.Join(strings.Fields(p), " ")) {
			s.t.Errorf("%s on %s prints\n%s\nwant %q in it", line, h.Name, out, p)
		}
	}
	return out
}

// Steps 1 to 3: create a swarm.
func (s *tutorial) createSwarm() {
	out := s.run(s.manager, "docker swarm init --advertise-addr "+s.manager.Addr.String(), "Swarm initialized: current node (", ") is now a manager.",
		"To add a worker to this swarm, run the following command:", "swarmctl swarm join --token SWMTKN-1-", s.manager.Addr.String()+":2377",
		"To add a manager to this swarm, run 'swarmctl swarm join-token manager' and follow the instructions.")
	if !regexp.MustCompile(`SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}\b`).MatchString(out) {
		s.t.Errorf("swarm init prints no token:\n%s", out)
	}
	s.run(s.manager, "docker info", "Swarm: active", "Is Manager: true", "Managers: 1", "Nodes: 1")
	out = s.run(s.manager, "docker node ls", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS")
	if !regexp.MustCompile(`(?m)^\S+ \*\s+manager1\s+Ready\s+Active\s+Leader`).MatchString(out) || strings.Count(out, "\n") != 2 {
		s.t.Errorf("node ls:\n%s", out)
	}
}

// Steps 4 and 5: add nodes.
func (s *tutorial) addNodes() {
	out := s.run(s.manager, "docker swarm join-token worker", "To add a worker to this swarm, run the following command:")
	command := regexp.MustCompile(`swarmctl (swarm join .*)`).FindStringSubmatch(out)
	if command == nil {
		s.t.Fatalf("join-token prints no command:\n%s", out)
	}
	for _, h := range s.Hosts[1:] {
		s.run(h, command[1], "This node joined a swarm as a worker.")
	}
	s.learnNodes()
	s.Settled(s.manager, 1)
	out = s.run(s.manager, "docker node ls")
	for _, row := range []string{`manager1\s+Ready\s+Active\s+Leader`, `worker1\s+Ready\s+Active\s{3,}`, `worker2\s+Ready\s+Active\s{3,}`} {
		if !regexp.MustCompile(row).MatchString(out) {
			s.t.Errorf("node ls:\n%s\nwant a row like %s", out, row)
		}
	}
	s.run(s.manager, "docker info", "Managers: 1", "Nodes: 3")
	s.run(s.Hosts[1], "docker info", "Swarm: active", "Is Manager: false")
}

// Steps 6 to 10: deploy, inspect, scale and delete a service.
func (s *tutorial) deployInspectScaleDelete() {
	if out := s.run(s.manager, "docker service create --replicas 1 --name helloworld alpine ping docker.com"); !regexp.MustCompile(`^[0-9a-z]{25}\b`).MatchString(out) {
		s.t.Errorf("service create prints no ID first:\n%s", out)
	}
	s.run(s.manager, "docker service ls", "helloworld", "replicated", "1/1", "alpine")
	s.run(s.manager, "docker service inspect --pretty helloworld", "ID:", "Name:\t\thelloworld", "Service Mode:\tReplicated", "Replicas:\t1",
		"UpdateConfig:", "Parallelism:\t1", "ContainerSpec:", "Image:\t\talpine", "Args:\t\tping docker.com", "Endpoint Mode:\tvip")
	node := strings.TrimSpace(s.run(s.manager, "docker service ps helloworld --format {{.Node}}"))
	if h := s.Host(node); h == nil || len(containersOf(s.t, h)) != 1 {
		s.t.Errorf("service ps names node %q, where no container runs", node)
	}
	s.run(s.manager, "docker service scale helloworld=5", "helloworld scaled to 5")
	s.run(s.manager, "docker service ls", "5/5")
	s.settled(s.manager, generous, "helloworld")
	for _, h := range s.Hosts {
		if n := len(containersOf(s.t, h)); n < 1 || n > 2 {
			s.t.Errorf("%d of 5 tasks run on %s, want them spread", n, h.Name)
		}
	}
	s.run(s.manager, "docker service rm helloworld", "helloworld")
	if r := s.manager.Ctl("service", "inspect", "helloworld"); r.Code != 1 || !strings.Contains(r.Stderr, "no such service: helloworld") {
		s.t.Errorf("inspect after rm: exit %d, %q", r.Code, r.Stderr)
	}
	s.settled(s.manager, generous)
}

// Steps 11 and 12: apply a rolling update. The tutorial waits 10 s between two tasks; 2 s show the same.
func (s *tutorial) rollingUpdate() {
	s.run(s.manager, "docker service create --replicas 3 --name redis --update-delay 2s --update-monitor 1s redis:3.0.6")
	s.run(s.manager, "docker service inspect --pretty redis", "Replicas:\t3", "UpdateConfig:", "Parallelism:\t1", "Delay:\t\t2s", "redis:3.0.6")
	began := time.Now()
	s.run(s.manager, "docker service update --image redis:3.0.7 redis")
	if took := time.Since(began); took < 4*time.Second {
		s.t.Errorf("three tasks with 2 s between them were updated within %s", took)
	}
	s.run(s.manager, "docker service inspect --pretty redis", "UpdateStatus:", "State:\t\tcompleted", "redis:3.0.7")
	out := s.run(s.manager, "docker service ps redis", `\_ redis.1`, `\_ redis.2`, `\_ redis.3`)
	if now, before := strings.Count(out, "redis:3.0.7"), strings.Count(out, "redis:3.0.6"); now != 3 || before != 3 || strings.Count(out, "Shutdown") < 3 {
		s.t.Errorf("service ps after the update:\n%s", out)
	}
}

// Step 13: an update that fails pauses, and says so.
func (s *tutorial) failingUpdate() {
	r := s.manager.Ctl("service", "update", "--image", "127.0.0.1:1/nosuch:1", "--restart-max-attempts", "1", "redis")
	if r.Code == 0 {
		s.t.Errorf("an update to an image that is nowhere ends well:\n%s", r.Stdout)
	}
	s.run(s.manager, "docker service inspect --pretty redis", "State:\t\tpaused", "update paused due to failure or early termination of task")
	s.run(s.manager, "docker service update --image redis:3.0.7 redis")
	s.run(s.manager, "docker service inspect --pretty redis", "State:\t\tcompleted")
	s.settled(s.manager, generous, "redis")
}

// Steps 14 and 15: drain a node, and take it back.
func (s *tutorial) drain() {
	worker := s.Host("worker1")
	s.run(s.manager, "docker service update --force --update-delay 0s redis")
	s.settled(s.manager, generous, "redis")
	if len(containersOf(s.t, worker)) == 0 {
		s.t.Fatal("no task of redis runs on worker1")
	}
	s.run(s.manager, "docker node update --availability drain worker1", "worker1")
	s.run(s.manager, "docker node inspect --pretty worker1", "Availability:\t\tDrain")
	s.Eventually(generous, "worker1 is empty", func() error {
		if n := len(containersOf(s.t, worker)); n > 0 {
			return fmt.Errorf("%d containers", n)
		}
		return nil
	})
	s.converged(s.manager, "redis", 3, generous)
	out := s.run(s.manager, "docker service ps redis --format {{.Node}}|{{.DesiredState}}|{{.CurrentState}}")
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "worker1|Running") {
			s.t.Errorf("service ps after the drain:\n%s", out)
		}
	}
	s.run(s.manager, "docker node update --availability active worker1", "worker1")
	s.run(s.manager, "docker node inspect --pretty worker1", "Availability:\t\tActive")
	time.Sleep(2 * time.Second) // that nothing happens has no other sign
	if n := len(containersOf(s.t, worker)); n > 0 {
		s.t.Errorf("%d tasks moved back to a node that is active again", n)
	}
	s.run(s.manager, "docker service scale redis=6")
	s.settled(s.manager, generous, "redis")
	if len(containersOf(s.t, worker)) == 0 {
		s.t.Error("new tasks do not use a node that is active again")
	}
	s.run(s.manager, "docker service rm redis")
}

// Step 16: a published port, on every node: two run a task, and the third leads there.
func (s *tutorial) publish() {
	s.run(s.manager, "docker service create --name my-web --publish published=8080,target=80 --replicas 2 nginx")
	nodes := strings.Fields(s.run(s.manager, "docker service ps my-web --format {{.Node}}"))
	if len(nodes) != 2 {
		s.t.Errorf("my-web runs on %v", nodes)
	}
	for _, name := range []string{"manager1", "worker1", "worker2"} {
		body, err := s.Client.Get(fmt.Sprintf("http://%s:8080/", s.Host(name).Addr))
		if err != nil || !strings.Contains(body, "Welcome to nginx!") {
			s.t.Errorf("port 8080 of %s: %q, %v", name, body, err)
		}
	}
	s.run(s.manager, "docker service rm my-web")
}
