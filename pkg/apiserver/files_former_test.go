package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestFormerFilesStay: a secret that the spec names no more stays for as long as a task that is to run has it, and for as long as an update is not completed
// which a rollback would go back from.
func TestFormerFilesStay(t *testing.T) {
	f := serve(t)
	f.commit(secretOp("s1", "one"), secretOp("s2", "two"))
	service := web("web")
	service.Spec.Task.Container.Secrets = []v1.FileReference{{Source: "name-s1"}}
	service = f.create(service)
	first := v1.RevisionID(service)
	service.Spec.Task.Container.Secrets = []v1.FileReference{{Source: "name-s2", Target: "/run/secrets/name-s1"}}
	service, _, err := client.Update(f.ctx, f.client, v1.Services, service)
	if err != nil {
		t.Fatal(err)
	}
	second := v1.RevisionID(service)
	status := func(u v1.UpdateStatus) {
		t.Helper()
		f.commit(store.Op{Kind: v1.KindService, ID: service.Meta.ID, Section: v1.SectionDesired, Value: &v1.ServiceDesired{Update: &u}, If: store.Exists()})
	}
	refused := func(query, words string) {
		t.Helper()
		if got := f.do("DELETE", "/v1/secrets/name-s1"+query, ""); got.code != http.StatusBadRequest || !strings.Contains(got.body, words) {
			t.Errorf("delete%s: %d %s; want %q", query, got.code, got.body, words)
		}
	}
	allowed := func(query string) {
		t.Helper()
		if got := f.do("DELETE", "/v1/secrets/name-s1?dryRun=true"+query, ""); got.code != http.StatusNoContent {
			t.Errorf("delete%s: %d %s", query, got.code, got.body)
		}
	}
	back := "secret 'name-s1' is in use by service web: it would roll back to revision 1, which has it"
	allowed("") // there was no rollout, and no task has it
	f.commit(taskOp("t1", service.Meta.ID, "node1", first, 1))
	refused("", "is in use by service web: task web.1 runs revision 1, which has it")
	stop := taskOp("t1", service.Meta.ID, "node1", first, 1)
	stop.Value.(*v1.TaskDesired).State = v1.TaskShutdown
	f.commit(stop)
	status(v1.UpdateStatus{State: v1.UpdateUpdating, Revision: second, Previous: first})
	refused("", back)
	status(v1.UpdateStatus{State: v1.UpdateCompleted, Revision: first}) // of before an update that changed the files in place
	allowed("")
	status(v1.UpdateStatus{State: v1.UpdateCompleted, Revision: second})
	allowed("")
	status(v1.UpdateStatus{State: v1.UpdatePaused, Revision: second, Previous: first})
	refused("", back)
	status(v1.UpdateStatus{State: v1.UpdateCompleted, Revision: second, Previous: first})
	allowed("")
	f.commit(taskOp("t2", service.Meta.ID, "node1", first, 2))
	refused("", "runs revision 1")
	if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Fatal(err)
	}
	allowed("") // though the rules have not stopped the tasks yet: stack rm goes on at once
}
