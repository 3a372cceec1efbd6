package cli_test

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/swarmd/swarmd/pkg/cli"
)

// TestMain lets the test binary be swarmctl, so that scripts run it as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"swarmctl": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
			code := cli.Run(ctx, cli.Options{}, os.Args[1:])
			stop()
			os.Exit(code)
		},
	})
}

// TestScripts runs each script of testdata against a swarm of its own. A first line "# nodes: N" makes a swarm of N nodes
// before; without one, the daemon is in no swarm.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup: func(env *testscript.Env) error {
			s := newSwarm(env.T().(testing.TB))
			script, err := os.ReadFile("testdata/" + strings.TrimPrefix(env.WorkDir[strings.LastIndex(env.WorkDir, "/")+1:], "script-") + ".txtar")
			if err != nil {
				return err
			}
			head, _, _ := strings.Cut(string(script), "\n")
			if n, ok := strings.CutPrefix(head, "# nodes: "); ok {
				count, err := strconv.Atoi(n)
				if err != nil {
					return err
				}
				s.start(count)
			}
			env.Setenv(cli.HostEnv, s.host())
			env.Setenv("DOOR", s.door)
			env.Setenv("TZ", "UTC")
			return nil
		},
	})
}
