package cli_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// TestLists holds service ls, service ps, node ps, stack services and stack ps to what Docker's print with each of their flags.
func TestLists(t *testing.T) {
	s := newSwarm(t)
	s.start(2)
	must := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := run(t, s.host(), args...)
		if code != 0 {
			t.Fatalf("%q: %s", args, stderr)
		}
		return stdout
	}
	file := filepath.Join(t.TempDir(), "compose.yml")
	if err := os.WriteFile(file, []byte("services: {db: {image: 'hello:1', deploy: {labels: {tier: back}}}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	must("service", "create", "-q", "--name", "web", "--replicas", "2", "--replicas-max-per-node", "1", "--label", "tier=front", "--label", "x", "--container-label", "shown=yes", "hello:1")
	must("service", "create", "-q", "--name", "agent", "--mode", "global", "--label", "tier=back", "hello:1")
	must("stack", "deploy", "--detach=false", "-q", "-c", file, "shop")
	web, err := client.Get(t.Context(), s.client, v1.Services, "web")
	if err != nil {
		t.Fatal(err)
	}
	worker := v1.HashID("worker1")
	task := strings.Fields(must("service", "ps", "-q", "--filter", "name=web.2", "web"))[0]
	const id, short = `[a-z0-9]{25}`, `[a-z0-9]{12}`
	for _, test := range []struct{ args, want string }{ // words of the one, lines of the other, a regular expression
		{"service ls --format {{.Name}}", "agent\nshop_db\nweb"},
		{"service ls", `ID +NAME +MODE +REPLICAS +IMAGE +PORTS` + "\n" + short + ` +agent +global +2/2 +hello:1 *` + "\n" + short + ` +shop_db +replicated +1/1 +hello:1 *` + "\n" +
			short + ` +web +replicated +2/2 \(max 1 per node\) +hello:1 *`},
		{`service ls --format table\t{{.Name}}\t{{.Mode}}`, `NAME +MODE` + "\n" + `agent +global` + "\nshop_db +replicated\nweb +replicated"},
		{"service ls -q --filter name=web", short},
		{"service ls --filter name=we --format {{.Name}}", "web"},
		{"service ls --filter id=" + web.Meta.ID[:8] + " --format {{.Name}}", "web"},
		{"service ls --filter label=tier --filter label=x --format {{.Name}}", "web"},
		{"service ls --filter label=tier=back --format {{.Name}}", "agent\nshop_db"},
		{"service ls --filter mode=global --format {{.Name}}", "agent"},
		{"service ls --filter mode=replicated --filter name=web --format {{.Name}}", "web"},
		{"service ps --format {{.Name}} web", `web\.1` + "\n" + `web\.2`},
		{"service ps --filter name=web.2 web", `ID +NAME +IMAGE +NODE +DESIRED STATE +CURRENT STATE +ERROR +PORTS` + "\n" + short +
			` +web\.2 +hello:1 +(manager1|worker1) +Running +Running .* ago *`},
		{"service ps -q web", id + "\n" + id},
		{"service ps --no-trunc --filter name=web.1 --format {{.ID}}|{{.Image}} web", id + `\|hello:1@sha256:[0-9a-f]{64}`},
		{"service ps --no-resolve --filter name=web.2 --format {{.Name}}|{{.Node}} web", web.Meta.ID + `\.2\|` + id},
		{"service ps --filter id=" + task[:9] + " --format {{.Name}} web", `web\.2`},
		{"service ps --filter node=worker1 --format {{.Node}} web", "worker1"},
		{"service ps --filter desired-state=running --format {{.DesiredState}} web", "Running\nRunning"},
		{"service ps --filter desired-state=shutdown --format {{.Name}} web", ""},
		{"service ps --format {{.Name}} agent web", `agent\.` + id + `\nagent\.` + id + `\nweb\.1\nweb\.2`},
		{"node ps --filter name=agent --format {{.Name}}|{{.Node}} worker1", `agent\.` + worker + `\|worker1`},
		{"node ps --filter label=shown=yes --format {{.Node}} worker1", "worker1"},
		{"node ps --filter label=shown=no --format {{.Node}} worker1", ""},
		{"node ps --filter node=manager1 --format {{.Name}} worker1", ""},
		{"node ps --no-resolve --filter name=web --format {{.Name}}|{{.Node}} worker1", web.Meta.ID + `\.[12]\|` + worker},
		{"node ps -q --filter name=agent", id},
		{"stack services --format {{.Name}}|{{.Image}} shop", `shop_db\|hello:1`},
		{"stack services --filter label=tier=back --format {{.Name}} shop", "shop_db"},
		{"stack services -q shop", short},
		{"stack ps --format {{.Name}}|{{.DesiredState}} shop", `shop_db\.1\|Running`},
		{"stack ps --filter name=shop_db --no-resolve --format {{.Name}} shop", id + `\.1`},
		{"stack ps -q --filter desired-state=running shop", id},
		{"stack ps --no-trunc --format {{.ID}} shop", id},
	} {
		args := strings.Fields(test.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], `table\t`, "table ")
		}
		if got := strings.TrimSuffix(must(args...), "\n"); !regexp.MustCompile(`^` + test.want + `$`).MatchString(got) {
			t.Errorf("%s:\n%s\nwant\n%s", test.args, got, test.want)
		}
	}
	for args, want := range map[string][]string{
		"service ls --filter name=web --format json":       {"ID", "Image", "Mode", "Name", "Ports", "Replicas"},
		"service ps --filter name=web.1 --format json web": {"CurrentState", "DesiredState", "Error", "ID", "Image", "Name", "Node", "Ports"},
	} {
		var row map[string]string
		if err := json.Unmarshal([]byte(must(strings.Fields(args)...)), &row); err != nil || !slices.Equal(slices.Sorted(maps.Keys(row)), want) {
			t.Errorf("%s: %v, %v, want %v", args, row, err, want)
		}
	}
	for args, want := range map[string]string{
		"service ls --filter mode=big":                "invalid filter 'mode=big': want replicated, global",
		"service ls --filter colour=red":              "invalid filter 'colour': service filters are id, label, mode, name",
		"service ls --filter name":                    `invalid filter "name": want key=value`,
		"service ls --format {{.Colour}}":             "template parsing error: ",
		"service ls --format {{.Name":                 "template parsing error: ",
		"service ps --filter desired-state=happy web": "invalid filter 'desired-state=happy'",
		"service ps --filter node=nobody web":         "no such node: nobody",
		"service ps web nope":                         "no such service: nope",
		"node ps --filter desired-state=x self":       "invalid filter 'desired-state=x'",
		"node ps nobody":                              "no such node: nobody",
		"stack ps --filter name=web shop":             "nothing found in stack: shop",
		"stack services --filter colour=red shop":     "invalid filter 'colour'",
		"stack ps nothing":                            "nothing found in stack: nothing",
	} {
		if code, _, stderr := run(t, s.host(), strings.Fields(args)...); code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("%s: status %d, %s; want %s", args, code, stderr, want)
		}
	}
}
