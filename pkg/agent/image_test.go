package agent

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// TestLogins: a task's image is pulled with the login that came last, which is in no file and gone when a manager says so.
func TestLogins(t *testing.T) {
	const password = "planted-passw0rd"
	denied := func(ref string, l v1.RegistryLogin) bool {
		return strings.HasPrefix(ref, "private.example/") && (l.Server != "private.example" || l.Password != password)
	}
	bubble(t, engine.FakeOptions{Denied: denied}, func(t *testing.T, l *lab) {
		private := func(name string) string {
			return l.swarm.service(name, func(r *v1.ServiceRevisionSpec) { r.Task.Container.Image = "private.example/team/app:" + name })
		}
		login := func(password string) []v1.RegistryLogin {
			return []v1.RegistryLogin{{Server: "example", Username: "anna", Password: "of another"}, {Server: "private.example", Username: "anna", Password: password}}
		}
		l.start(nil)
		settle(time.Second)
		l.swarm.assign("t1", private("one"), v1.TaskRunning)
		settle(time.Second)
		l.want("t1", v1.TaskRejected)
		l.swarm.send(v1.Assignment{Revision: l.swarm.revision, Logins: login("old")})
		l.swarm.assign("t2", private("two"), v1.TaskRunning)
		settle(time.Second)
		l.want("t2", v1.TaskRejected)
		l.swarm.send(v1.Assignment{Revision: l.swarm.revision, Logins: login(password)})
		l.swarm.assign("t3", private("three"), v1.TaskRunning)
		settle(time.Second)
		l.want("t3", v1.TaskRunning)
		l.stop()
		l.wantNot(password)
		l.start(nil) // and is told of no login
		settle(time.Second)
		l.swarm.assign("t4", private("four"), v1.TaskRunning)
		settle(time.Second)
		l.want("t3", v1.TaskRunning)
		l.want("t4", v1.TaskRejected)
	})
}

// TestRefusedImage: a task that follows one whose image was refused asks for it again when it is to be started, and at once when
// there is another login.
func TestRefusedImage(t *testing.T) {
	denied := func(_ string, l v1.RegistryLogin) bool { return l.Password != "right" }
	bubble(t, engine.FakeOptions{Denied: denied}, func(t *testing.T, l *lab) {
		revision := l.swarm.service("web", func(r *v1.ServiceRevisionSpec) { r.Task.Container.Image = "private.example/app:1" })
		next := func(id string, after time.Duration) {
			l.swarm.change(id, func(*v1.Task) *v1.Task {
				return &v1.Task{Meta: v1.Meta{ID: id}, Desired: &v1.TaskDesired{Service: "web", ServiceName: "web", Slot: 1, Attempt: 2, Revision: revision,
					State: v1.TaskRunning, StartAfter: time.Now().Add(after), Placement: &v1.TaskPlacement{Node: nodeID}}}
			})
		}
		l.start(nil)
		settle(time.Second)
		l.swarm.assign("t1", revision, v1.TaskRunning)
		settle(time.Second)
		l.want("t1", v1.TaskRejected)
		pulls := l.fake.Calls(engine.FakePull)
		next("t2", 10*time.Second)
		settle(5 * time.Second)
		l.want("t2", v1.TaskPreparing)
		l.swarm.mu.Lock()
		said := l.swarm.status["t2"].Err
		l.swarm.mu.Unlock()
		if now := l.fake.Calls(engine.FakePull); now != pulls || !strings.Contains(said, "pull access denied") {
			t.Errorf("%d pulls, was %d; the task says %q", now, pulls, said)
		}
		settle(6 * time.Second)
		l.want("t2", v1.TaskRejected)
		next("t3", time.Hour)
		settle(time.Second)
		l.want("t3", v1.TaskPreparing)
		l.swarm.send(v1.Assignment{Revision: l.swarm.revision, Logins: []v1.RegistryLogin{{Server: "private.example", Username: "anna", Password: "right"}}})
		settle(time.Second)
		l.want("t3", v1.TaskReady)
	})
}
