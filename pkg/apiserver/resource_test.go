package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// refused tells whether an error is a problem with the status, and with the words in it.
func (f *fixture) refused(err error, status int, words ...string) {
	f.Helper()
	if client.Status(err) != status {
		f.Errorf("%v (status %d), want status %d", err, client.Status(err), status)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			f.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestServiceLifecycle(t *testing.T) {
	f := serve(t)
	made := f.create(web("web"))
	if len(made.Meta.ID) != v1.IDLength || made.Meta.Generation != 1 || made.Meta.CreatedAt.IsZero() || made.Meta.Revisions[v1.SectionSpec] == 0 {
		t.Errorf("meta of a new service: %+v", made.Meta)
	}
	if made.Spec.Mode != v1.ModeReplicated || *made.Spec.Replicas != 1 {
		t.Errorf("defaults are missing: %+v", made.Spec)
	}
	s := f.snapshot()
	if _, ok := store.Get(s, v1.ServiceRevisions, v1.RevisionID(made)); !ok {
		t.Error("a new service has no revision")
	}
	if claim, ok := store.Get(s, v1.Claims, "Service/web"); !ok || claim.Spec.Holder != made.Meta.ID {
		t.Errorf("the name is not claimed: %+v", claim)
	}
	for _, ref := range []string{made.Meta.ID, "web", made.Meta.ID[:6]} {
		got, err := client.Get(f.ctx, f.client, v1.Services, ref)
		if err != nil || got.Meta.ID != made.Meta.ID {
			t.Errorf("get %s: %v, %v", ref, got, err)
		}
	}
	_, _, err := client.Create(f.ctx, f.client, v1.Services, web("web"))
	f.refused(err, http.StatusConflict, "name conflicts with an existing object: service web already exists")

	if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Fatal(err)
	}
	gone, ok := store.Get(f.snapshot(), v1.Services, made.Meta.ID)
	if !ok || gone.Meta.Deleting.IsZero() {
		t.Errorf("a removed service is not marked: %+v", gone)
	}
	_, err = client.Get(f.ctx, f.client, v1.Services, "web")
	f.refused(err, http.StatusNotFound, "service web not found")
	f.refused(client.Delete(f.ctx, f.client, v1.Services, "web"), http.StatusNotFound)
	again := f.create(web("web")) // the name is free at once
	if again.Meta.ID == made.Meta.ID {
		t.Error("a new service has the ID of an old one")
	}
}

func TestUpdate(t *testing.T) {
	f := serve(t)
	made := f.create(web("web"))
	before := f.snapshot().Revision()

	same, _, err := client.Update(f.ctx, f.client, v1.Services, made)
	if err != nil || f.snapshot().Revision() != before {
		t.Errorf("an identical update wrote something: revision %d, before %d, %v", f.snapshot().Revision(), before, err)
	}
	if diff := cmp.Diff(made, same); diff != "" {
		t.Errorf("an identical update answers with another object:\n%s", diff)
	}

	labelled := *made
	labelled.Meta.Labels = map[string]string{"team": "a"}
	got, _, err := client.Update(f.ctx, f.client, v1.Services, &labelled)
	if err != nil || got.Meta.Generation != 1 || got.Meta.Labels["team"] != "a" {
		t.Errorf("labels alone: %+v, %v", got.Meta, err)
	}

	scaled := web("web")
	scaled.Spec.Replicas = new(uint64)
	*scaled.Spec.Replicas = 3
	scaled.Meta.Revisions = made.Meta.Revisions // from before the labels
	_, _, err = client.Update(f.ctx, f.client, v1.Services, scaled)
	f.refused(err, http.StatusConflict, "update out of sequence")

	scaled.Meta.Revisions = v1.Revisions{} // over whatever is there
	got, _, err = client.Update(f.ctx, f.client, v1.Services, scaled)
	if err != nil || got.Meta.Generation != 2 || *got.Spec.Replicas != 3 || got.Meta.Labels != nil {
		t.Errorf("scaled: %+v, %v", got, err)
	}
	if n := f.snapshot().Count(v1.KindServiceRevision); n != 1 {
		t.Errorf("%d revisions after scaling, want the one", n)
	}

	image := *got
	spec := *got.Spec
	spec.Task.Container.Image = "nginx:1.28"
	image.Spec = &spec
	if _, _, err = client.Update(f.ctx, f.client, v1.Services, &image); err != nil {
		t.Fatal(err)
	}
	if n := f.snapshot().Count(v1.KindServiceRevision); n != 2 {
		t.Errorf("%d revisions after a new image, want 2", n)
	}

	renamed := web("shop")
	_, err = f.put("web", renamed)
	f.refused(err, http.StatusNotImplemented, "renaming services is not supported")
	_, err = f.put("nothing", web("nothing"))
	f.refused(err, http.StatusNotFound, "service nothing not found")
	wrongID := *made
	wrongID.Meta.ID = "another"
	wrongID.Meta.Revisions = v1.Revisions{}
	_, err = f.put("web", &v1.Service{Meta: v1.Meta{Name: "web", ID: "x", Revisions: v1.Revisions{5}}, Spec: made.Spec})
	f.refused(err, http.StatusConflict, "the one with that ID is gone")
}

// put replaces the object that ref means.
func (f *fixture) put(ref string, s *v1.Service) (*v1.Service, error) {
	got := new(v1.Service)
	meta := map[string]any{"name": s.Meta.Name}
	if s.Meta.ID != "" {
		meta["id"], meta["revisions"] = s.Meta.ID, s.Meta.Revisions
	}
	err := f.client.Do(f.ctx, http.MethodPut, "/v1/services/"+ref,
		map[string]any{"apiVersion": v1.APIVersion, "kind": "Service", "metadata": meta, "spec": s.Spec}, got)
	return got, err
}

func TestSamePausedUpdateResumes(t *testing.T) {
	f := serve(t)
	made := f.create(web("web"))
	f.commit(store.Op{Kind: v1.KindService, ID: made.Meta.ID, Section: v1.SectionDesired,
		Value: &v1.ServiceDesired{Update: &v1.UpdateStatus{State: v1.UpdatePaused}}, If: store.Exists()})
	got, _, err := client.Update(f.ctx, f.client, v1.Services, web("web"))
	if err != nil || got.Meta.Generation != 2 {
		t.Errorf("the same spec does not resume: generation %d, %v", got.Meta.Generation, err)
	}
}

// TestConcurrentWrites lets many change one service at once: each is told the truth, and none is lost.
func TestConcurrentWrites(t *testing.T) {
	f := serve(t)
	made := f.create(web("web"))
	const writers, each = 8, 10
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for done := 0; done < each; {
				got, err := client.Get(f.ctx, f.client, v1.Services, made.Meta.ID)
				if err != nil {
					t.Error(err)
					return
				}
				*got.Spec.Replicas++
				switch _, _, err = client.Update(f.ctx, f.client, v1.Services, got); {
				case err == nil:
					done++
				case client.Status(err) != http.StatusConflict:
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	got, err := client.Get(f.ctx, f.client, v1.Services, "web")
	if err != nil || *got.Spec.Replicas != 1+writers*each || got.Meta.Generation != 1+writers*each {
		t.Errorf("%d replicas at generation %d, want %d: %v", *got.Spec.Replicas, got.Meta.Generation, 1+writers*each, err)
	}
}

// TestOneNameOneService lets many create one name at once.
func TestOneNameOneService(t *testing.T) {
	f := serve(t)
	var all sync.WaitGroup
	results := make([]error, 16)
	for i := range results {
		all.Go(func() { _, _, results[i] = client.Create(f.ctx, f.client, v1.Services, web("web")) })
	}
	all.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else {
			f.refused(err, http.StatusConflict)
		}
	}
	if won != 1 || f.snapshot().Count(v1.KindService) != 1 {
		t.Errorf("%d created it, and %d are there", won, f.snapshot().Count(v1.KindService))
	}
}

func TestDryRun(t *testing.T) {
	f := serve(t)
	before := f.snapshot().Revision()
	body := `{"apiVersion":"swarm/v1","kind":"Service","metadata":{"name":"web"},"spec":{"task":{"container":{"image":"nginx"}}}}`
	got := f.do("POST", "/v1/services?dryRun=true", body)
	if got.code != http.StatusOK || !strings.Contains(got.body, `"mode":"replicated"`) {
		t.Errorf("dry run: %d %s", got.code, got.body)
	}
	if f.snapshot().Revision() != before {
		t.Error("a dry run wrote something")
	}
	f.create(web("web"))
	if got := f.do("POST", "/v1/services?dryRun=true", body); got.code != http.StatusConflict {
		t.Errorf("dry run of a name that is taken: %d %s", got.code, got.body)
	}
	if got := f.do("DELETE", "/v1/services/web?dryRun=true", ""); got.code != http.StatusNoContent {
		t.Errorf("dry run of a removal: %d %s", got.code, got.body)
	}
	if _, err := client.Get(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Errorf("a dry run removed the service: %v", err)
	}
}

func port(published uint16, mode v1.PublishMode) *v1.EndpointSpec {
	return &v1.EndpointSpec{Ports: []v1.PortConfig{{Target: 80, Published: published, Mode: mode}}}
}

func TestPublishedPorts(t *testing.T) {
	f := serve(t)
	first := web("first")
	first.Spec.Endpoint = port(8080, v1.PublishIngress)
	made := f.create(first)
	for _, c := range []struct {
		name string
		mode v1.PublishMode
		port uint16
		free bool
	}{
		{"same", v1.PublishIngress, 8080, false}, {"host", v1.PublishHost, 8080, false},
		{"other", v1.PublishIngress, 8081, true}, {"hosts", v1.PublishHost, 9090, true}, {"hosts2", v1.PublishHost, 9090, true},
		{"mesh", v1.PublishIngress, 9090, false},
	} {
		s := web(c.name)
		s.Spec.Endpoint = port(c.port, c.mode)
		_, _, err := client.Create(f.ctx, f.client, v1.Services, s)
		if c.free {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		f.refused(err, http.StatusBadRequest, fmt.Sprintf("port '%d' is already in use by service '", c.port))
	}
	for _, mode := range []v1.PublishMode{v1.PublishIngress, v1.PublishHost} {
		s := web("nodes")
		s.Spec.Endpoint = port(2377, mode)
		_, _, err := client.Create(f.ctx, f.client, v1.Services, s)
		f.refused(err, http.StatusBadRequest, "port '2377' is that at which managers listen")
		s.Spec.Endpoint = port(4789, mode)
		s.Spec.Endpoint.Ports[0].Protocol = v1.UDP
		_, _, err = client.Create(f.ctx, f.client, v1.Services, s)
		f.refused(err, http.StatusBadRequest, "port '4789/udp' is that by which nodes send each other the packets of tasks")
	}
	if err := client.Delete(f.ctx, f.client, v1.Services, made.Meta.ID); err != nil {
		t.Fatal(err)
	}
	s := web("after")
	s.Spec.Endpoint = port(8080, v1.PublishIngress)
	f.create(s)
}

func TestSecrets(t *testing.T) {
	f := serve(t)
	const word = "c3dvcmRmaXNo" // swordfish
	body := `{"apiVersion":"swarm/v1","kind":"Secret","metadata":{"name":"key"},"spec":{"data":"` + word + `"}}`
	made := f.do("POST", "/v1/secrets", body)
	if made.code != http.StatusCreated || made.header.Get("Location") == "" {
		t.Fatalf("create: %d %s", made.code, made.body)
	}
	put := `{"apiVersion":"swarm/v1","kind":"Secret","metadata":{"name":"key","labels":{"a":"b"}}}`
	answers := []answer{made, f.do("GET", "/v1/secrets", ""), f.do("GET", "/v1/secrets/key", ""), f.do("PUT", "/v1/secrets/key", put)}
	for _, a := range answers {
		if a.code >= 300 || strings.Contains(a.body, word) || strings.Contains(a.body, "swordfish") {
			t.Errorf("%d, or the secret is shown: %s", a.code, a.body)
		}
	}
	s := f.snapshot()
	for secret := range store.All(s, v1.Secrets) {
		if string(secret.Spec.Data) != "swordfish" || secret.Meta.Labels["a"] != "b" || secret.Meta.Generation != 1 {
			t.Errorf("after new labels: %+v", secret)
		}
	}
	changed := f.do("PUT", "/v1/secrets/key", strings.Replace(body, word, "b3RoZXI=", 1))
	if changed.code != http.StatusBadRequest || !strings.Contains(changed.body, "only updates to Labels are allowed") {
		t.Errorf("new data: %d %s", changed.code, changed.body)
	}
	if again := f.do("POST", "/v1/secrets", body); again.code != http.StatusConflict || !strings.Contains(again.body, "secret key already exists") {
		t.Errorf("the name again: %d %s", again.code, again.body)
	}
	f.useSecret()
	if got := f.do("DELETE", "/v1/secrets/key", ""); got.code != http.StatusBadRequest ||
		!strings.Contains(got.body, "secret 'key' is in use by the following service: web") {
		t.Errorf("delete in use: %d %s", got.code, got.body)
	}
	if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Fatal(err)
	}
	if got := f.do("DELETE", "/v1/secrets/key", ""); got.code != http.StatusNoContent {
		t.Errorf("delete: %d %s", got.code, got.body)
	}
	for c := range store.All(f.snapshot(), v1.Claims) {
		if c.Meta.ID != "SpecWrites" {
			t.Errorf("claim %s is left", c.Meta.ID)
		}
	}
}

// useSecret makes a service that refers to the secret.
func (f *fixture) useSecret() {
	f.Helper()
	s := web("web")
	s.Spec.Task.Container.Secrets = []v1.FileReference{{Source: "key"}}
	f.create(s)
}

func TestListPages(t *testing.T) {
	f := serve(t)
	var ids []string
	for i := range 25 {
		ids = append(ids, f.create(web(fmt.Sprintf("web%d", i))).Meta.ID)
	}
	slices.Sort(ids)
	var got []string
	for next := ""; ; {
		var page struct {
			Kind     string        `json:"kind"`
			Revision int64         `json:"revision"`
			Items    []*v1.Service `json:"items"`
			Continue string        `json:"continue"`
		}
		if err := f.client.Do(f.ctx, "GET", "/v1/services?limit=10&continue="+next, nil, &page); err != nil {
			t.Fatal(err)
		}
		if page.Kind != "ServiceList" || page.Revision == 0 || len(page.Items) > 10 {
			t.Errorf("page: kind %s, revision %d, %d items", page.Kind, page.Revision, len(page.Items))
		}
		for _, s := range page.Items {
			got = append(got, s.Meta.ID)
		}
		if next = page.Continue; next == "" {
			break
		}
	}
	if diff := cmp.Diff(ids, got); diff != "" {
		t.Error(diff)
	}
}

func TestFilters(t *testing.T) {
	f := serve(t)
	a, b := web("alpha"), web("beta")
	a.Meta.Labels = map[string]string{"tier": "front", "x": ""}
	b.Meta.Labels = map[string]string{"tier": "back"}
	a.Spec.Task.Container.Labels = map[string]string{"shown": "yes", "y": ""}
	a, b = f.create(a), f.create(b)
	revision := v1.RevisionID(a)
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2),
		store.Op{Kind: v1.KindNode, ID: "node1", Section: v1.SectionStatus, If: store.Always(), Value: &v1.NodeStatus{
			State: v1.NodeReady, Description: v1.NodeDescription{Hostname: "host1", Engine: v1.Engine{Labels: map[string]string{"disk": "ssd"}}}}},
		taskOp("t1", a.Meta.ID, "node1", revision, 1), taskOp("t2", a.Meta.ID, "node2", "older", 2), taskOp("t3", b.Meta.ID, "", "r", 1),
		store.Op{Kind: v1.KindTask, ID: "t1", Section: v1.SectionStatus, If: store.Always(), Value: &v1.TaskStatus{State: v1.TaskRunning}})
	for _, c := range []struct{ plural, query, want string }{
		{"services", "", "alpha beta"}, {"services", "filter=name=alp", "alpha"}, {"services", "filter=label=tier", "alpha beta"},
		{"services", "filter=label=tier=front", "alpha"}, {"services", "filter=label=x&filter=label=tier=back", ""}, {"services", "filter=label=x&filter=label=tier=front", "alpha"},
		{"services", "filter=label=tier=back&filter=name=alpha", ""}, {"services", "filter=mode=global", ""},
		{"services", "filter=id=" + b.Meta.ID[:5], "beta"},
		{"tasks", "filter=service=alpha", "t1 t2"}, {"tasks", "filter=service=alpha&filter=service=beta", "t1 t2 t3"},
		{"tasks", "filter=node=host1", "t1"}, {"tasks", "filter=node=node2&filter=service=alpha", "t2"},
		{"tasks", "filter=up-to-date=true", "t1"}, {"tasks", "filter=up-to-date=false", "t2 t3"}, {"tasks", "filter=state=running", "t1"},
		{"tasks", "filter=label=shown", "t1"}, {"tasks", "filter=label=shown=yes&filter=label=y", "t1"}, {"tasks", "filter=label=shown=no", ""},
		{"tasks", "filter=desired-state=running", "t1 t2 t3"}, {"tasks", "filter=desired-state=shutdown", ""},
		{"tasks", "filter=service=" + strings.Repeat("z", v1.IDLength), ""}, {"tasks", "filter=name=web.1", "t1 t3"},
		{"nodes", "filter=label=disk=ssd", "node1"}, {"nodes", "filter=name=host", "node1"}, {"nodes", "filter=role=worker", "node1 node2"},
		{"nodes", "filter=role=manager", ""}, {"nodes", "filter=membership=accepted", "node1 node2"},
		{"servicerevisions", "filter=service=alpha", revision},
	} {
		var page struct {
			Items []struct{ Metadata v1.Meta } `json:"items"`
		}
		if err := f.client.Do(f.ctx, "GET", "/v1/"+c.plural+"?"+c.query, nil, &page); err != nil {
			t.Errorf("%s?%s: %v", c.plural, c.query, err)
			continue
		}
		var got []string
		for _, o := range page.Items {
			if c.plural == "services" {
				got = append(got, o.Metadata.Name)
			} else {
				got = append(got, o.Metadata.ID)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s?%s: %s", c.plural, c.query, diff)
		}
	}
	for _, c := range []struct{ path, want string }{
		{"services?filter=colour=red", "service filters are id, label, mode, name"}, {"services?filter=mode=big", "want replicated, global"},
		{"services?filter=name", "want key=value"}, {"tasks?filter=desired-state=happy", "want a task's state"},
		{"tasks?filter=service=none", "service none not found"}, {"nodes?filter=role=boss", "want manager, worker"},
		{"tasks?filter=up-to-date=maybe", "want true, false"}, {"tasks?watch=true&filter=up-to-date=true", "cannot be watched"},
	} {
		if got := f.do("GET", "/v1/"+c.path, ""); got.code/100 != 4 || !strings.Contains(got.body, c.want) {
			t.Errorf("%s: %d %s, want %q", c.path, got.code, got.body, c.want)
		}
	}
}

// registry is an ImageResolver of which the test decides what it knows.
type registry struct {
	mu     sync.Mutex
	digest string
	err    error
	asked  int
	// logins are those that it was asked with, and accept tells which are good; nil for all.
	logins []v1.RegistryLogin
	accept func(v1.RegistryLogin) (bool, error)
}

func (r *registry) set(digest string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.digest, r.err = digest, err
}

func (r *registry) TryLogin(_ context.Context, login v1.RegistryLogin) (bool, error) {
	if r.accept == nil {
		return true, nil
	}
	return r.accept(login)
}

func (r *registry) Resolve(_ context.Context, ref string, login v1.RegistryLogin) (string, []v1.Platform, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	r.logins = append(r.logins, login)
	if r.err != nil {
		return "", nil, r.err
	}
	return ref + "@sha256:" + strings.Repeat(r.digest, 64), []v1.Platform{{OS: "linux", Architecture: "amd64"}}, nil
}

func TestImagesArePinned(t *testing.T) {
	images := &registry{digest: "a"}
	f := serve(t, func(o *apiserver.Options) { o.Resolver = images })
	made := f.create(web("web"))
	if want := "nginx:1.27@sha256:" + strings.Repeat("a", 64); made.Spec.Task.Container.Image != want || len(made.Spec.Task.Placement.Platforms) != 1 {
		t.Errorf("image %s, want %s; placement %+v", made.Spec.Task.Container.Image, want, made.Spec.Task.Placement)
	}
	before := f.snapshot().Revision()
	if _, warnings, err := client.Update(f.ctx, f.client, v1.Services, web("web")); err != nil || warnings != nil || f.snapshot().Revision() != before {
		t.Errorf("the same tag with the same digest is a change: %v, %v", warnings, err)
	}

	images.set("", errors.New("no route to host"))
	_, warnings, err := client.Update(f.ctx, f.client, v1.Services, web("web"))
	if err != nil || len(warnings) != 1 || f.snapshot().Revision() != before {
		t.Errorf("a registry that is away made a change: %v, %v", warnings, err)
	}
	other := web("other")
	made, warnings, err = client.Create(f.ctx, f.client, v1.Services, other)
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "could not be accessed on a registry to record") ||
		made.Spec.Task.Container.Image != "nginx:1.27" {
		t.Errorf("a registry that is away: %v, %v, %v", made, warnings, err)
	}

	images.set("b", nil)
	got := f.do("PUT", "/v1/services/web?resolveImage=changed", `{"apiVersion":"swarm/v1","kind":"Service","metadata":{"name":"web"},"spec":{"task":{"container":{"image":"nginx:1.27"}}}}`)
	if got.code != http.StatusOK || !strings.Contains(got.body, strings.Repeat("a", 64)) {
		t.Errorf("resolveImage=changed: %d %s", got.code, got.body)
	}
	updated, _, err := client.Update(f.ctx, f.client, v1.Services, web("web"))
	if err != nil || !strings.HasSuffix(updated.Spec.Task.Container.Image, strings.Repeat("b", 64)) || updated.Meta.Generation != 2 {
		t.Errorf("a tag that moved: %+v, %v", updated, err)
	}
}

