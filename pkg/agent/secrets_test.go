package agent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

const planted = "planted-and-nowhere-else"

func secret(id, text string) *v1.Secret {
	return &v1.Secret{Meta: v1.Meta{ID: id, Name: id}, Spec: &v1.SecretSpec{Data: []byte(text)}}
}

// withSecret makes a service that needs the secret pass, and the config conf.
func (s *swarm) withSecret() string {
	mode := uint32(0o400)
	return s.service("web", func(r *v1.ServiceRevisionSpec) {
		r.Task.Container.Secrets = []v1.FileReference{{Source: "pass", ID: "pass", Target: "/run/secrets/pass", UID: "7", GID: "8", Mode: &mode}}
		r.Task.Container.Configs = []v1.FileReference{{Source: "conf", ID: "conf", Target: "/conf"}}
	})
}

func (s *swarm) plant() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = []*v1.Secret{secret("pass", planted)}
	s.configs = []*v1.Config{{Meta: v1.Meta{ID: "conf", Name: "conf"}, Spec: &v1.ConfigSpec{Data: []byte("setting")}}}
}

func (l *lab) wantFiles(id string, want ...engine.File) {
	l.t.Helper()
	if diff := cmp.Diff(want, l.fake.FilesOf(id)); diff != "" {
		l.t.Errorf("files of task %s (-want +got):\n%s", id, diff)
	}
}

// wantNot looks for a text in all files of the agent.
func (l *lab) wantNot(text string) {
	l.t.Helper()
	if err := filepath.WalkDir(l.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		body, err := os.ReadFile(path)
		if bytes.Contains(body, []byte(text)) {
			l.t.Errorf("%s holds %q", path, text)
		}
		return err
	}); err != nil {
		l.t.Error(err)
	}
}

var plantedFiles = []engine.File{
	{Target: "/run/secrets/pass", Version: "pass", Data: []byte(planted), UID: 7, GID: 8, Mode: 0o400},
	{Target: "/conf", Version: "conf", Data: []byte("setting"), Mode: 0o444},
}

// TestSecretsAreKept: a task has its secrets and configs before it starts, also one that is started by another agent while no
// manager can be reached; the agent itself writes them nowhere, and lets go of them with the last task.
func TestSecretsAreKept(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.plant()
		l.swarm.assign("t1", l.swarm.withSecret(), v1.TaskReady)
		l.start(nil)
		settle(time.Second)
		l.want("t1", v1.TaskReady)
		l.wantFiles("t1", plantedFiles...)
		l.swarm.desire("t1", v1.TaskRunning)
		settle(time.Second)
		l.want("t1", v1.TaskRunning)
		if len(l.agent.data) != 2 {
			t.Errorf("the agent has %d secrets and configs, want 2", len(l.agent.data))
		}
		l.stop()
		l.wantNot(planted)
		l.swarm.leave(true)
		l.start(nil)
		settle(time.Minute)
		l.wantFiles("t1", plantedFiles...)
		if c, ok := l.fake.Container("t1"); !ok || c.Name == "" {
			t.Error("the container is gone")
		}
		l.swarm.leave(false)
		settle(time.Minute)
		l.swarm.desire("t1", v1.TaskShutdown)
		settle(time.Second)
		l.want("t1", v1.TaskShutdown)
		l.wantFiles("t1")
		if len(l.agent.data) != 0 {
			t.Errorf("the agent still has %d secrets and configs", len(l.agent.data))
		}
		l.wantNot(planted)
	})
}

// TestAgainWithSecrets: a container that ends while no manager can be reached is made again with what was kept for it.
func TestAgainWithSecrets(t *testing.T) {
	runs := 0
	bubble(t, engine.FakeOptions{Process: func(engine.Container) engine.FakeProcess {
		if runs++; runs == 1 {
			return engine.FakeProcess{RunFor: time.Hour, ExitCode: 1}
		}
		return engine.FakeProcess{}
	}}, func(t *testing.T, l *lab) {
		l.swarm.plant()
		l.swarm.assign("t1", l.swarm.withSecret(), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.want("t1", v1.TaskRunning)
		l.stop()
		l.swarm.leave(true)
		l.start(nil) // it has seen no secret
		settle(2 * time.Hour)
		if runs != 2 {
			t.Fatalf("the container was started %d times, want 2", runs)
		}
		l.wantFiles("t1", plantedFiles...)
	})
}

// TestSecretIsAwaited: a task whose secrets went with the machine's memory waits for a manager, for as long as it takes.
func TestSecretIsAwaited(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.plant()
		l.swarm.assign("t1", l.swarm.withSecret(), v1.TaskRunning)
		l.start(func(point string) bool { return point == "before create" })
		settle(time.Second)
		l.stop()
		l.swarm.leave(true)
		l.start(nil)
		settle(time.Hour)
		if got := l.agent.tasks["t1"].status; got.State != v1.TaskPreparing || got.Err != "waits for a manager to send secret pass, config conf" {
			t.Errorf("status is %+v", got)
		}
		l.swarm.leave(false)
		settle(time.Minute)
		l.want("t1", v1.TaskRunning)
		l.wantFiles("t1", plantedFiles...)
	})
}

