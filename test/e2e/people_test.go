package e2e

import (
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestPeople has people of each role at work from a machine outside of the swarm, by token and by certificate: each may do what the role
// allows and no more, over whichever manager is there, until they are removed; and the audit log says who changed what.
func TestPeople(t *testing.T) {
	s := form(t, 3, 0)
	first := s.Hosts[0]
	home := t.TempDir()
	do := func(context string, args ...string) lab.Result {
		return s.ClientCtl(home, append([]string{"--context", context}, args...)...)
	}
	people := map[string]string{"view": "victor", "operate": "olga", "admin": "anna"}
	digest := strings.TrimSpace(first.Must("swarm", "ca", "--digest"))
	for _, role := range []string{"view", "operate", "admin"} {
		token := strings.TrimSpace(first.Must("user", "create", "--quiet", "--role", role, people[role]))
		if !strings.HasPrefix(token, "SWMUSR-1-") {
			t.Fatalf("user create prints %q", token)
		}
		if r := s.ClientCtl(home, "login", "--token", token, "--ca-digest", digest, "--name", role, s.Hosts[1].Addr.String()+":2377"); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	file := filepath.Join(home, "by-certificate.yaml")
	first.Must("user", "create", "--no-token", "--role", "operate", "carol")
	first.Must("user", "cert", "--output", file, "--name", "certificate", "carol")
	if r := s.ClientCtl(home, "context", "import", file); r.Err != nil {
		t.Fatal(r.Err)
	}
	if r := s.ClientCtl(home, "login", "--token", "SWMUSR-1-nosuch-token", "--ca-digest", digest, first.Addr.String()); r.Code == 0 {
		t.Error("a token that nobody has logs in")
	}
	for _, c := range []struct {
		args []string
		may  []string // contexts, of those below; the others must be refused
	}{
		{[]string{"node", "ls"}, []string{"view", "operate", "admin", "certificate"}},
		{[]string{"service", "ls"}, []string{"view", "operate", "admin", "certificate"}},
		{[]string{"service", "create", "--detach", "--name", "of-CONTEXT", "hello:1"}, []string{"operate", "admin", "certificate"}},
		{[]string{"service", "update", "--detach", "--label-add", "by=CONTEXT", "of-operate"}, []string{"operate", "admin", "certificate"}},
		{[]string{"node", "update", "--label-add", "by=CONTEXT", "manager1"}, []string{"operate", "admin", "certificate"}},
		{[]string{"node", "demote", "manager3"}, []string{"admin"}},
		{[]string{"node", "promote", "manager3"}, []string{"admin"}},
		{[]string{"swarm", "update", "--task-history-limit", "6"}, []string{"admin"}},
		{[]string{"swarm", "join-token", "worker"}, []string{"admin"}},
		{[]string{"user", "create", "--quiet", "by-CONTEXT"}, []string{"admin"}},
		{[]string{"user", "ls"}, []string{"admin"}},
		{[]string{"audit"}, []string{"admin"}},
	} {
		for _, context := range []string{"view", "operate", "certificate", "admin"} {
			args := slices.Clone(c.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "CONTEXT", context)
			}
			r := do(context, args...)
			if may := slices.Contains(c.may, context); may != (r.Code == 0) || !may && !regexp.MustCompile(`(?i)role|may not|admin|permission|denied`).MatchString(r.Stderr) {
				t.Errorf("%s: %v: exit %d, may: %v: %s%s", context, args, r.Code, may, r.Stdout, r.Stderr)
			}
		}
	}
	audit := s.auditOfAll()
	t.Logf("the audit log:\n%s", audit)
	for _, want := range []string{`olga.*of-operate`, `victor.*(403|refused|denied|Forbidden)`, `anna`, `carol`} {
		if !regexp.MustCompile(`(?i)` + want).MatchString(audit) {
			t.Errorf("no audit record is like %q", want)
		}
	}
	// Whoever is logged in finds another manager when one is gone.
	s.Hosts[1].Kill()
	s.Eventually(generous, "people find another manager", func() error { return do("operate", "service", "ls").Err })
	s.Hosts[1].Start()

	// Who is removed, or whose role is taken, is out at once.
	first.Must("user", "update", "--role", "view", "carol")
	first.Must("user", "rm", people["operate"])
	s.Eventually(5*time.Second, "roles that were taken are gone", func() error {
		if r := do("certificate", "service", "create", "--detach", "--name", "late", "hello:1"); r.Code == 0 {
			first.Must("service", "rm", "late")
			return errStill
		}
		if r := do("operate", "service", "ls"); r.Code == 0 {
			return errStill
		}
		return nil
	})
	if err := do("certificate", "service", "ls").Err; err != nil {
		t.Errorf("whose role is view may see: %v", err)
	}
	secretsNotInLogs(t, s)
}

// errStill says that somebody may still do what is no longer allowed.
var errStill = errors.New("it is still allowed")

// auditOfAll are the records of all managers: each keeps those of what it was asked.
func (s *swarm) auditOfAll() string {
	s.t.Helper()
	var all strings.Builder
	for _, h := range s.Hosts[:s.managers] {
		all.WriteString(h.Must("audit", "--tail", "10000", "--format", "{{.Who}}|{{.What}}|{{.Object}}|{{.Result}}"))
	}
	return all.String()
}

// secretShapes are what tokens and keys look like.
var secretShapes = regexp.MustCompile(`SWMTKN-1-[0-9a-z]{20,}-[0-9a-z]{10,}|SWMKEY-1-[A-Za-z0-9+/=]{20,}|SWMUSR-1-[0-9a-z]+-[0-9A-Za-z]{10,}|BEGIN [A-Z ]*PRIVATE KEY`)

// secretsNotInLogs holds everything that daemons logged, and the command lines and environments of their processes, to naming no
// token and no key.
func secretsNotInLogs(t *testing.T, s *swarm) {
	t.Helper()
	for _, h := range s.Hosts {
		log := h.WholeLog()
		if len(log) < 100 {
			t.Errorf("%s logged nothing", h.Name)
		}
		if found := secretShapes.FindString(log); found != "" {
			t.Errorf("%s logged %.25s…", h.Name, found)
		}
		lines, err := h.CommandLines()
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) < 2 {
			t.Errorf("%s has %d processes", h.Name, len(lines))
		}
		for _, line := range lines {
			if found := secretShapes.FindString(line); found != "" {
				t.Errorf("a process of %s tells %.25s…", h.Name, found)
			}
		}
	}
}

