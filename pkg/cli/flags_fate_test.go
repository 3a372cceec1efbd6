package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// flagsNeed are what a flag needs beside it to mean anything.
var flagsNeed = map[string][]string{
	"create max-concurrent": {"--mode", "replicated-job"},
	"create log-opt":        {"--log-driver", "local"},
	"create memory-swap":    {"--limit-memory", "64m"},
	"update log-opt":        {"--log-driver", "local"},
	"update memory-swap":    {"--limit-memory", "64m"},
}

// TestEveryFlagHasItsFate holds service create and service update to the list of Docker's flags: each makes another service, or is the
// command's own business, or is refused by its name. None is silently ignored.
func TestEveryFlagHasItsFate(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	must := func(args ...string) {
		t.Helper()
		if code, _, stderr := run(t, s.host(), args...); code != 0 {
			t.Fatalf("%q: %s", args, stderr)
		}
	}
	file := filepath.Join(t.TempDir(), "envfile")
	if err := os.WriteFile(file, []byte("FROM=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "0"} {
		must("secret", "create", "s"+name, file)
		must("config", "create", "c"+name, file)
		must("network", "create", "-d", "overlay", "n"+name)
	}
	data, err := os.ReadFile("testdata/flags/reference.tsv")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := append(strings.Split(strings.TrimSuffix(line, "\n"), "\t"), "")
		command, flag, value, fate, sentence := fields[0], fields[1], strings.Replace(fields[2], "@envfile", file, 1), fields[3], fields[4]
		n++
		name := fmt.Sprintf("s%d", n)
		args := []string{"service", command, "--detach", "--" + flag}
		if value != "" {
			args[3] += "=" + value
		}
		needs := flagsNeed[command+" "+flag]
		args = append(args, needs...)
		var before string
		if command == "create" {
			must(append(append([]string{"service", "create", "--detach", "--name", name + "-plain"}, needs...), "hello:1")...)
			before = specOf(t, s, name+"-plain")
			if flag != "name" {
				args = append(args, "--name", name)
			} else {
				args[3] = "--name=" + name
			}
			args = append(args, "hello:1")
		} else {
			must(baseOf(name, flag, needs)...)
			if flag == "rollback" {
				must("service", "update", "--detach", "--env-add", "LATER=1", name)
			}
			before = specOf(t, s, name)
			args = append(args, name)
		}
		code, _, stderr := run(t, s.host(), args...)
		after := ""
		if code == 0 {
			after = specOf(t, s, name)
		}
		switch {
		case fate == "refused" && (code == 0 || !strings.Contains(stderr, sentence)):
			t.Errorf("service %s --%s: status %d, %s; want it refused: %s", command, flag, code, stderr, sentence)
		case fate == "used" && code != 0:
			t.Errorf("service %s --%s=%s: %s", command, flag, value, stderr)
		case fate == "used" && after == before && flag != "name":
			t.Errorf("service %s --%s=%s changes nothing", command, flag, value)
		case fate == "client" && code != 0:
			t.Errorf("service %s --%s: %s", command, flag, stderr)
		}
		for _, made := range []string{name, name + "-plain"} {
			_, _, _ = run(t, s.host(), "service", "rm", made)
		}
	}
	if n < 160 {
		t.Errorf("%d flags, want all of Docker's", n)
	}
}

// baseOf is a service that has something of everything that can be removed.
func baseOf(name, flag string, needs []string) []string {
	args := []string{"service", "create", "--detach", "--name", name, "--config", "c0", "--secret", "s0", "--network", "n0",
		"--constraint", "node.role!=nobody", "--container-label", "had=1", "--dns", "10.9.9.9", "--dns-option", "timeout:3", "--dns-search", "old.example.org",
		"--env", "HAD=1", "--group", "9", "--host", "old:10.0.0.8", "--label", "had=1", "--mount", "type=tmpfs,target=/had",
		"--placement-pref", "spread=node.labels.old", "--sysctl", "net.ipv4.ip_forward=1", "--ulimit", "nproc=9"}
	switch flag {
	case "max-concurrent":
		args = append(args, "--mode", "replicated-job", "--replicas", "5")
	case "publish-rm":
		args = append(args, "--publish", "90:90")
	}
	return append(append(args, needs...), "hello:1")
}

// specOf is what a service is, with its labels.
func specOf(t *testing.T, s *swarm, name string) string {
	t.Helper()
	svc, err := client.Get(t.Context(), s.client, v1.Services, name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal([]any{v1.Effective(svc).Spec, svc.Meta.Labels})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
