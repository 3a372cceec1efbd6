package agent

import (
	"fmt"
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

// TestImagesAreCollected: when their disk is above its mark, images go that no task needs, those first that were used the longest ago,
// until it is below the other one; what a task runs, or is to run, stays, and so does what was loaded.
func TestImagesAreCollected(t *testing.T) {
	loaded := engine.Image{Name: "loaded:1", Digest: "sha256:1", Size: 10}
	bubble(t, engine.FakeOptions{DiskSize: 100, ImageSize: 10, Images: []engine.Image{loaded}}, func(t *testing.T, l *lab) {
		service := func(n int) string {
			return l.swarm.service(fmt.Sprintf("s%d", n), func(r *v1.ServiceRevisionSpec) { r.Task.Container.Image = fmt.Sprintf("app:%d", n) })
		}
		l.start(nil)
		settle(time.Second)
		for n := range 7 {
			l.swarm.assign(fmt.Sprintf("t%d", n), service(n), v1.TaskRunning)
			settle(time.Minute)
		}
		for _, n := range []int{3, 1, 0, 2, 4} { // 5 and 6 run on
			l.swarm.desire(fmt.Sprintf("t%d", n), v1.TaskShutdown)
			settle(2 * time.Minute)
		}
		if len(l.freed) != 0 {
			t.Errorf("at 80 of 100 %v were freed", l.freed)
		}
		l.swarm.assign("t7", service(7), v1.TaskReady) // is prepared, and not started
		settle(2 * time.Minute)
		l.wantImages("app:0 app:1 app:2 app:4 app:5 app:6 app:7 loaded:1")
		l.swarm.send(v1.Assignment{Revision: l.swarm.revision, Swarm: &v1.SwarmNews{Images: &v1.ImageMarks{High: 60, Low: 50}}})
		settle(2 * time.Minute)
		l.wantImages("app:4 app:5 app:6 app:7 loaded:1")
		l.swarm.send(v1.Assignment{Revision: l.swarm.revision, Swarm: &v1.SwarmNews{Images: &v1.ImageMarks{High: 1, Low: 1}}})
		settle(2 * time.Minute)
		l.wantImages("app:5 app:6 app:7 loaded:1")
		if len(l.freed) != 5 || l.freed[0] != 10 {
			t.Errorf("freed %v", l.freed)
		}
		l.swarm.assign("t8", service(4), v1.TaskRunning) // what was removed comes again
		settle(2 * time.Minute)
		l.want("t8", v1.TaskRunning)
		l.swarm.send(v1.Assignment{Revision: l.swarm.revision, Swarm: &v1.SwarmNews{Images: &v1.ImageMarks{High: 100}}})
		l.swarm.desire("t8", v1.TaskShutdown)
		settle(5 * time.Minute)
		l.wantImages("app:4 app:5 app:6 app:7 loaded:1")
	})
}

func (l *lab) wantImages(want string) {
	l.t.Helper()
	images, err := l.fake.Images(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	var names []string
	for _, i := range images {
		names = append(names, i.Name)
	}
	if got := strings.Join(names, " "); got != want {
		l.t.Errorf("the images are %s, want %s", got, want)
	}
}