// TestSecretsNotInLogs does everything that handles a secret, the refused way too, and looks for them where others can read.
func TestSecretsNotInLogs(t *testing.T) {
	s := hosts(t, "manager1", "manager2", "worker1")
	s.managers = 2
	for _, h := range s.Hosts { // in the most talkative way
		h.Stop()
		h.Start("--log-level", "debug")
	}
	first := s.Hosts[0]
	out := first.Must("swarm", "init", "--autolock", "--advertise-addr", first.Addr.String())
	key := regexp.MustCompile(`SWMKEY-1-\S+`).FindString(out)
	token, addr := first.JoinArguments("worker")
	s.Hosts[2].Ctl("swarm", "join", "--token", flip(token), addr)
	s.Hosts[1].Join(first, "manager")
	s.Hosts[2].Join(first, "worker")
	s.learnNodes()
	s.Settled(first, 2)
	if r := first.CtlInput(payload, "secret", "create", "hidden", "-"); r.Err != nil {
		t.Fatal(r.Err)
	}
	user := strings.TrimSpace(first.Must("user", "create", "--quiet", "--role", "admin", "alice"))
	first.Must("swarm", "join-token", "--rotate", "manager")
	first.Must("swarm", "ca", "--rotate", "--quiet")
	first.Must("swarm", "backup", filepath.Join(t.TempDir(), "backup"))
	second := s.Hosts[1]
	second.Kill()
	second.Start("--log-level", "debug")
	s.isLocked(second)
	second.CtlInput(flip(key)+"\n", "swarm", "unlock")
	s.unlock(second, key)
	next := regexp.MustCompile(`SWMKEY-1-\S+`).FindString(first.Must("swarm", "unlock-key", "--rotate"))
	secretsNotInLogs(t, s)
	for _, h := range s.Hosts {
		for what, text := range map[string]string{"a join token": token, "an unlock key": key, "the new unlock key": next, "a user's token": user, "a secret": payload} {
			if text == "" || strings.Contains(h.WholeLog(), text[len(text)/2:]) {
				t.Errorf("%s logged %s", h.Name, what)
			}
		}
	}
}
