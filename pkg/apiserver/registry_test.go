package apiserver_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/store"
)

const plantedPassword = "planted-passw0rd-of-a-registry"

func loginOp(id, server, password string) store.Op {
	return store.Op{Kind: v1.KindRegistry, ID: id, Meta: &v1.Meta{Name: server}, Value: &v1.RegistrySpec{Username: "anna", Password: password}, If: store.Absent()}
}

func renewed(op store.Op) store.Op {
	op.If = store.Exists()
	return op
}

// runs is a revision of an image.
func runs(id, image string) store.Op {
	op := revisionOf(id)
	op.Value.(*v1.ServiceRevisionSpec).Task.Container.Image = image
	return op
}

// told are the logins of the last message: "-" for a message that says nothing of them.
func (a *agent) told() string {
	if a.last.Logins == nil {
		return "-"
	}
	var all []string
	for _, l := range a.last.Logins {
		all = append(all, l.Server+"="+l.Password)
	}
	return strings.Join(all, " ")
}

// TestSessionLogins: a node is sent the logins for the images of its own tasks that are to run, the nearest to each, anew when they
// are renewed, and told to forget them with the last such task.
func TestSessionLogins(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), loginOp("l1", "one.example", "a"), loginOp("l2", "two.example:5000", "b"),
		loginOp("l3", "two.example:5000/team", "c"), loginOp("l4", "docker.io", "d"),
		runs("r1", "one.example/app:1"), runs("r2", "two.example:5000/team/app@sha256:"+strings.Repeat("0", 64)), runs("r3", "two.example:5000/teams/app"),
		runs("r4", "nginx"), runs("r5", "three.example/app"),
		taskOp("a", "s", "node1", "r1", 1), taskOp("other", "s", "node2", "r4", 2))
	a := f.connect("node1")
	if got := a.told(); got != "one.example=a" {
		t.Errorf("at first the node is sent %q", got)
	}
	b := f.connect("node2")
	if got := b.told(); got != "docker.io=d" {
		t.Errorf("the other node is sent %q", got)
	}
	for i, test := range []struct {
		op   store.Op
		want string
	}{
		{taskOp("b", "s", "node1", "r2", 2), "one.example=a two.example:5000/team=c"},
		{taskOp("c", "s", "node1", "r5", 2), "-"}, // there is no login to that one
		{taskOp("d", "s", "node1", "r3", 2), "one.example=a two.example:5000=b two.example:5000/team=c"},
		{renewed(loginOp("l2", "two.example:5000", "new")), "one.example=a two.example:5000=new two.example:5000/team=c"},
		{stopped("a", "r1"), "two.example:5000=new two.example:5000/team=c"},
		{store.Op{Kind: v1.KindRegistry, ID: "l3", If: store.Exists()}, "two.example:5000=new"}, // serves both now
		{stopped("b", "r2"), "-"},
		{stopped("d", "r3"), ""},
		{loginOp("l5", "three.example", "e"), "three.example=e"},
	} {
		revision := f.commit(test.op)
		for a.take(); a.last.Revision < revision; { // news of the other node may be on its way
			a.take()
		}
		if got := a.told(); got != test.want {
			t.Errorf("step %d: sent %q, want %q", i+1, got, test.want)
		}
	}
}

// TestLoginsAreNotShown: no answer to anybody has the password of a login, nor tells whether a guess of it is right; and one that the
// registry refuses is not kept.
func TestLoginsAreNotShown(t *testing.T) {
	images := &registry{digest: "a", accept: func(l v1.RegistryLogin) (bool, error) {
		if l.Server == "away.example" {
			return false, errors.New("nobody there")
		}
		return l.Password != "wrong", nil
	}}
	f := serve(t, func(o *apiserver.Options) { o.Resolver = images })
	body := func(name, spec string) string {
		return fmt.Sprintf(`{"apiVersion":"swarm/v1","kind":"Registry","metadata":{"name":%q},"spec":%s}`, name, spec)
	}
	good := `{"username":"anna","password":"` + plantedPassword + `"}`
	for _, test := range []struct {
		name, spec string
		code       int
		want       string
	}{
		{"one.example", good, http.StatusCreated, `"username":"anna"`},
		{"away.example", good, http.StatusCreated, "the login to away.example is kept unchecked: nobody there"},
		{"two.example/team", `{"identityToken":"` + plantedPassword + `"}`, http.StatusCreated, `"name":"two.example/team"`},
		{"three.example", `{"username":"anna","password":"wrong"}`, http.StatusBadRequest, `the registry three.example refuses the user \"anna\"`},
		{"three.example", `{"username":"anna"}`, http.StatusBadRequest, "spec.password"},
		{"three.example", `{"username":"an:na","password":"` + plantedPassword + `"}`, http.StatusBadRequest, "holds a colon"},
		{"three.example", `{"username":"anna","password":"` + plantedPassword + `\n"}`, http.StatusBadRequest, "holds control characters"},
		{"https://three.example", good, http.StatusBadRequest, "is not a registry"},
		{"index.docker.io", good, http.StatusBadRequest, "want that"},
		{"one.example", good, http.StatusConflict, "registry one.example already exists"},
	} {
		got := f.do("POST", "/v1/registries", body(test.name, test.spec))
		if got.code != test.code || !strings.Contains(got.body, test.want) || strings.Contains(got.body, plantedPassword) {
			t.Errorf("POST %s %s: %d %s, want %d and %q", test.name, test.spec, got.code, got.body, test.code, test.want)
		}
	}
	for _, path := range []string{"registries", "registries/one.example", "registries/two.example%2Fteam"} {
		if got := f.do("GET", "/v1/"+path, ""); got.code != http.StatusOK || strings.Contains(got.body, plantedPassword) || !strings.Contains(got.body, "example") {
			t.Errorf("GET %s: %d %s", path, got.code, got.body)
		}
	}
	for _, spec := range []string{good, `{"username":"anna","password":"guess"}`} {
		before := f.snapshot().Revision()
		if got := f.do("PUT", "/v1/registries/one.example", body("one.example", spec)); got.code != http.StatusOK || f.snapshot().Revision() == before {
			t.Errorf("PUT: %d %s, written %t", got.code, got.body, f.snapshot().Revision() != before)
		}
	}
	// Labels alone may change without the password; another user needs one.
	if got := f.do("PUT", "/v1/registries/one.example", body("one.example", `{"username":"anna"}`)); got.code != http.StatusOK {
		t.Errorf("PUT of labels: %d %s", got.code, got.body)
	}
	if got := f.do("PUT", "/v1/registries/one.example", body("one.example", `{"username":"otto"}`)); got.code != http.StatusBadRequest {
		t.Errorf("PUT of another user: %d %s", got.code, got.body)
	}
	service := web("web")
	service.Spec.Task.Container.Image = "one.example/app:1"
	f.create(service)
	if got := images.logins; len(got) != 1 || got[0].Server != "one.example" || got[0].Password != "guess" {
		t.Errorf("the image is looked up as %v", got)
	}
	if got := f.do("DELETE", "/v1/registries/one.example", ""); got.code != http.StatusNoContent {
		t.Errorf("DELETE: %d %s", got.code, got.body)
	}
}

