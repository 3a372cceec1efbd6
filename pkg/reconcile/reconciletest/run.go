package reconciletest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/swarmd/swarmd/pkg/reconcile"
)

var update = flag.Bool("update", false, "rewrite what scenarios expect; review the difference")

// Run runs every scenario that the pattern matches, each a subtest named by its file.
//
// A scenario is a txtar archive: a comment that says what it shows, a file "objects" with the YAML of what is there at the
// beginning, and a file "script" of steps, each a line that begins with "> " and is followed by what it is expected to
// print. The steps:
//
//	run                           decide until nothing is left to do, and print what was written
//	settle                        run, and play the agents, until nothing changes
//	play                          let the agents of nodes that have a session do what they are told
//	tick DURATION                 move the clock
//	lead                          another takes the lead, who knows what is in the store alone
//	make SERVICE                  a service is made, with one replica
//	scale SERVICE N               change the replicas
//	set SERVICE PATH=VALUE …      change the spec, such as task.container.image=hello:2; null removes
//	edit SERVICE PATH=VALUE …     the same, beginning with what the service is and not with what failed and was rolled back
//	resume SERVICE                say the same again
//	rollback SERVICE              go back to the previous revision
//	delete SERVICE
//	status SERVICE.SLOT[@ATTEMPT] STATE [ran DURATION]      what an agent says of a task; default the newest
//	unfit SERVICE.SLOT[@ATTEMPT] WHY  an agent says why a task has not got the secrets and configs that it is to have
//	node ID new|ready|down        a node joins and begins a session, begins one, has lost its session
//	node ID drain|active|pause|remove|label KEY=VALUE|cpus N
//	node ID generic [GPU=A,SSD=3…] the generic resources that it says it has
//	node ID volumes [NAME,…]      the volumes that the node says it has
//	node ID tls ISSUER[,ROOT …]   what the node says of its certificate, and of the roots that it trusts besides the issuer
//	rotate ROOT                   ask for another root certificate, whose digest is that word
//	network NAME [SUBNET …]       a network is made
//	network NAME remove
//	pool SIZE PREFIX …            what subnets are cut from, and the length of their prefix
//	history N                     the cluster's task history limit
//	tasks [SERVICE]               print the tasks
//	nodes                         print how many tasks the nodes hold, and of which services they run how many
//	update SERVICE                print where the rollout stands
//	cron SERVICE                  print where the schedule stands
//	services, revisions           print those that are there
//	networks, addresses [NETWORK] print what the networks have, and who has it
//	ports SERVICE                 print what it publishes
//	authority                     print which roots are wanted and settled
func Run(t *testing.T, pattern string, pipelines []reconcile.Pipeline) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenario matches %s (%v)", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runFile(t, file, pipelines) })
	}
}

func runFile(t *testing.T, file string, pipelines []reconcile.Pipeline) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := NewWorld(pipelines)
	for i := range archive.Files {
		f := &archive.Files[i]
		switch f.Name {
		case "objects":
			if err := w.Load(string(f.Data)); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		case "script":
			got := w.transcript(t, string(f.Data))
			if *update {
				f.Data = []byte(got)
			} else if diff := cmp.Diff(string(f.Data), got); diff != "" {
				t.Errorf("%s: want -, got + (-update rewrites)\n%s", file, diff)
			}
		default:
			t.Fatalf("%s: what is %q? A scenario has objects and a script", file, f.Name)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// transcript runs the steps of a script and returns them with what they print. Comments and blank lines stay.
func (w *World) transcript(t *testing.T, script string) string {
	var out strings.Builder
	for line := range strings.Lines(script) {
		switch {
		case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
			out.WriteString(line)
		case strings.HasPrefix(line, "> "):
			out.WriteString(line)
			printed, err := w.Do(line[2:])
			if err != nil {
				t.Fatalf("%s: %v\nafter:\n%s", strings.TrimSpace(line), err, out.String())
			}
			out.WriteString(printed)
		}
	}
	return out.String()
}
