package containerd

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	containerregistry "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// hub is a registry that can fail, and counts what is asked of it.
type hub struct {
	*httptest.Server
	// fail answers a request instead of the registry, if it returns true.
	fail atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	// blobs counts the GETs of blobs, all all requests.
	blobs, all atomic.Int64
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.all.Add(1)
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			h.blobs.Add(1)
		}
		if fail := h.fail.Load(); fail != nil && (*fail)(w, r) {
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

// failWith makes the registry answer everything with the status.
func (h *hub) failWith(status int) {
	f := func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return true }
	h.fail.Store(&f)
}

// ref is the reference of an image in the registry.
func (h *hub) ref(image string) string { return strings.TrimPrefix(h.URL, "http://") + "/" + image }

func (h *hub) push(t *testing.T, image string, what remote.Taggable) {
	t.Helper()
	ref, err := name.ParseReference(h.ref(image))
	if err != nil {
		t.Fatal(err)
	}
	switch what := what.(type) {
	case containerregistry.Image:
		err = remote.Write(ref, what)
	case containerregistry.ImageIndex:
		err = remote.WriteIndex(ref, what)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// marked is the test image with something of its own in it.
func marked(t *testing.T, mark string) containerregistry.Image {
	return testImage(t, func(c *containerregistry.Config) { c.Env = append(c.Env, "MARK="+mark) })
}

func TestPull(t *testing.T) {
	r := theRuntime(t)
	h := newHub(t)
	h.push(t, "app:1", marked(t, "first"))
	ref := h.ref("app:1")

	// Thirty at once are one pull: a layer and a configuration.
	var group sync.WaitGroup
	for range 30 {
		group.Go(func() {
			i, err := r.Pull(t.Context(), ref, runtime.Source{})
			if err != nil || i.Name != ref || i.Loaded || i.Size == 0 {
				t.Errorf("Pull: %+v, %v", i, err)
			}
		})
	}
	group.Wait()
	if n := h.blobs.Load(); n > 2 {
		t.Errorf("%d blobs were asked for, want 2", n)
	}
	c := container("env", "MARK")
	c.Image = ref
	run(t, r, c)
	if got := output(t, r, c.ID); got != "first\n" {
		t.Errorf("ran %q", got)
	}

	// The tag moves.
	h.push(t, "app:1", marked(t, "second"))
	pinned, platforms, err := r.Resolve(t.Context(), ref, v1.RegistryLogin{})
	if err != nil || len(platforms) != 1 || platforms[0] != (v1.Platform{Architecture: "amd64", OS: "linux"}) {
		t.Fatalf("Resolve: %s, %v, %v", pinned, platforms, err)
	}
	second, err := r.Pull(t.Context(), ref, runtime.Source{})
	if err != nil || pinned != ref+"@"+second.Digest {
		t.Errorf("Pull: %+v, %v, want digest of %s", second, err, pinned)
	}

	// The same content under the pinned name needs no registry, and neither does the name again.
	before := h.all.Load()
	for range 2 {
		if i, err := r.Pull(t.Context(), pinned, runtime.Source{}); err != nil || i.Name != h.ref("app@"+second.Digest) || i.Digest != second.Digest {
			t.Errorf("Pull %s: %+v, %v", pinned, i, err)
		}
	}
	if n := h.all.Load(); n != before {
		t.Errorf("the registry was asked %d times for what is here", n-before)
	}

	for _, broken := range []func(){func() { h.failWith(http.StatusServiceUnavailable) }, func() { h.failWith(http.StatusTooManyRequests) }, h.Close} {
		broken()
		if i, err := r.Pull(t.Context(), ref, runtime.Source{}); err != nil || i.Digest != second.Digest {
			t.Errorf("Pull of what is here: %+v, %v", i, err)
		}
		if _, err := r.Pull(t.Context(), h.ref("other:1"), runtime.Source{}); err == nil || errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("Pull of what is not: %v, want an error that passes", err)
		}
		if _, _, err := r.Resolve(t.Context(), ref, v1.RegistryLogin{}); err == nil || errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("Resolve: %v, want an error that passes", err)
		}
	}
}

func TestPullPinned(t *testing.T) {
	r := theRuntime(t)
	h := newHub(t)
	h.push(t, "pinned:1", marked(t, "pinned"))
	pinned, _, err := r.Resolve(t.Context(), h.ref("pinned:1"), v1.RegistryLogin{})
	if err != nil {
		t.Fatal(err)
	}
	i, err := r.Pull(t.Context(), pinned, runtime.Source{})
	if err != nil || !strings.HasSuffix(pinned, i.Digest) {
		t.Fatalf("Pull: %+v, %v", i, err)
	}
	c := container("env", "MARK")
	c.Image = i.Name
	run(t, r, c)
	if got := output(t, r, c.ID); got != "pinned\n" {
		t.Errorf("ran %q", got)
	}
}