// TestImageTunnelIsForOwnTasks: a node is led to others for images of its own tasks that are to run, and for no others.
func TestImageTunnelIsForOwnTasks(t *testing.T) {
	f := serve(t)
	stopped := taskOp("c", "s", "node1", "r3", 3)
	stopped.Value.(*v1.TaskDesired).State = v1.TaskShutdown
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), runs("r1", "one.example/app:1"), runs("r2", "two.example/app:1"), runs("r3", "three.example/app:1"),
		taskOp("a", "s", "node1", "r1", 1), taskOp("b", "s", "node2", "r2", 2), stopped)
	for image, want := range map[string]int{
		"one.example/app:1":   http.StatusNotFound, // nobody else has it
		"two.example/app:1":   http.StatusConflict,
		"three.example/app:1": http.StatusConflict,
		"":                    http.StatusConflict,
	} {
		if got := f.do("POST", "/v1/nodes/node1/image?image="+image, ""); got.code != want {
			t.Errorf("%q: %d %s, want %d", image, got.code, got.body, want)
		}
	}
}

// TestImagePeers: a node is led to those that run the image first, then to those where it may be left, and to no node twice.
func TestImagePeers(t *testing.T) {
	f := serve(t)
	image := "one.example/app:1"
	state := func(op store.Op, desired v1.TaskState) store.Op {
		op.Value.(*v1.TaskDesired).State = desired
		return op
	}
	f.commit(runs("r1", image), runs("r2", "two.example/app:1"))
	for i, node := range []string{"node1", "node2", "node3", "node4", "node5", "node6", "gone"} {
		f.commit(nodeOp(node, uint32(i+1)))
		if node != "gone" {
			f.commit(addrOp(node, "192.0.2.1:2377"))
		}
	}
	f.commit(taskOp("mine", "s", "node1", "r1", 1),
		state(taskOp("leaving", "s", "node2", "r1", 2), v1.TaskShutdown), statusOp("leaving", v1.TaskRunning, ""),
		state(taskOp("left", "s", "node3", "r1", 3), v1.TaskShutdown), statusOp("left", v1.TaskShutdown, ""),
		state(taskOp("before", "s", "node2", "r1", 4), v1.TaskShutdown), statusOp("before", v1.TaskFailed, ""),
		state(taskOp("lost", "s", "gone", "r1", 5), v1.TaskShutdown), statusOp("lost", v1.TaskShutdown, ""),
		taskOp("other", "s", "node4", "r2", 6), statusOp("other", v1.TaskRunning, ""),
		taskOp("pulling", "s", "node5", "r1", 7), statusOp("pulling", v1.TaskPreparing, ""),
		state(taskOp("refused", "s", "node6", "r1", 8), v1.TaskShutdown), statusOp("refused", v1.TaskRejected, ""))
	for again, want := range []string{"leaving left", "leaving left", "left", ""} {
		wanted, peers := apiserver.ImagePeers(f.snapshot(), "node1", image)
		var got []string
		for _, p := range apiserver.InTurn(peers, "node1", again) {
			got = append(got, p.Meta.ID)
		}
		if !wanted || strings.Join(got, " ") != want {
			t.Errorf("asked again %d times: %t, %v, want %s", again, wanted, got, want)
		}
	}
	if wanted, _ := apiserver.ImagePeers(f.snapshot(), "node3", image); wanted {
		t.Error("a node whose task has ended may ask for its image")
	}
}
