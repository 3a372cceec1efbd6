package apiserver_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// ofMode is a service of a mode.
func ofMode(name string, mode v1.ServiceMode, replicas, concurrent uint64) *v1.Service {
	s := web(name)
	s.Spec.Mode = mode
	if replicas > 0 {
		s.Spec.Replicas = &replicas
	}
	if concurrent > 0 {
		s.Spec.MaxConcurrent = &concurrent
	}
	return s
}

// TestModeNeverChanges: a service is for ever of the mode that it was made with, in Docker's words.
func TestModeNeverChanges(t *testing.T) {
	f := serve(t)
	made := f.create(ofMode("web", v1.ModeReplicated, 2, 0))
	for _, mode := range []v1.ServiceMode{v1.ModeGlobal, v1.ModeReplicatedJob, v1.ModeGlobalJob} {
		_, err := f.put("web", ofMode("web", mode, 0, 0))
		f.refused(err, http.StatusNotImplemented, "service mode change is not allowed")
	}
	if got, err := client.Get(f.ctx, f.client, v1.Services, "web"); err != nil || got.Meta.Generation != 1 || got.Spec.Mode != v1.ModeReplicated {
		t.Errorf("after the refusals: %+v, %v, was %+v", got, err, made)
	}
}

// TestJobsBeginAnew: a job's iteration is its generation, which every change of its spec raises, the same said again does not, and
// neither do labels.
func TestJobsBeginAnew(t *testing.T) {
	f := serve(t)
	f.create(ofMode("sum", v1.ModeReplicatedJob, 4, 2))
	generation := func(s *v1.Service) uint64 {
		t.Helper()
		got, _, err := client.Update(f.ctx, f.client, v1.Services, s)
		if err != nil {
			t.Fatal(err)
		}
		return got.Meta.Generation
	}
	same, labelled := ofMode("sum", v1.ModeReplicatedJob, 4, 2), ofMode("sum", v1.ModeReplicatedJob, 4, 2)
	labelled.Meta.Labels = map[string]string{"team": "a"}
	forced := ofMode("sum", v1.ModeReplicatedJob, 4, 2)
	forced.Spec.Task.ForceUpdate = 1
	for i, c := range []struct {
		service *v1.Service
		want    uint64
	}{{same, 1}, {labelled, 1}, {forced, 2}, {ofMode("sum", v1.ModeReplicatedJob, 3, 2), 3}} {
		if got := generation(c.service); got != c.want {
			t.Errorf("change %d: generation %d, want %d", i+1, got, c.want)
		}
	}
}

// TestServiceStatusesOfModes: of a replicated job as many are desired as may be at work, of what is on every node what the nodes that are there have
// been given and have not completed.
func TestServiceStatusesOfModes(t *testing.T) {
	f := serve(t)
	agent, job := f.create(ofMode("agent", v1.ModeGlobal, 0, 0)), f.create(ofMode("job", v1.ModeReplicatedJob, 5, 2))
	each := f.create(ofMode("each", v1.ModeGlobalJob, 0, 0))
	state := func(id string, state v1.TaskState) store.Op {
		return store.Op{Kind: v1.KindTask, ID: id, Section: v1.SectionStatus, Value: &v1.TaskStatus{State: state}, If: store.Exists()}
	}
	to := func(op store.Op, state v1.TaskState) store.Op {
		op.Value.(*v1.TaskDesired).State = state
		return op
	}
	f.commit(nodeOp("n1", 1), nodeOp("n2", 2),
		taskOp("a1", agent.Meta.ID, "n1", "r", 1), taskOp("a2", agent.Meta.ID, "n2", "r", 2), to(taskOp("a3", agent.Meta.ID, "n1", "r", 3), v1.TaskShutdown),
		to(taskOp("j1", job.Meta.ID, "n1", "r", 1), v1.TaskComplete), to(taskOp("j2", job.Meta.ID, "n1", "r", 2), v1.TaskComplete),
		to(taskOp("j3", job.Meta.ID, "n1", "r", 3), v1.TaskComplete),
		to(taskOp("e1", each.Meta.ID, "n1", "r", 1), v1.TaskComplete), to(taskOp("e2", each.Meta.ID, "n2", "r", 2), v1.TaskComplete))
	f.commit(state("a1", v1.TaskRunning), state("j1", v1.TaskComplete), state("j2", v1.TaskRunning), state("e1", v1.TaskComplete))
	want := map[string]v1.ServiceStatus{agent.Meta.ID: {RunningTasks: 1, DesiredTasks: 2}, job.Meta.ID: {RunningTasks: 1, DesiredTasks: 2, CompletedTasks: 1},
		each.Meta.ID: {DesiredTasks: 1, CompletedTasks: 1}}
	if got, err := f.client.ServiceStatuses(f.ctx); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v (-want +got):\n%s", err, cmp.Diff(want, got))
	}
	f.commit(store.Op{Kind: v1.KindNode, ID: "n2", Section: v1.SectionDesired, Value: &v1.NodeDesired{Down: time.Unix(1, 0)}, If: store.Exists()})
	want[agent.Meta.ID], want[each.Meta.ID] = v1.ServiceStatus{RunningTasks: 1, DesiredTasks: 1}, v1.ServiceStatus{CompletedTasks: 1}
	if got, err := f.client.ServiceStatuses(f.ctx); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("with a node that is lost, %v (-want +got):\n%s", err, cmp.Diff(want, got))
	}
}

// TestConfigs: a config is read back, never changes but for its labels, and stays while a service names it.
func TestConfigs(t *testing.T) {
	f := serve(t)
	const word = "c2V0dGluZzogb24=" // setting: on
	manifest := func(labels, data string) string {
		return `{"apiVersion":"swarm/v1","kind":"Config","metadata":{"name":"conf"` + labels + `},"spec":{"data":"` + data + `"}}`
	}
	if made := f.do("POST", "/v1/configs", manifest("", word)); made.code != http.StatusCreated {
		t.Fatalf("create: %d %s", made.code, made.body)
	}
	if got := f.do("GET", "/v1/configs/conf", ""); got.code != http.StatusOK || !strings.Contains(got.body, word) {
		t.Errorf("read back: %d %s", got.code, got.body)
	}
	if got := f.do("PUT", "/v1/configs/conf", manifest(`,"labels":{"a":"b"}`, word)); got.code != http.StatusOK || !strings.Contains(got.body, `"a":"b"`) {
		t.Errorf("labels: %d %s", got.code, got.body)
	}
	if got := f.do("PUT", "/v1/configs/conf", manifest("", "b3RoZXI=")); got.code != http.StatusBadRequest || !strings.Contains(got.body, "only updates to Labels are allowed") {
		t.Errorf("other data: %d %s", got.code, got.body)
	}
	s := web("web")
	s.Spec.Task.Container.Configs = []v1.FileReference{{Source: "conf"}}
	f.create(s)
	if got := f.do("DELETE", "/v1/configs/conf", ""); got.code != http.StatusBadRequest || !strings.Contains(got.body, "config 'conf' is in use by the following service: web") {
		t.Errorf("delete in use: %d %s", got.code, got.body)
	}
	if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Fatal(err)
	}
	if got := f.do("DELETE", "/v1/configs/conf", ""); got.code != http.StatusNoContent {
		t.Errorf("delete: %d %s", got.code, got.body)
	}
}