func TestNodes(t *testing.T) {
	f := serve(t)
	join := func(id string, index uint32) (*v1.Node, error) {
		n, _, err := client.Create(f.ctx, f.client, v1.Nodes, &v1.Node{Meta: v1.Meta{ID: id}, Spec: &v1.NodeSpec{Index: index}})
		return n, err
	}
	for i := range 3 {
		n, err := join(fmt.Sprintf("node%d", i+1), 0)
		if err != nil || n.Spec.Index != uint32(i+1) || n.Spec.Role != v1.RoleWorker {
			t.Fatalf("node %d: %+v, %v", i+1, n, err)
		}
	}
	_, err := join("node2", 0)
	f.refused(err, http.StatusConflict, "node node2 already exists")
	_, err = join("other", 3)
	f.refused(err, http.StatusConflict, "node index 3 is taken")
	_, err = join("../x", 0)
	f.refused(err, http.StatusBadRequest, "metadata.id")
	if err := client.Delete(f.ctx, f.client, v1.Nodes, "node2"); err != nil {
		t.Fatal(err)
	}
	if n, err := join("", 0); err != nil || n.Spec.Index != 2 || len(n.Meta.ID) != v1.IDLength {
		t.Errorf("the index of a node that went is not used again: %+v, %v", n, err)
	}
	drained, err := client.Get(f.ctx, f.client, v1.Nodes, "node1")
	if err != nil {
		t.Fatal(err)
	}
	drained.Spec.Availability = v1.AvailabilityDrain
	if got, _, err := client.Update(f.ctx, f.client, v1.Nodes, drained); err != nil || got.Spec.Availability != v1.AvailabilityDrain || got.Spec.Index != 1 {
		t.Errorf("drain: %+v, %v", got, err)
	}
	moved := *drained
	moved.Meta.Revisions = v1.Revisions{}
	moved.Spec = &v1.NodeSpec{Index: 9}
	_, _, err = client.Update(f.ctx, f.client, v1.Nodes, &moved)
	f.refused(err, http.StatusBadRequest, "spec.index", "never changes")
	moved.Spec = &v1.NodeSpec{Role: v1.RoleManager}
	if got, _, err := client.Update(f.ctx, f.client, v1.Nodes, &moved); err != nil || got.Spec.Role != v1.RoleManager || got.Spec.Index != 1 {
		t.Errorf("promote: %+v, %v", got, err)
	}
	moved.Spec = &v1.NodeSpec{Role: v1.RoleWorker}
	_, _, err = client.Update(f.ctx, f.client, v1.Nodes, &moved)
	f.refused(err, http.StatusBadRequest, "attempting to demote the last manager of the swarm")
}