// TestSecretIsMissing: a task whose secret no manager has says so.
func TestSecretIsMissing(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.plant()
		l.swarm.secrets = []*v1.Secret{secret("another", "x")}
		l.swarm.assign("t1", l.swarm.withSecret(), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		if got := l.want("t1", v1.TaskRejected); got.Err != "secret pass not found" {
			t.Errorf("error %q", got.Err)
		}
		l.wantFiles("t1")
	})
}

// TestSecretTemplates: secrets and configs that are templates are expanded for each task, and what goes wrong tells of no secret.
func TestSecretTemplates(t *testing.T) {
	golang := &v1.Driver{Name: "golang"}
	config := func(text string) *v1.Config {
		return &v1.Config{Meta: v1.Meta{ID: "conf", Name: "conf"}, Spec: &v1.ConfigSpec{Data: []byte(text), Templating: golang}}
	}
	for text, want := range map[string]string{
		`{{.Service.Name}}.{{.Task.Slot}} on {{.Node.Hostname}}: {{secret "pass"}} {{env "MODE"}}`: "web.1 on host7: " + planted + " fast",
		`{{secret "none"}}`:          `!preparing the container: template in config conf: template: line:1:2: executing "line" at <secret "none">: error calling secret: the task has no secret "none"`,
		`{{secret (secret "pass")}}`: `!preparing the container: template in config conf: template: line:1:2: executing "line" at <secret (secret "pass")>: error calling secret: the task has none of that target`,
	} {
		bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
			l.swarm.plant()
			l.swarm.configs = []*v1.Config{config(text)}
			revision := l.swarm.withSecret()
			l.swarm.services[revision].Spec.Task.Container.Env = []string{"MODE=fast"}
			l.swarm.assign("t1", revision, v1.TaskRunning)
			l.start(nil)
			settle(time.Second)
			if reason, bad := strings.CutPrefix(want, "!"); bad {
				if got := l.want("t1", v1.TaskRejected); got.Err != reason {
					t.Errorf("%s: error %q, want %q", text, got.Err, reason)
				}
				return
			}
			l.want("t1", v1.TaskRunning)
			if files := l.fake.FilesOf("t1"); len(files) != 2 || string(files[1].Data) != want || !strings.HasPrefix(files[1].Version, "conf@") {
				t.Errorf("%s: files %+v, want %q", text, files, want)
			}
		})
	}
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) { // a secret that is no template
		l.swarm.plant()
		l.swarm.secrets[0].Spec.Data, l.swarm.secrets[0].Spec.Templating = []byte("{{"+planted+"}}"), golang
		l.swarm.assign("t1", l.swarm.withSecret(), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		if got := l.want("t1", v1.TaskRejected); got.Err != "preparing the container: secret pass is not a template that can be expanded" {
			t.Errorf("error %q", got.Err)
		}
	})
}

