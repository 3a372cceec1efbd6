package apiserver_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

func secretOp(id, data string) store.Op {
	return store.Op{Kind: v1.KindSecret, ID: id, Meta: &v1.Meta{Name: "name-" + id}, Value: &v1.SecretSpec{Data: []byte(data)}, If: store.Absent()}
}

// needs is a revision that needs these secrets, and one config.
func needs(id string, secrets ...string) store.Op {
	op := revisionOf(id)
	c := &op.Value.(*v1.ServiceRevisionSpec).Task.Container
	for _, s := range secrets {
		c.Secrets = append(c.Secrets, v1.FileReference{Source: "name-" + s, ID: s})
	}
	c.Configs = []v1.FileReference{{Source: "name-conf", ID: "conf"}}
	return op
}

// stopped is a task of node1 that is to run no more.
func stopped(id, revision string) store.Op {
	op := taskOp(id, "s", "node1", revision, 1)
	op.Value.(*v1.TaskDesired).State = v1.TaskShutdown
	return op
}

// data are the IDs of the secrets and configs of the last message.
func (a *agent) data() string {
	var ids []string
	for _, s := range a.last.Secrets {
		ids = append(ids, s.Meta.ID+"="+string(s.Spec.Data))
	}
	for _, c := range a.last.Configs {
		ids = append(ids, c.Meta.ID+"="+string(c.Spec.Data))
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// TestSessionSecrets: a node is sent the secrets and configs that its own tasks need which are to run, once for as long as that is so,
// and no others.
func TestSessionSecrets(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1), nodeOp("node2", 2), secretOp("s1", "one"), secretOp("s2", "two"), secretOp("s3", "three"),
		store.Op{Kind: v1.KindConfig, ID: "conf", Meta: &v1.Meta{Name: "name-conf"}, Value: &v1.ConfigSpec{Data: []byte("c")}, If: store.Absent()},
		needs("r1", "s1"), needs("r2", "s1", "s2"), needs("r3", "s3"), needs("r4", "gone"),
		taskOp("a", "s", "node1", "r1", 1), taskOp("other", "s", "node2", "r3", 2))
	a := f.connect("node1")
	if got := a.data(); got != "conf=c s1=one" {
		t.Errorf("at first the node is sent %q", got)
	}
	b := f.connect("node2")
	if got := b.data(); got != "conf=c s3=three" {
		t.Errorf("the other node is sent %q", got)
	}
	for i, test := range []struct {
		ops  []store.Op
		want string
	}{
		{[]store.Op{taskOp("b", "s", "node1", "r2", 2)}, "s2=two"},
		{[]store.Op{stopped("a", "r1")}, ""},
		{[]store.Op{taskOp("c", "s", "node1", "r1", 3)}, ""},              // b has kept them
		{[]store.Op{stopped("b", "r2"), stopped("c", "r1")}, ""},          // and now nobody does
		{[]store.Op{taskOp("d", "s", "node1", "r1", 4)}, "conf=c s1=one"}, //
		{[]store.Op{taskOp("e", "s", "node1", "r1", 5)}, ""},
		{[]store.Op{stopped("d", "r1")}, ""},
		{[]store.Op{taskOp("f", "s", "node1", "r4", 6)}, ""}, // what is not there is not sent
		{[]store.Op{{Kind: v1.KindTask, ID: "e", Section: v1.SectionDesired, If: store.Exists()}, stopped("f", "r4")}, ""},
		{[]store.Op{taskOp("g", "s", "node1", "r2", 7)}, "conf=c s1=one s2=two"},
	} {
		revision, got := f.commit(test.ops...), ""
		for a.last.Revision < revision { // there is news of the other node in between
			a.take()
			got += a.data()
		}
		if got != test.want {
			t.Errorf("step %d: sent %q, want %q", i+1, got, test.want)
		}
	}
}