// TestDeletingIsNotThere: lists and watches show a removed service as gone, while its tasks still stop.
func TestDeletingIsNotThere(t *testing.T) {
	f := serve(t)
	f.create(web("web"))
	next, _, _ := f.lines("/v1/services?watch=true")
	next()
	next()
	if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Fatal(err)
	}
	if e := readEvent(t, next()); e.Type != "delete" || e.Object.Metadata.Name != "web" {
		t.Errorf("watch: %+v", e)
	}
	if all, err := client.List(f.ctx, f.client, v1.Services, nil); err != nil || len(all) != 0 {
		t.Errorf("list: %v, %v", all, err)
	}
}

func TestCluster(t *testing.T) {
	f := serve(t)
	f.commit(store.Op{Kind: v1.KindCluster, ID: v1.ClusterName, If: store.Absent(), Value: &v1.ClusterSpec{GatewayPool: "100.80.0.0/12"},
		Meta: &v1.Meta{Name: v1.ClusterName, Generation: 1}})
	c, err := client.Get(f.ctx, f.client, v1.Clusters, v1.ClusterName)
	if err != nil {
		t.Fatal(err)
	}
	c.Spec = &v1.ClusterSpec{TaskHistoryLimit: new(int64)}
	*c.Spec.TaskHistoryLimit = 2
	if c, _, err = client.Update(f.ctx, f.client, v1.Clusters, c); err != nil || *c.Spec.TaskHistoryLimit != 2 || c.Spec.GatewayPool != "100.80.0.0/12" {
		t.Errorf("%+v, %v", c, err)
	}
	c.Spec.GatewayPool = v1.DefaultGatewayPool
	_, _, err = client.Update(f.ctx, f.client, v1.Clusters, c)
	f.refused(err, http.StatusBadRequest, "spec.gatewayPool", "cannot change")
}
