package controllers_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile/reconciletest"
	"github.com/swarmd/swarmd/pkg/store"
)

// attachments is a swarm with one attachment of each of two nodes, on a network with room for two.
const attachments = `
kind: Node
metadata: {name: n1}
---
kind: Node
metadata: {name: n2}
---
kind: Network
metadata: {name: open}
spec: {attachable: true, subnets: [{subnet: 10.0.0.0/29}]}
---
kind: Claim
metadata: {id: Attachment/blue}
spec: {holder: blue}
---
kind: Attachment
metadata: {name: blue}
spec: {node: n1, namespace: /run/netns/blue, networks: [open], aliases: [azure]}
---
kind: Attachment
metadata: {name: red}
spec: {node: n2, namespace: /run/netns/red, networks: [open]}
`

type attachmentWorld struct {
	*reconciletest.World
	t *testing.T
}

func newAttachmentWorld(t *testing.T) attachmentWorld {
	t.Helper()
	w := attachmentWorld{reconciletest.NewWorld(controllers.Pipelines()), t}
	if err := w.Load(attachments); err != nil {
		t.Fatal(err)
	}
	w.do("run")
	return w
}

func (w attachmentWorld) do(steps ...string) {
	w.t.Helper()
	for _, step := range steps {
		if _, err := w.Do(step); err != nil {
			w.t.Fatalf("%s: %v", step, err)
		}
		if err := reconciletest.Check(w.Snapshot()); err != nil {
			w.t.Fatalf("after %s: %v", step, err)
		}
	}
}

func (w attachmentWorld) task(attachment string) *v1.Task {
	t, _ := store.Get(w.Snapshot(), v1.Tasks, v1.AttachmentTask(attachment))
	return t
}

// observe tells what became of an attachment's task.
func (w attachmentWorld) observe(attachment string, state v1.TaskState) {
	w.t.Helper()
	op := store.Op{Kind: v1.KindTask, ID: v1.AttachmentTask(attachment), Section: v1.SectionStatus, Value: &v1.TaskStatus{State: state, At: w.Now}}
	if err := w.Commit(op); err != nil {
		w.t.Fatal(err)
	}
	w.do("run")
}

func (w attachmentWorld) remove(kind v1.Kind, id string) {
	w.t.Helper()
	if err := w.Commit(store.Op{Kind: kind, ID: id, Section: v1.SectionSpec}); err != nil {
		w.t.Fatal(err)
	}
	w.do("run")
}

// TestAttachments: an attachment gets one task, with an address, on its node, whatever else that node takes.
func TestAttachments(t *testing.T) {
	w := newAttachmentWorld(t)
	blue, red := w.task("blue"), w.task("red")
	for _, task := range []*v1.Task{blue, red} {
		if task == nil || len(task.Desired.Networks) != 1 || task.Desired.State != v1.TaskRunning || v1.TaskNode(task) != task.Desired.Attachment.Node {
			t.Fatalf("%+v", task)
		}
	}
	if a, b := blue.Desired.Networks[0].Addresses[0], red.Desired.Networks[0].Addresses[0]; a == b {
		t.Errorf("both have the address %s", a)
	}
	if v1.TaskName(blue.Desired) != "blue" || !slices.Equal(blue.Desired.Attachment.Aliases, []string{"azure"}) {
		t.Errorf("its names are %s and %v", v1.TaskName(blue.Desired), blue.Desired.Attachment.Aliases)
	}
	w.observe("blue", v1.TaskRunning)
	w.do("node n1 drain", "run", "node n2 down", "run")
	if now := w.task("blue"); now.Desired.State != v1.TaskRunning {
		t.Errorf("a drain has it %s", now.Desired.State)
	}
	if now := w.task("red"); now.Desired.State != v1.TaskRunning {
		t.Errorf("the loss of its node has it %s", now.Desired.State)
	}
}

// TestAttachmentEnds: one whose namespace is gone is never made again, gives its address up, and is kept for a day.
func TestAttachmentEnds(t *testing.T) {
	w := newAttachmentWorld(t)
	w.observe("blue", v1.TaskRunning)
	address := w.task("blue").Desired.Networks[0].Addresses[0]
	w.observe("blue", v1.TaskComplete)
	if v1.HoldsAddresses(w.task("blue")) {
		t.Errorf("it still holds %s", address)
	}
	w.do("tick 23h", "run")
	if _, ok := store.Get(w.Snapshot(), v1.Attachments, "blue"); !ok || w.task("blue") == nil {
		t.Error("it is forgotten within a day")
	}
	w.do("tick 2h", "run", "run")
	if _, ok := store.Get(w.Snapshot(), v1.Attachments, "blue"); ok || w.task("blue") != nil {
		t.Error("it is not forgotten after a day")
	}
	if _, ok := w.Snapshot().Lookup(v1.KindClaim, v1.NameClaim(v1.KindAttachment, "blue")); ok {
		t.Error("its name is still taken")
	}
}

// TestAttachmentDetached: the task of one that is taken away stops, holds its address until it has, and goes.
func TestAttachmentDetached(t *testing.T) {
	w := newAttachmentWorld(t)
	w.observe("blue", v1.TaskRunning)
	w.remove(v1.KindAttachment, "blue")
	if task := w.task("blue"); task == nil || task.Desired.State != v1.TaskRemove || !v1.HoldsAddresses(task) {
		t.Fatalf("%+v", task)
	}
	w.observe("blue", v1.TaskShutdown)
	if w.task("blue") != nil {
		t.Error("its task is still there")
	}
}

// TestAttachmentOfNodeThatIsRemoved: with its node it goes, and so does its name.
func TestAttachmentOfNodeThatIsRemoved(t *testing.T) {
	w := newAttachmentWorld(t)
	w.observe("blue", v1.TaskRunning)
	w.remove(v1.KindNode, "n1")
	w.do("run")
	if _, ok := store.Get(w.Snapshot(), v1.Attachments, "blue"); ok || w.task("blue") != nil {
		t.Errorf("it is still there: %+v", w.task("blue"))
	}
	if _, ok := w.Snapshot().Lookup(v1.KindClaim, v1.NameClaim(v1.KindAttachment, "blue")); ok {
		t.Error("its name is still taken")
	}
}

// TestAttachmentWaits: without a free address it waits and says why, and it goes on once there is one.
func TestAttachmentWaits(t *testing.T) {
	w := newAttachmentWorld(t)
	const more = `
kind: Attachment
metadata: {name: NAME}
spec: {node: n1, namespace: /run/netns/NAME, networks: [open]}
`
	for _, name := range []string{"a", "b", "c", "late"} {
		if err := w.Load(strings.ReplaceAll(more, "NAME", name)); err != nil {
			t.Fatal(err)
		}
		w.do("run")
	}
	if late := w.task("late"); late == nil || late.Desired.Placement != nil || late.Desired.Pending == "" {
		t.Fatalf("%+v", late)
	}
	w.observe("red", v1.TaskRunning)
	w.observe("red", v1.TaskComplete)
	w.Now = w.Now.Add(time.Second)
	w.do("run")
	if late := w.task("late"); v1.TaskNode(late) != "n1" || late.Desired.Pending != "" {
		t.Errorf("%+v", late.Desired)
	}
}