func TestPullBad(t *testing.T) {
	r := theRuntime(t)
	h := newHub(t)
	arm, err := mutate.ConfigFile(testImage(t, nil), &containerregistry.ConfigFile{Architecture: "arm64", OS: "linux"})
	if err != nil {
		t.Fatal(err)
	}
	h.push(t, "arm:1", mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: arm,
		Descriptor: containerregistry.Descriptor{Platform: &containerregistry.Platform{Architecture: "arm64", OS: "linux"}}}))
	denied := func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/secret/") {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	h.fail.Store(&denied)
	for _, test := range []struct{ ref, want string }{
		{h.ref("nosuch:1"), "no such image: " + h.ref("nosuch:1")},
		{h.ref("arm:1"), "no matching manifest for linux/amd64"},
		{h.ref("secret:1"), "pull access denied for " + h.ref("secret:1") + ", repository does not exist or may require authorization"},
		{"Not A Name", "invalid reference format"},
		{"", "invalid reference format"},
		{h.ref("nosuch@sha256:" + strings.Repeat("0", 64)), "no such image"},
	} {
		i, err := r.Pull(t.Context(), test.ref, runtime.Source{})
		if !errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Pull %s: %+v, %v, want %q and ErrInvalid", test.ref, i, err, test.want)
		}
	}
	if _, platforms, err := r.Resolve(t.Context(), h.ref("arm:1"), v1.RegistryLogin{}); err != nil || len(platforms) != 1 || platforms[0].Architecture != "arm64" {
		t.Errorf("Resolve: %v, %v", platforms, err)
	}
	if _, _, err := r.Resolve(t.Context(), h.ref("nosuch:1"), v1.RegistryLogin{}); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("Resolve: %v, want ErrInvalid", err)
	}
}

func TestPullWithCredentials(t *testing.T) {
	h := newHub(t)
	h.push(t, "private:1", marked(t, "private"))
	locked := func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, ok := r.BasicAuth(); ok && user == "anna" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	h.fail.Store(&locked)
	password := "n0t-it"
	r := start(t, func(c *Config) {
		c.Credentials = func(string) (string, string, error) { return "anna", password, nil }
	})
	if _, err := r.Pull(t.Context(), h.ref("private:1"), runtime.Source{}); !errors.Is(err, runtime.ErrInvalid) || strings.Contains(err.Error(), password) {
		t.Errorf("Pull with a wrong password: %v", err)
	}
	password = "secret"
	if _, err := r.Pull(t.Context(), h.ref("private:1"), runtime.Source{}); err != nil {
		t.Errorf("Pull: %v", err)
	}
}

// TestPullEndsForOne: who stops waiting does not stop the pull of the others.
func TestPullEndsForOne(t *testing.T) {
	r := theRuntime(t)
	h := newHub(t)
	h.push(t, "slow:1", marked(t, "slow"))
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	slow := func(http.ResponseWriter, *http.Request) bool {
		once.Do(func() { close(asked) })
		<-release
		return false
	}
	h.fail.Store(&slow)
	ctx, cancel := context.WithCancel(t.Context())
	impatient, patient := make(chan error), make(chan error)
	go func() { _, err := r.Pull(ctx, h.ref("slow:1"), runtime.Source{}); impatient <- err }()
	<-asked
	go func() { _, err := r.Pull(t.Context(), h.ref("slow:1"), runtime.Source{}); patient <- err }()
	cancel()
	if err := <-impatient; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	close(release)
	if err := <-patient; err != nil {
		t.Errorf("the other: %v", err)
	}
}

func TestInsecure(t *testing.T) {
	r := &Runtime{config: Config{InsecureRegistries: []string{"registry.lan:5000", "plain", "10.1.0.0/16", "fd00::/8"}}}
	for host, want := range map[string]bool{
		"registry.lan:5000": true, "REGISTRY.lan:5000": true, "registry.lan:443": false, "registry.lan": false, "plain:80": true,
		"10.1.2.3:5000": true, "10.2.0.1:5000": false, "[fd00::1]:5000": true, "localhost:5000": true, "127.0.0.2": true,
		"[::1]:80": true, "docker.io": false, "localhost.example": false,
	} {
		if got, err := r.insecure(host); err != nil || got != want {
			t.Errorf("%s: %t, %v", host, got, err)
		}
	}
}
