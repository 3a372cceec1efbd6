package e2e

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// hub is a registry on a machine outside of the swarm, for who has its password.
type hub struct {
	s    *swarm
	addr string // host:port
	http *http.Server

	mu       sync.Mutex
	password string // of anna; "" lets in everybody
	from     map[string]int
}

// labSubnet is where the lab's machines are.
const labSubnet = "10.91.0.0/24"

// formAtHub is a swarm of machines that have no image, and a registry with the image app:1 that they speak to without TLS.
func formAtHub(t *testing.T, managers, workers int, password string) (*swarm, *hub) {
	t.Helper()
	s := &swarm{Lab: lab.New(t, lab.Names(managers, workers)...), t: t, nodes: make(map[string]string), managers: managers}
	for _, h := range s.Hosts {
		if err := h.Launch("--insecure-registry", labSubnet); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range s.Hosts {
		h.Answers()
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range s.Hosts {
				t.Logf("the end of what %s logged:\n%s", h.Name, tail(h.Log(), 4000))
			}
		}
	})
	s.Form(managers)
	s.learnNodes()
	h := &hub{s: s, addr: net.JoinHostPort(s.ClientAddr.String(), "5000"), from: make(map[string]int)}
	h.open()
	t.Cleanup(h.close)
	h.push("app:1", "one")
	h.set(password)
	return s, h
}

