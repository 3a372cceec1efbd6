package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// TestTutorialServices is what docs.docker.com teaches after the first tutorial, steps 17 to 23: ports of hosts, round robin, global
// services, a stack whose image comes from a registry in the swarm itself, secrets, configs, and a swarm that is locked.
func TestTutorialServices(t *testing.T) {
	s := hosts(t, "manager1", "worker1", "worker2")
	s.managers = 1
	for _, h := range s.Hosts {
		for _, image := range []string{"redis-alpine", "nginx-latest", "nginx-alpine"} {
			h.Must("image", "load", "--quiet", "-i", filepath.Join(s.Bin, "tutorial-"+image+".tar"))
		}
	}
	tut := &tutorial{s, s.Hosts[0]}
	tut.createSwarm()
	tut.addNodes()
	tut.hostPorts()
	tut.roundRobin()
	tut.global()
	tut.stack()
	tut.secrets()
	tut.configs()
	tut.attachable()
	tut.lock()
}

// tutorialFile is a file that the tutorial has its reader write.
func (s *tutorial) tutorialFile(name string) string {
	path, err := filepath.Abs(filepath.Join("testdata", "tutorial", name))
	if err != nil {
		s.t.Fatal(err)
	}
	return path
}

// answers waits until the page is as the tutorial says.
func (s *tutorial) answers(url, want string) {
	s.t.Helper()
	s.Eventually(generous, url+" answers", func() error {
		if body, err := s.Client.Get(url); err != nil || !strings.Contains(body, want) {
			return fmt.Errorf("%q, %v; want %q", body, err, want)
		}
		return nil
	})
}

// Step 17, first half: a port of the hosts that run a task, and of no other.
func (s *tutorial) hostPorts() {
	s.run(s.manager, "docker service create --name my-web --publish mode=host,published=8080,target=80 --replicas 2 nginx")
	on := strings.Fields(s.run(s.manager, "docker service ps my-web --format {{.Node}}"))
	for _, h := range s.Hosts {
		url := fmt.Sprintf("http://%s:8080/", h.Addr)
		if slices.Contains(on, h.Name) {
			s.answers(url, "Welcome to nginx!")
		} else if body, err := s.Client.Get(url); err == nil {
			s.t.Errorf("port 8080 of %s, where no task runs, answers %q", h.Name, body)
		}
	}
	s.run(s.manager, "docker service rm my-web")
}

