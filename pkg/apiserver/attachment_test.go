package apiserver_test

import (
	"net/http"
	"slices"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// attachable is a swarm with the node n1 and two networks, of which the one that is called open takes attachments.
func attachable(t *testing.T) *fixture {
	f := serve(t)
	f.commit(nodeOp("n1", 1))
	f.network("closed")
	_, _, err := client.Create(f.ctx, f.client, v1.Networks, &v1.Network{Meta: v1.Meta{Name: "open"}, Spec: &v1.NetworkSpec{Attachable: true}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) attach(name string, spec v1.AttachmentSpec) (*v1.Attachment, error) {
	f.Helper()
	made, _, err := client.Create(f.ctx, f.client, v1.Attachments, &v1.Attachment{Meta: v1.Meta{Name: name}, Spec: &spec})
	return made, err
}

// attachmentTask has an attachment's task be in a state.
func (f *fixture) attachmentTask(a *v1.Attachment, state v1.TaskState) {
	f.Helper()
	id := v1.AttachmentTask(a.Meta.ID)
	d := &v1.TaskDesired{Service: a.Meta.ID, ServiceName: a.Meta.Name, Slot: 1, Attempt: 1, State: v1.TaskRunning, Placement: &v1.TaskPlacement{Node: a.Spec.Node},
		Networks:   []v1.NetworkAddress{{Network: a.Spec.Networks[0], Addresses: []string{"10.0.0.7/24"}}},
		Attachment: &v1.TaskAttachment{Node: a.Spec.Node, Namespace: a.Spec.Namespace, Networks: a.Spec.Networks}}
	f.commit(store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionDesired, Value: d, Meta: &v1.Meta{ID: id}, If: store.Always()},
		store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionStatus, Value: &v1.TaskStatus{State: state}, If: store.Always()})
	f.until("the task is "+state.String(), func(s *store.Snapshot) bool {
		t, ok := store.Get(s, v1.Tasks, id)
		return ok && v1.Observed(t) == state
	})
}

// TestAttachment: what is named is found, and written by its ID; a name ends with what has it.
func TestAttachment(t *testing.T) {
	f := attachable(t)
	blue, err := f.attach("blue", v1.AttachmentSpec{Node: "n1", Namespace: "blue", Networks: []string{"open"}, Aliases: []string{"azure"}})
	if err != nil {
		t.Fatal(err)
	}
	open, _ := f.snapshot().ByName(v1.KindNetwork, "open")
	if blue.Spec.Namespace != "/run/netns/blue" || !slices.Equal(blue.Spec.Networks, []string{open}) {
		t.Errorf("%+v, want the namespace /run/netns/blue and the network %s", blue.Spec, open)
	}
	f.refused(client.Delete(f.ctx, f.client, v1.Networks, "open"), http.StatusBadRequest, "network open is in use by attachment blue of node n1")
	f.attachmentTask(blue, v1.TaskRunning)
	_, err = f.attach("blue", *blue.Spec)
	f.refused(err, http.StatusConflict, "attachment blue already exists")
	_, err = f.attach("again", *blue.Spec)
	f.refused(err, http.StatusConflict, "/run/netns/blue of the node is attached already, as blue: detach that first")

	same := &v1.Attachment{Meta: v1.Meta{Name: "blue", Labels: map[string]string{"a": "b"}},
		Spec: &v1.AttachmentSpec{Node: "n1", Namespace: "blue", Networks: []string{"open"}, Aliases: []string{"azure"}}}
	if _, _, err := client.Update(f.ctx, f.client, v1.Attachments, same); err != nil {
		t.Errorf("the same again, with a label: %v", err)
	}
	same.Spec.Aliases = nil
	_, _, err = client.Update(f.ctx, f.client, v1.Attachments, same)
	f.refused(err, http.StatusBadRequest, "only updates to Labels are allowed")

	f.attachmentTask(blue, v1.TaskComplete)
	second, err := f.attach("blue", *blue.Spec)
	if err != nil {
		t.Fatalf("the name of one that has ended: %v", err)
	}
	if _, ok := store.Get(f.snapshot(), v1.Attachments, blue.Meta.ID); ok || second.Meta.ID == blue.Meta.ID {
		t.Error("the one that has ended is still there")
	}
	if err := client.Delete(f.ctx, f.client, v1.Attachments, "blue"); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.snapshot().Lookup(v1.KindClaim, v1.NameClaim(v1.KindAttachment, "blue")); ok {
		t.Error("its name is still taken")
	}
	if err := client.Delete(f.ctx, f.client, v1.Networks, "open"); err != nil {
		t.Errorf("the network that nothing uses any more: %v", err)
	}
}

// TestNetworkOfDetached: while the links of an attachment that was taken away may be there, the network stays.
func TestNetworkOfDetached(t *testing.T) {
	f := attachable(t)
	blue, err := f.attach("blue", v1.AttachmentSpec{Node: "n1", Namespace: "blue", Networks: []string{"open"}})
	if err != nil {
		t.Fatal(err)
	}
	f.attachmentTask(blue, v1.TaskRunning)
	if err := client.Delete(f.ctx, f.client, v1.Attachments, "blue"); err != nil {
		t.Fatal(err)
	}
	f.refused(client.Delete(f.ctx, f.client, v1.Networks, "open"), http.StatusBadRequest, "network open is in use by attachment blue of node n1")
}

func TestAttachmentRefused(t *testing.T) {
	f := attachable(t)
	for _, c := range []struct {
		spec v1.AttachmentSpec
		code int
		want string
	}{
		{v1.AttachmentSpec{Node: "n1", Namespace: "blue", Networks: []string{"closed"}}, http.StatusForbidden, "network closed not manually attachable"},
		{v1.AttachmentSpec{Node: "n1", Namespace: "blue", Networks: []string{"open", "closed"}}, http.StatusForbidden, "network closed not manually attachable"},
		{v1.AttachmentSpec{Node: "n1", Namespace: "blue", Networks: []string{"nosuch"}}, http.StatusBadRequest, "network nosuch not found"},
		{v1.AttachmentSpec{Node: "n2", Namespace: "blue", Networks: []string{"open"}}, http.StatusBadRequest, "node n2 not found"},
		{v1.AttachmentSpec{Node: "n1", Namespace: "blue"}, http.StatusBadRequest, "networks"},
		{v1.AttachmentSpec{Node: "n1", Networks: []string{"open"}}, http.StatusBadRequest, "namespace"},
		{v1.AttachmentSpec{Namespace: "blue", Networks: []string{"open"}}, http.StatusBadRequest, "node"},
		{v1.AttachmentSpec{Node: "n1", Namespace: "a/b", Networks: []string{"open"}}, http.StatusBadRequest, "is not an absolute path"},
		{v1.AttachmentSpec{Node: "n1", Namespace: "blue", Networks: []string{"open"}, Aliases: []string{"a b"}}, http.StatusBadRequest, "is not a host name"},
	} {
		_, err := f.attach("blue", c.spec)
		f.refused(err, c.code, c.want)
	}
	if n := f.snapshot().Count(v1.KindAttachment); n != 0 {
		t.Errorf("%d attachments are there", n)
	}
}
