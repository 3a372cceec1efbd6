package cli

import (
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestRunThatIsGivenUpAtOnce: the service may tell that a run is kept no more before its task tells that it completed.
func TestRunThatIsGivenUpAtOnce(t *testing.T) {
	task := &v1.Task{Meta: v1.Meta{ID: "t"}, Desired: &v1.TaskDesired{Slot: 1, Iteration: 1, State: v1.TaskComplete}, Status: &v1.TaskStatus{State: v1.TaskRunning}}
	v := view{asked: 7, slot: 1, tasks: map[string]*v1.Task{"t": task}, revisions: map[string]*v1.ServiceRevisionSpec{},
		service: &v1.Service{Spec: &v1.ServiceSpec{Mode: v1.ModeCron, Schedule: &v1.Schedule{RunNow: 7}}, Desired: &v1.ServiceDesired{Cron: &v1.CronStatus{RunNow: 7}}}}
	if out := v.judgeRun(); out.done || out.err != nil {
		t.Errorf("while its task is known: %+v", out)
	}
	task.Status.State = v1.TaskComplete
	if out := v.judgeRun(); !out.done || out.err != nil {
		t.Errorf("once its task has completed: %+v", out)
	}
	delete(v.tasks, "t")
	if out := v.judgeRun(); out.done || out.err == nil {
		t.Errorf("without a task: %+v", out)
	}
}
