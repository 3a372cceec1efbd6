package cli_test

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// TestCron goes through what people do with a service of mode cron.
func TestCron(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	for _, c := range []struct {
		args string
		code int
		want string // in what is printed
	}{
		{"service create --name a --mode cron once:1", 1, "cron mode needs --schedule"},
		{"service create --name a --schedule @daily once:1", 1, "can only be used with cron mode"},
		{"service create --name a --mode cron --schedule @daily --replicas 2 once:1", 1, "replicas can only be used"},
		{"service create --name a --mode cron --schedule 1_2_3 once:1", 1, `"1 2 3" is no schedule`},
		{"service create --name a --mode cron --schedule 0_0_31_2_* once:1", 1, "spec.schedule.cron: \"0 0 31 2 *\" never falls due"},
		{"service create --name a --mode cron --schedule @daily --time-zone Mars once:1", 1, `spec.schedule.timeZone: "Mars" is no time zone`},
		{"service create --name a --mode cron --schedule @daily -p 80:80 once:1", 1, "are not for mode cron"},
		{"service create --name web hello:1", 0, ""},
		{"service run web", 1, "run can only be used with cron mode"},
		{"service update --suspend web", 1, "can only be used with cron mode"},
		{"service create --name backup --mode cron --schedule 30_3_1_1_* --time-zone Europe/Berlin once:1", 0, "-01-01 03:30 CET"},
		{"service ls", 0, "0/0 (next 20"},
		{"service scale backup=2", 1, "scale can only be used"},
		{"service run backup", 0, "job complete"},
		{"service run backup", 0, "job complete"},
		{"service ps backup", 0, "backup.2"},
		{"service inspect backup", 0, `"Schedule": "30 3 1 1 *"`},
		{"service inspect --pretty backup", 0, " Run 2:\t"},
		{"service update --suspend --concurrency allow --starting-deadline 1h backup", 0, "suspended"},
		{"service ls", 0, "0/0 (suspended)"},
		{"service run backup", 0, "job complete"}, // what is asked for runs all the same
		{"service update --suspend=false --starting-deadline 0s backup", 0, "next 20"},
		{"service create --name long --mode cron --schedule @yearly hello:1", 0, "next 20"},
		{"service run -d long", 0, "long"},
		{"wait service/long --for converged", 0, "next 20"},
		{"service run --timeout 1m long", 1, "run 1 is still at work"},
		{"service create --name broken --mode cron --schedule @yearly --restart-condition none crash:1", 0, "next 20"},
		{"service run broken", 1, "ended (failed)"},
	} {
		args := strings.Fields(c.args)
		for i := range args {
			if i > 0 && args[i-1] == "--schedule" {
				args[i] = strings.ReplaceAll(args[i], "_", " ")
			}
		}
		code, out, stderr := run(t, s.host(), args...)
		if code != c.code || !strings.Contains(out+stderr, c.want) {
			t.Errorf("%s: status %d, want %d with %q:\n%s%s", c.args, code, c.code, c.want, out, stderr)
		}
	}
}

// TestRunWaitsForItsOwn: who asked for a run is told what became of that, whatever others ask for meanwhile.
func TestRunWaitsForItsOwn(t *testing.T) {
	for concurrency, want := range map[string]struct {
		image, first string
		code         int
		other        int
	}{
		"forbid":  {"brief:1", "job complete", 0, 1},
		"allow":   {"brief:1", "job complete", 0, 0},
		"replace": {"hello:1", "run 1 was stopped: run 2 takes its place", 1, 0},
	} {
		t.Run(concurrency, func(t *testing.T) {
			t.Parallel()
			s := newSwarm(t)
			s.start(1)
			if code, out, errs := run(t, s.host(), "service", "create", "-q", "--name", "c", "--mode", "cron", "--schedule", "@yearly",
				"--keep-successful", "0", "--concurrency", concurrency, want.image); code != 0 {
				t.Fatal(out, errs)
			}
			type answer struct {
				code      int
				out, errs string
			}
			first := make(chan answer, 1)
			go func() {
				var a answer
				a.code, a.out, a.errs = run(t, s.host(), "service", "run", "c")
				first <- a
			}()
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				svc, err := client.Get(t.Context(), s.client, v1.Services, "c")
				if err != nil || time.Now().After(deadline) {
					t.Fatalf("the first run has not begun: %v", err)
				}
				if d := svc.Desired; d != nil && d.Cron != nil && len(d.Cron.Runs) > 0 {
					break
				}
			}
			args := []string{"service", "run", "c"}
			if concurrency == "replace" {
				args = []string{"service", "run", "-d", "c"}
			}
			if code, out, errs := run(t, s.host(), args...); code != want.other {
				t.Errorf("the second: status %d, want %d:\n%s%s", code, want.other, out, errs)
			}
			if a := <-first; a.code != want.code || !strings.Contains(a.out+a.errs, want.first) {
				t.Errorf("the first: status %d, want %d with %q:\n%s%s", a.code, want.code, want.first, a.out, a.errs)
			}
		})
	}
}