// TestSecretsChangeUnderTasks: a task that gets a revision with other secrets has them without being started again, and its process is told where it
// wants to be, once; an agent that was restarted in between sees to it too.
func TestSecretsChangeUnderTasks(t *testing.T) {
	bubble(t, engine.FakeOptions{Process: func(engine.Container) engine.FakeProcess { return engine.FakeProcess{Deaf: true} }}, func(t *testing.T, l *lab) {
		l.swarm.secrets = []*v1.Secret{secret("old", "0ld"), secret("new", "n3w"), secret("newer", "n3w3r")}
		with := func(id string, action v1.ChangeAction) string {
			return l.swarm.service("web", func(r *v1.ServiceRevisionSpec) {
				r.Task.Container.Secrets = []v1.FileReference{{Source: id, ID: id, Target: "/run/secrets/pass", OnChange: action}}
			})
		}
		l.swarm.assign("t1", with("old", v1.ChangeSignal), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.want("t1", v1.TaskRunning)
		seen := func(text string, signals int) {
			t.Helper()
			settle(time.Minute)
			l.want("t1", v1.TaskRunning)
			files := l.fake.FilesOf("t1")
			if len(files) != 1 || string(files[0].Data) != text || !files[0].Live {
				t.Errorf("files %+v, want %q", files, text)
			}
			if got := l.fake.Calls(engine.FakeSignal); got != signals || l.fake.Calls(engine.FakeStart) != 1 {
				t.Errorf("%d signals and %d starts, want %d and 1", got, l.fake.Calls(engine.FakeStart), signals)
			}
		}
		seen("0ld", 0)
		l.swarm.assign("t1", with("new", v1.ChangeSignal), v1.TaskRunning)
		seen("n3w", 1)
		l.stop()
		l.start(nil)
		seen("n3w", 1)
		l.stop()
		l.swarm.assign("t1", with("newer", v1.ChangeSignal), v1.TaskRunning)
		l.start(nil)
		seen("n3w3r", 2)
		l.swarm.assign("t1", with("gone", v1.ChangeNone), v1.TaskRunning)
		seen("n3w3r", 2)
		if got := l.want("t1", v1.TaskRunning); got.Err != "changing secrets and configs: secret gone not found" {
			t.Errorf("error %q", got.Err)
		}
		l.swarm.assign("t1", with("old", v1.ChangeNone), v1.TaskRunning)
		seen("0ld", 2)
		if got := l.want("t1", v1.TaskRunning); got.Err != "" {
			t.Errorf("the error %q stayed", got.Err)
		}
	})
}

// TestLiveChangeIsAnswered: who asks for other secrets is told once the task has them, or why it has not; a process that could not be told
// is told when that is asked for again, though its file has changed already.
func TestLiveChangeIsAnswered(t *testing.T) {
	var broken atomic.Pointer[engine.FakeOp]
	fail := func(op engine.FakeOp, _ string) error {
		if b := broken.Load(); b != nil && *b == op {
			return errors.New("out of order")
		}
		return nil
	}
	deaf := func(engine.Container) engine.FakeProcess { return engine.FakeProcess{Deaf: true} }
	bubble(t, engine.FakeOptions{Process: deaf, Fail: fail}, func(t *testing.T, l *lab) {
		l.swarm.secrets = []*v1.Secret{secret("old", "0ld"), secret("new", "n3w")}
		with := func(id string) string {
			return l.swarm.service("web", func(r *v1.ServiceRevisionSpec) {
				r.Task.Container.Secrets = []v1.FileReference{{Source: id, ID: id, Target: "/run/secrets/pass", OnChange: v1.ChangeSignal}}
			})
		}
		l.swarm.assign("t1", with("old"), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		if got := l.want("t1", v1.TaskRunning); got.Refit != nil {
			t.Errorf("nobody asked, and the task says %+v", got.Refit)
		}
		asked := time.Now()
		ask := func(revision, text, why string) {
			t.Helper()
			asked = asked.Add(time.Hour)
			l.swarm.change("t1", func(task *v1.Task) *v1.Task {
				d := *task.Desired
				d.Revision, d.RefitAt = revision, asked
				return &v1.Task{Meta: task.Meta, Desired: &d}
			})
			settle(time.Minute)
			got := l.want("t1", v1.TaskRunning)
			if got.Refit == nil || !got.Refit.At.Equal(asked) || got.Refit.Err != why {
				t.Errorf("the task says %+v, want %q at %v", got.Refit, why, asked)
			}
			if want := strings.TrimSuffix("changing secrets and configs: "+why, "changing secrets and configs: "); got.Err != want {
				t.Errorf("error %q, want %q", got.Err, want)
			}
			if files := l.fake.FilesOf("t1"); len(files) != 1 || string(files[0].Data) != text {
				t.Errorf("files %+v, want %q", files, text)
			}
		}
		keep, signal := engine.FakeKeep, engine.FakeSignal
		broken.Store(&keep)
		ask(with("new"), "0ld", "out of order")
		broken.Store(&signal)
		next := with("new")
		ask(next, "n3w", "out of order")
		broken.Store(nil)
		before := l.fake.Calls(engine.FakeSignal)
		ask(next, "n3w", "")
		ask(next, "n3w", "")
		if got := l.fake.Calls(engine.FakeSignal) - before; got != 1 {
			t.Errorf("the process was told %d times, want once", got)
		}
		l.stop()
		l.start(nil)
		ask(with("gone"), "n3w", "secret gone not found")
		ask(with("old"), "0ld", "")
	})
}
