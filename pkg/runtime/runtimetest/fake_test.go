package runtimetest

import (
	"context"
	"strconv"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// TestFake holds the fake to the contract; its processes do what the arguments say.
func TestFake(t *testing.T) {
	fake := runtime.NewFake(runtime.FakeOptions{
		Images: []runtime.Image{{Name: "docker.io/library/fake:1", Digest: "sha256:1"}},
		Exec: func(ctx context.Context, _ runtime.Container, command []string) (r runtime.ExecResult, err error) {
			switch command[0] {
			case "command":
				r.Output = []byte(command[1])
				r.ExitCode, err = strconv.Atoi(command[2])
			case "hang":
				<-ctx.Done()
				err = context.Cause(ctx)
			default:
				err = runtime.ErrInvalid
			}
			return r, err
		},
		Process: func(c runtime.Container) (p runtime.FakeProcess) {
			switch args := c.Spec.Args; args[0] {
			case "exit":
				p.RunFor = time.Nanosecond
				p.ExitCode, _ = strconv.Atoi(args[1])
			case "say":
				p.Output = []v1.LogRecord{{Line: []byte(args[1])}}
			}
			return p
		},
	})
	Run(t, Subject{
		Echo:    []string{"echo"},
		Command: func(text string, code int) []string { return []string{"command", text, strconv.Itoa(code)} },
		Hang:    []string{"hang"},
		Open:    func(*testing.T) runtime.Runtime { return fake },
		Image:   "docker.io/library/fake:1",
		Missing: "docker.io/library/missing:1",
		Forever: []string{"forever"},
		Exit:    func(code int) []string { return []string{"exit", strconv.Itoa(code)} },
		Say:     func(text string) []string { return []string{"say", text} },
	})
}