// open has the registry answer; what it has is kept in memory, and gone once it closes.
func (h *hub) open() {
	h.s.t.Helper()
	var listener net.Listener
	if err := h.s.Client.Do(func() (err error) {
		listener, err = net.Listen("tcp", h.addr)
		return err
	}); err != nil {
		h.s.t.Fatal(err)
	}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h.http = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.letsIn(r) {
			inner.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="hub"`)
		w.WriteHeader(http.StatusUnauthorized)
	})}
	go func() { _ = h.http.Serve(listener) }()
}

func (h *hub) letsIn(r *http.Request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	user, password, _ := r.BasicAuth()
	in := h.password == "" || user == "anna" && password == h.password
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil && in && strings.Contains(r.URL.Path, "/blobs/") {
		h.from[host]++
	}
	return in
}

// blobsTo is how many blobs a machine was given.
func (h *hub) blobsTo(host *lab.Host) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.from[host.Addr.String()]
}

func (h *hub) set(password string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.password = password
}

func (h *hub) close() { _ = h.http.Close() }

func (h *hub) ref(image string) string { return h.addr + "/" + image }

// push gives the registry the example image, with a mark that makes it another than the one of the same name with another mark.
func (h *hub) push(image, mark string) {
	h.s.t.Helper()
	ref, err := name.ParseReference(h.ref(image), name.Insecure)
	if err != nil {
		h.s.t.Fatal(err)
	}
	hello, err := tarball.ImageFromPath(filepath.Join(h.s.Bin, "hello-1.tar"), nil)
	if err != nil {
		h.s.t.Fatal(err)
	}
	config, err := hello.ConfigFile()
	if err != nil {
		h.s.t.Fatal(err)
	}
	marked := config.DeepCopy()
	marked.Config.Env = append(marked.Config.Env, "MARK="+mark)
	if hello, err = mutate.ConfigFile(hello, marked); err != nil {
		h.s.t.Fatal(err)
	}
	h.mu.Lock()
	password := h.password
	h.mu.Unlock()
	if err := remote.Write(ref, hello, remote.WithTransport(h.s.Client.HTTP().Transport), remote.WithAuth(&authn.Basic{Username: "anna", Password: password})); err != nil {
		h.s.t.Fatal(err)
	}
}

// login logs the swarm in.
func (h *hub) login(password string) lab.Result {
	return h.s.Hosts[0].CtlInput(password, "registry", "login", "--username", "anna", "--password-stdin", h.addr)
}

// says waits until a task of a service has an error with the words.
func (s *swarm) says(service string, words ...string) {
	s.t.Helper()
	s.Eventually(generous, "a task of "+service+" says why", func() error {
		out := s.Hosts[0].Must("service", "ps", "--no-trunc", "--format", "{{.Error}}", service)
		for _, w := range words {
			if !strings.Contains(out, w) {
				return fmt.Errorf("want %q in:\n%s", w, out)
			}
		}
		return nil
	})
}

// TestRegistryLogins is about a registry that lets nobody in without a password: tasks say what is missing, one command gives it to the
// swarm, and every pull uses the present one, also of a task that moves after the password was changed. It is on no disk, in no
// command line and in no log.
func TestRegistryLogins(t *testing.T) {
	const old, fresh = "planted-0ld-pass-of-a-registry", "planted-n3w-pass-of-a-registry"
	s, hub := formAtHub(t, 1, 2, old)
	manager := s.Hosts[0]
	for _, h := range s.Hosts { // enough on their disks to be searched
		if err := h.LoadImages(); err != nil {
			t.Fatal(err)
		}
	}
	if r := manager.Ctl("service", "create", "--detach", "--name", "early", "--restart-condition", "none", hub.ref("app:1")); r.Code != 0 ||
		!strings.Contains(r.Stderr, "could not be accessed on a registry") {
		t.Errorf("a service before the login: %+v", r)
	}
	s.says("early", "pull access denied for "+hub.ref("app:1"), "this swarm has no login to "+hub.addr, "swarmctl registry login "+hub.addr)
	manager.Must("service", "rm", "early")
	if r := hub.login("wr0ng"); r.Code == 0 || !strings.Contains(r.Stderr, `the registry `+hub.addr+` refuses the user "anna"`) {
		t.Errorf("a wrong login: %+v", r)
	}
	if r := hub.login(old); r.Code != 0 || r.Stdout != "Login Succeeded\n" {
		t.Fatalf("login: %+v", r)
	}
	if out := manager.Must("registry", "ls", "--format", "{{.Name}} {{.Username}}"); out != hub.addr+" anna\n" {
		t.Errorf("registry ls: %q", out)
	}
	if r := manager.Ctl("service", "create", "--quiet", "--name", "web", "--constraint", "node.hostname!=worker2", hub.ref("app:1")); r.Code != 0 || strings.Contains(r.Stderr, "could not") {
		t.Fatalf("a service after the login: %+v", r)
	}
	if out := manager.Must("service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", "web"); !strings.Contains(out, "app:1@sha256:") {
		t.Errorf("the image is not pinned: %s", out)
	}
	if n := hub.blobsTo(s.Host("worker2")); n != 0 {
		t.Errorf("a node without a task has pulled %d blobs", n)
	}
	s.onNoDisk("logged in", old, fresh)

	// A week later: the password is another one, and the task has to go to a node that never had the image.
	hub.set(fresh)
	manager.Must("service", "update", "--detach", "--constraint-rm", "node.hostname!=worker2", "--constraint-add", "node.hostname==worker2", "web")
	s.says("web", `the registry `+hub.addr+` refuses "anna"`, `renew it with "swarmctl registry login `+hub.addr)
	if r := hub.login(fresh); r.Code != 0 {
		t.Fatalf("login: %+v", r)
	}
	s.settled(manager, generous, "web")
	s.Eventually(generous, "the task runs where it had to go", func() error {
		if n := len(containersOf(t, s.Host("worker2"))); n != 1 || hub.blobsTo(s.Host("worker2")) == 0 {
			return fmt.Errorf("worker2 has %d containers, and was given %d blobs", n, hub.blobsTo(s.Host("worker2")))
		}
		return nil
	})
	s.onNoDisk("with the new password", old, fresh)

	// Without a login, what is there goes on, and what is not is refused.
	manager.Must("registry", "logout", hub.addr)
	manager.Must("service", "update", "--quiet", "--force", "web")
	s.settled(manager, generous, "web")
	manager.Must("service", "create", "--detach", "--name", "late", "--restart-condition", "none", "--constraint", "node.hostname==manager1", hub.ref("other:1"))
	s.says("late", "this swarm has no login to "+hub.addr)
	for _, h := range s.Hosts {
		if log := h.WholeLog(); strings.Contains(log, old) || strings.Contains(log, fresh) {
			t.Errorf("%s logged a password", h.Name)
		}
	}
	if out := manager.Must("audit"); strings.Contains(out, old) || !strings.Contains(out, "egistr") {
		t.Errorf("the audit log: %s", out)
	}
}

// TestImagesFromPeers: the registry is gone for good, and a service is scaled to nodes that never had its image: they have it from the node
// that runs it, whichever manager that is connected to. What no node has is refused, with both reasons.
func TestImagesFromPeers(t *testing.T) {
	s, hub := formAtHub(t, 2, 2, "")
	manager := s.Hosts[0]
	manager.Must("service", "create", "--quiet", "--name", "web", "--constraint", "node.hostname==worker1", hub.ref("app:1"))
	hub.close()
	manager.Must("service", "update", "--detach", "--constraint-rm", "node.hostname==worker1", "--constraint-add", "node.role==worker", "--replicas-max-per-node", "1", "web")
	manager.Must("service", "scale", "--detach", "web=2")
	s.Eventually(generous, "the task runs where the image was not", func() error {
		for _, name := range []string{"worker1", "worker2"} {
			if n := len(containersOf(t, s.Host(name))); n != 1 {
				return fmt.Errorf("%s has %d containers:\n%s", name, n, manager.Must("service", "ps", "--no-trunc", "web"))
			}
		}
		return nil
	})
	if n := hub.blobsTo(s.Host("worker2")); n != 0 {
		t.Errorf("worker2 was given %d blobs by the registry", n)
	}
	if log := s.Host("worker2").WholeLog(); !strings.Contains(log, "another node gave the image") {
		t.Errorf("worker2 says nothing of the other node:\n%s", tail(log, 2000))
	}
	manager.Must("service", "create", "--detach", "--name", "none", "--restart-condition", "none", hub.ref("app@sha256:"+strings.Repeat("0", 64)))
	s.says("none", "cannot be reached", "no other node gives the image")
}