// Step 17, second half: a name that stands for the tasks' addresses, for a load balancer of one's own.
func (s *tutorial) roundRobin() {
	s.run(s.manager, "docker network create --driver overlay my-network")
	s.run(s.manager, "docker service create --replicas 3 --name my-web --network my-network --endpoint-mode dnsrr nginx")
	webs := s.tasksOf(s.manager, "my-web", 3)
	for _, from := range webs {
		s.resolves(from, "my-web", addresses(webs)...)
	}
	if r := s.manager.Ctl("service", "create", "--name", "no", "--endpoint-mode", "dnsrr", "--publish", "8081:80", "nginx"); r.Code == 0 {
		s.t.Error("a published port through the mesh is taken for a service without a virtual address")
	}
	s.run(s.manager, "docker service rm my-web")
	s.Eventually(generous, "a network that no task uses any more is removed", func() error {
		if r := s.manager.Ctl("network", "rm", "my-network"); r.Code != 0 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
}

// Step 18: a task on every node, also on one that comes later.
func (s *tutorial) global() {
	s.run(s.manager, "docker service create --mode global --name agent nginx")
	s.run(s.manager, "docker service ls", "agent", "global", "3/3")
	s.run(s.manager, "docker node update --availability drain worker2", "worker2")
	s.everywhere("agent", "manager1", "worker1")
	s.run(s.manager, "docker node update --availability active worker2", "worker2")
	s.everywhere("agent", "manager1", "worker1", "worker2")
	s.run(s.manager, "docker service rm agent")
}

// Step 19: a registry as a service, an image that is pushed to it, and a stack that every node pulls it for.
func (s *tutorial) stack() {
	s.manager.Must("image", "load", "--quiet", "-i", filepath.Join(s.Bin, "tutorial-registry-2.tar"))
	s.run(s.manager, "docker service create --name registry --constraint node.hostname==manager1 --publish published=5000,target=5000 registry:2")
	s.run(s.manager, "docker service ls", "registry", "replicated", "1/1", "registry:2", "*:5000->5000/tcp")
	s.answers(fmt.Sprintf("http://%s:5000/v2/", s.Host("worker2").Addr), "")
	if err := s.push("stackdemo-latest", s.Host("worker1").Addr.String()+":5000/stackdemo"); err != nil {
		s.t.Fatal(err)
	}
	s.run(s.manager, "docker stack deploy --compose-file "+s.tutorialFile("compose.yaml")+" stackdemo",
		"Creating network stackdemo_default", "Creating service stackdemo_redis", "Creating service stackdemo_web")
	s.converged(s.manager, "stackdemo_redis", 1, generous)
	s.converged(s.manager, "stackdemo_web", 1, generous)
	s.run(s.manager, "docker stack services stackdemo", "stackdemo_redis", "stackdemo_web", "replicated", "1/1", "127.0.0.1:5000/stackdemo:latest", "redis:alpine", "*:8000->8000/tcp")
	for i, h := range s.Hosts {
		s.answers(fmt.Sprintf("http://%s:8000/", h.Addr), fmt.Sprintf("Hello World! I have been seen %d times.", i+1))
	}
	s.run(s.manager, "docker service scale stackdemo_web=3", "stackdemo_web scaled to 3") // the workers pull it by 127.0.0.1 too
	s.settled(s.manager, generous, "registry", "stackdemo_redis", "stackdemo_web")
	s.run(s.manager, "docker stack rm stackdemo", "Removing service stackdemo_web", "Removing service stackdemo_redis", "Removing network stackdemo_default")
	s.run(s.manager, "docker service rm registry")
}

// push copies an image of an archive to a registry, from outside of the swarm.
func (s *tutorial) push(archive, to string) error {
	image, err := tarball.ImageFromPath(filepath.Join(s.Bin, "tutorial-"+archive+".tar"), nil)
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(to, name.Insecure)
	if err != nil {
		return err
	}
	return remote.Write(ref, image, remote.WithTransport(s.Client.HTTP().Transport))
}

// Step 20: a secret in a service, rotated, and taken away.
func (s *tutorial) secrets() {
	create := func(name, text string) {
		if r := s.manager.CtlInput(text, "secret", "create", name, "-"); r.Code != 0 {
			s.t.Fatalf("secret create: %+v", r)
		}
	}
	shows := func(path, want string) {
		s.t.Helper()
		if r := s.manager.Ctl("exec", "redis.1", "/workload", "cat", path); r.Code != 0 || r.Stdout != want {
			s.t.Errorf("cat %s: status %d, %q, %s; want %q", path, r.Code, r.Stdout, r.Stderr, want)
		}
	}
	create("my_secret_data", "This is a secret")
	s.run(s.manager, "docker service create --name redis --constraint node.hostname==worker1 --secret my_secret_data redis:alpine")
	shows("/run/secrets/my_secret_data", "This is a secret")
	s.run(s.manager, "docker secret ls", "my_secret_data")
	s.refused("secret 'my_secret_data' is in use by the following service: redis", "secret", "rm", "my_secret_data")
	create("my_secret_data_v2", "This is a newer secret")
	s.run(s.manager, "docker service update --secret-rm my_secret_data --secret-add source=my_secret_data_v2,target=my_secret_data redis")
	shows("/run/secrets/my_secret_data", "This is a newer secret")
	s.run(s.manager, "docker service update --secret-rm my_secret_data_v2 redis")
	if r := s.manager.Ctl("exec", "redis.1", "/workload", "cat", "/run/secrets/my_secret_data"); r.Code == 0 || !strings.Contains(r.Stderr, "no such file or directory") {
		s.t.Errorf("a secret that was taken away: %+v", r)
	}
	s.run(s.manager, "docker service rm redis")
	s.run(s.manager, "docker secret rm my_secret_data my_secret_data_v2", "my_secret_data")
}

// refused runs a command that must fail with the words.
func (s *tutorial) refused(words string, args ...string) {
	s.t.Helper()
	if r := s.manager.Ctl(args...); r.Code == 0 || !strings.Contains(r.Stderr, words) {
		s.t.Errorf("%q: status %d, %s; want %q", args, r.Code, r.Stderr, words)
	}
}

// Step 21: a page that is a template of the service and its environment.
func (s *tutorial) configs() {
	s.run(s.manager, "docker config create --template-driver golang homepage "+s.tutorialFile("index.html.tmpl"))
	s.run(s.manager, "docker service create --name hello-template --env HELLO=Docker --config source=homepage,target=/usr/share/nginx/html/index.html "+
		"--publish published=3000,target=80 nginx:alpine")
	for _, h := range s.Hosts {
		s.answers(fmt.Sprintf("http://%s:3000/", h.Addr), "<p>Hello Docker! I'm service hello-template.</p>")
	}
	s.refused("config 'homepage' is in use by the following service: hello-template", "config", "rm", "homepage")
	s.run(s.manager, "docker service rm hello-template")
	s.run(s.manager, "docker config rm homepage", "homepage")
}

// Step 23: a process of one's own, in a namespace of its own, finds a service of an attachable network by name from another host, also where
// that is encrypted; there is no "docker run" here, and what stands for its container is a network namespace.
func (s *tutorial) attachable() {
	for _, network := range []string{"test-net", "my-encrypted"} {
		args := []string{"--attachable"}
		if network == "my-encrypted" {
			args = append(args, "--opt", "encrypted")
		}
		s.run(s.manager, "docker network create --driver overlay "+strings.Join(args, " ")+" "+network)
		s.run(s.manager, "docker service create --name alpine1 --network "+network+" --constraint node.hostname==worker1 nginx")
		one := s.tasksOf(s.manager, "alpine1", 1)[0]
		n := s.guest("alpine2-" + network)
		s.run(s.manager, "docker network attach "+network+" --node worker2 --netns "+n.Path+" --name alpine2", "alpine2: ", network)
		two := s.attached(s.Host("worker2"), n, "alpine2")
		s.resolves(two, "alpine1", s.vip(s.manager, "alpine1"))
		s.Eventually(generous, "alpine2 reaches alpine1 on "+network, func() error {
			body, err := two.get("alpine1", 80, "/")
			if err == nil && !strings.Contains(body, "Welcome to nginx!") {
				err = fmt.Errorf("%q", body)
			}
			return err
		})
		s.resolves(one, "alpine2", two.address(0))
		s.run(s.manager, "docker network detach alpine2", "alpine2")
		s.run(s.manager, "docker service rm alpine1")
		if err := n.Delete(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// Step 22: a swarm that is locked, a manager that is restarted, and its key.
func (s *tutorial) lock() {
	out := s.run(s.manager, "docker swarm update --autolock=true", "Swarm updated.", "run the `swarmctl swarm unlock` command and provide the following key:", "SWMKEY-1-")
	key := out[strings.Index(out, "SWMKEY-1-"):]
	key, _, _ = strings.Cut(key, "\n")
	s.run(s.manager, "docker swarm unlock-key", key)
	s.manager.Stop()
	s.manager.Launch()
	s.Eventually(generous, "the manager says that it is locked", func() error {
		if r := s.manager.Ctl("service", "ls"); r.Code == 0 || !strings.Contains(r.Stderr, "Swarm is encrypted and needs to be unlocked before it can be used.") {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if r := s.manager.CtlInput(key+"\n", "swarm", "unlock"); r.Code != 0 {
		s.t.Fatalf("swarm unlock: %+v", r)
	}
	s.Settled(s.manager, 1)
	s.run(s.manager, "docker service ls", "NAME")
	rotated := s.run(s.manager, "docker swarm unlock-key --rotate", "Successfully rotated manager unlock key.", "SWMKEY-1-")
	if strings.Contains(rotated, key) {
		s.t.Errorf("a rotated key is the old one:\n%s", rotated)
	}
	s.run(s.manager, "docker swarm update --autolock=false", "Swarm updated.")
}
