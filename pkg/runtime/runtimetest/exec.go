package runtimetest

import (
	"context"
	"errors"
	"strings"
	"time"

	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

func testExec(t *testing.T, u *suite) {
	id := u.create(u.Forever)
	u.start(id)
	for _, want := range []struct {
		text string
		code int
	}{{"fine", 0}, {"not fine", 3}, {"fine again", 0}} {
		r, err := u.r.Exec(u.ctx, id, u.Command(want.text, want.code), 100)
		u.must(err)
		if r.ExitCode != want.code || strings.TrimSpace(string(r.Output)) != want.text {
			t.Errorf("exec: got %d %q, want %d %q", r.ExitCode, r.Output, want.code, want.text)
		}
	}
	r, err := u.r.Exec(u.ctx, id, u.Command(strings.Repeat("long ", 10_000), 0), 100)
	if u.must(err); len(r.Output) != 100 {
		t.Errorf("exec keeps %d bytes, want 100", len(r.Output))
	}
	if _, err := u.r.Exec(u.ctx, id, []string{"/no/such/command"}, 100); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("a command that is not there: %v, want ErrInvalid", err)
	}
	late := errors.New("too late")
	ctx, cancel := context.WithTimeoutCause(u.ctx, 100*time.Millisecond, late)
	defer cancel()
	if _, err := u.r.Exec(ctx, id, u.Hang, 100); !errors.Is(err, late) {
		t.Errorf("a command that hangs: %v, want the cause of its context", err)
	}
	if _, err := u.r.Exec(u.ctx, id, u.Command("after it", 0), 100); err != nil {
		t.Errorf("after a command that was cut off: %v", err)
	}
	if s := u.state(id); s.Status != runtime.Running {
		t.Errorf("after its commands the container is %s", s.Status)
	}
	u.must(u.r.Signal(u.ctx, id, "SIGKILL"))
	u.ended(id)
	if _, err := u.r.Exec(u.ctx, id, u.Command("dead", 0), 100); err == nil {
		t.Error("a command ran in a container that has ended")
	}
	if _, err := u.r.Exec(u.ctx, v1.NewID(), u.Command("nobody", 0), 100); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("a container that is not there: %v, want ErrNotFound", err)
	}
}

func testHealthcheck(t *testing.T, u *suite) {
	check := &v1.Healthcheck{Test: []string{"CMD-SHELL", "is it"}, Retries: 7}
	id := u.create(u.Forever, func(c *runtime.Container) { c.Spec.Healthcheck = check })
	want := &v1.Healthcheck{Test: []string{"CMD", "/bin/sh", "-c", "is it"}, Retries: 7}
	u.r = u.Open(t) // another process finds it too
	if diff := cmp.Diff(want, u.state(id).Healthcheck); diff != "" {
		t.Errorf("health check (-want +got):\n%s", diff)
	}
	id = u.create(u.Forever, func(c *runtime.Container) { c.Spec.Healthcheck = &v1.Healthcheck{Test: []string{"NONE"}} })
	if got := u.state(id).Healthcheck; got != nil {
		t.Errorf("health check is %+v, want none", got)
	}
}
