package containerd

import (
	"context"
	"log/slog"
	"strconv"
	"testing"

	containerregistry "github.com/google/go-containerregistry/pkg/v1"

	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/runtime/runtimetest"
)

// TestContract holds this runtime to what every one must do. Each Open is a new client of the containerd that the one
// before left running.
func TestContract(t *testing.T) {
	config := Config{Root: t.TempDir(), Bin: binaries(t), Log: slog.New(slog.DiscardHandler)}
	var current *Runtime
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := current.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	open := func(t *testing.T) runtime.Runtime {
		if current != nil {
			if err := current.Close(); err != nil {
				t.Fatal(err)
			}
		}
		r, err := Start(context.Background(), config)
		if err != nil {
			t.Fatal(err)
		}
		current = r
		return r
	}
	open(t)
	loadImage(t, current, "plain:1", testImage(t, func(c *containerregistry.Config) { c.StopSignal = "" }))
	runtimetest.Run(t, runtimetest.Subject{
		Command: func(text string, code int) []string {
			return []string{"/bin/workload", "out", text, "exit", strconv.Itoa(code)}
		},
		Hang:    []string{"/bin/workload", "forever"},
		Open:    open,
		Image:   "plain:1",
		Missing: "docker.io/library/missing:1",
		Forever: []string{"forever"},
		Exit:    func(code int) []string { return []string{"exit", strconv.Itoa(code)} },
		Echo:    []string{"echo"},
		Say:     func(text string) []string { return []string{"out", text, "forever"} },
	})
}
