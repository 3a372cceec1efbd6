package containerd

import (
	"testing"

	"github.com/swarmd/swarmd/pkg/runtime"
)

func TestLife(t *testing.T) {
	r := theRuntime(t)
	c := container("out", "hello", "exit", "7")
	c.Labels = map[string]string{"containerd.io/gc.root": "not ours to heed"}
	create(t, r, c)
	s, err := r.State(t.Context(), c.ID)
	if err != nil || s.Status != runtime.Created {
		t.Fatalf("after Create: %+v, %v", s, err)
	}
	if err := r.Create(t.Context(), c); err != nil {
		t.Fatalf("Create again: %v", err)
	}
	pid, err := r.Start(t.Context(), c.ID)
	if err != nil || pid == 0 {
		t.Fatalf("Start: %d, %v", pid, err)
	}
	s = waitEnd(t, r, c.ID)
	if s.ExitCode != 7 || s.OOMKilled || s.Ended.IsZero() || s.Started.IsZero() || s.Labels["containerd.io/gc.root"] == "" {
		t.Errorf("ended as %+v", s)
	}
	if got := output(t, r, c.ID); got != "hello\n" {
		t.Errorf("log: %q", got)
	}
}
