package agent

import (
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// TestTemplatesOfLiveSecrets: a template that may change in place is expanded anew when a secret that it refers to changes under the task, and the
// process is told where the template says so.
func TestTemplatesOfLiveSecrets(t *testing.T) {
	bubble(t, engine.FakeOptions{Process: func(engine.Container) engine.FakeProcess { return engine.FakeProcess{Deaf: true} }}, func(t *testing.T, l *lab) {
		l.swarm.secrets = []*v1.Secret{secret("old", "0ld"), secret("new", "n3w")}
		l.swarm.configs = []*v1.Config{{Meta: v1.Meta{ID: "conf", Name: "conf"},
			Spec: &v1.ConfigSpec{Data: []byte(`pass={{secret "pw"}}`), Templating: &v1.Driver{Name: "golang"}}}}
		with := func(id string) string {
			return l.swarm.service("web", func(r *v1.ServiceRevisionSpec) {
				r.Task.Container.Secrets = []v1.FileReference{{Source: id, ID: id, Target: "/run/secrets/pw", OnChange: v1.ChangeNone}}
				r.Task.Container.Configs = []v1.FileReference{{Source: "conf", ID: "conf", Target: "/conf", OnChange: v1.ChangeSignal}}
			})
		}
		l.swarm.assign("t1", with("old"), v1.TaskRunning)
		l.start(nil)
		for signals, want := range []string{"pass=0ld", "pass=n3w", "pass=0ld"} {
			settle(time.Minute)
			l.want("t1", v1.TaskRunning)
			if files := l.fake.FilesOf("t1"); len(files) != 2 || string(files[1].Data) != want || !files[1].Live {
				t.Errorf("files %+v, want %q", files, want)
			}
			if got := l.fake.Calls(engine.FakeSignal); got != signals || l.fake.Calls(engine.FakeStart) != 1 {
				t.Errorf("%d signals and %d starts, want %d and 1", got, l.fake.Calls(engine.FakeStart), signals)
			}
			l.swarm.assign("t1", with([]string{"new", "old", "old"}[signals]), v1.TaskRunning)
		}
	})
}