// TestSecretsArePinned: a service gets what its references mean when it is written, and is refused what is not there.
func TestSecretsArePinned(t *testing.T) {
	f := serve(t)
	f.commit(secretOp("s1", "one"), secretOp("s2", "two"))
	spec := func(sources ...string) *v1.Service {
		s := web("web")
		for _, source := range sources {
			s.Spec.Task.Container.Secrets = append(s.Spec.Task.Container.Secrets, v1.FileReference{Source: source, ID: "stale"})
		}
		return s
	}
	if _, _, err := client.Create(f.ctx, f.client, v1.Services, spec("name-s1", "no", "nor")); client.Status(err) != http.StatusBadRequest ||
		!strings.Contains(err.Error(), "secrets not found: no, nor") {
		t.Errorf("secrets that are not there: %v", err)
	}
	made := f.create(spec("name-s1", "s2"))
	mode := uint32(0o444)
	want := []v1.FileReference{{Source: "name-s1", ID: "s1", Target: "/run/secrets/name-s1", UID: "0", GID: "0", Mode: &mode},
		{Source: "s2", ID: "s2", Target: "/run/secrets/s2", UID: "0", GID: "0", Mode: &mode}}
	if diff := cmp.Diff(want, made.Spec.Task.Container.Secrets); diff != "" {
		t.Errorf("references (-want +got):\n%s", diff)
	}
	for _, id := range []string{"s1", "s2"} {
		if got := f.do("DELETE", "/v1/secrets/"+id, ""); got.code != http.StatusBadRequest || !strings.Contains(got.body, "in use by the following service: web") {
			t.Errorf("removing what is in use: %d %s", got.code, got.body)
		}
	}
	large := strings.Repeat("x", v1.MaxSecretSize-1)
	var many []string
	for i := range v1.MaxFilesSize/v1.MaxSecretSize + 2 {
		id := fmt.Sprintf("large%d", i)
		f.commit(secretOp(id, large))
		many = append(many, id)
	}
	crowd := spec(many...)
	crowd.Meta.Name = "crowd"
	if _, _, err := client.Create(f.ctx, f.client, v1.Services, crowd); !strings.Contains(fmt.Sprint(err), "its secrets and configs are") {
		t.Errorf("%d large secrets: %v", len(many), err)
	}
}

// TestServiceHoldsVersions: what was decided about a version that nobody refers to cannot be written any more once a service does.
func TestServiceHoldsVersions(t *testing.T) {
	f := serve(t)
	const name = "shop_key_v1"
	claim := v1.NameClaim(v1.KindSecret, name)
	f.commit(store.Op{Kind: v1.KindSecret, ID: "s1", Value: &v1.SecretSpec{Data: []byte("one")}, If: store.Absent(), Meta: &v1.Meta{Name: name,
		Labels: map[string]string{v1.LabelStack: "shop", v1.LabelStackKey: "key", v1.LabelStackVersion: "v1"}}},
		store.Op{Kind: v1.KindClaim, ID: claim, Value: &v1.ClaimSpec{Holder: "s1"}, If: store.Absent(), Meta: &v1.Meta{ID: claim}})
	removal := func() []store.Op {
		held, _ := store.Get(f.snapshot(), v1.Claims, claim)
		return []store.Op{{Kind: v1.KindSecret, ID: "s1", If: store.Exists()},
			{Kind: v1.KindClaim, ID: claim, If: store.AtRevision(held.Meta.Revisions[v1.SectionSpec])}}
	}
	service := web("web")
	decided := removal()
	made := f.create(service)
	if _, err := f.store.Commit(f.ctx, store.Commit{Ops: decided[1:]}); err != nil {
		t.Fatalf("a service that does not refer to it is in the way: %v", err)
	}
	f.commit(store.Op{Kind: v1.KindClaim, ID: claim, Value: &v1.ClaimSpec{Holder: "s1"}, If: store.Absent(), Meta: &v1.Meta{ID: claim}})
	decided = removal()
	made.Spec.Task.Container.Secrets = []v1.FileReference{{Source: name}}
	if _, _, err := client.Update(f.ctx, f.client, v1.Services, made); err != nil {
		t.Fatal(err)
	}
	if _, err := f.store.Commit(f.ctx, store.Commit{Ops: decided}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the removal of what a service refers to by now: %v", err)
	}
	if held, ok := store.Get(f.snapshot(), v1.Claims, claim); !ok || held.Spec.Holder != "s1" {
		t.Errorf("the claim is now %+v", held)
	}
}
