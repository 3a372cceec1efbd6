package cli_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/cli"
	"github.com/swarmd/swarmd/pkg/client"
)

// TestConcurrentUpdates: of many who change one service at the same time, nobody's change is lost and nobody is refused.
func TestConcurrentUpdates(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	if code, _, stderr := run(t, s.host(), "service", "create", "-q", "--name", "web", "hello:1"); code != 0 {
		t.Fatal(stderr)
	}
	const writers = 6
	var group sync.WaitGroup
	for i := range writers {
		group.Go(func() {
			code, _, stderr := run(t, s.host(), "service", "update", "-d", "--label-add", fmt.Sprintf("l%d=x", i), "web")
			if code != 0 {
				t.Errorf("writer %d: %s", i, stderr)
			}
		})
	}
	group.Wait()
	svc, err := client.Get(t.Context(), s.client, v1.Services, "web")
	if err != nil {
		t.Fatal(err)
	}
	if len(svc.Meta.Labels) != writers {
		t.Errorf("labels %v, want %d", svc.Meta.Labels, writers)
	}
}

// follow runs swarmctl until enough of it was read, and then interrupts it.
func follow(t *testing.T, s *swarm, enough func(text string) bool, args ...string) (code int, text string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	var errs strings.Builder
	codes := make(chan int, 1)
	go func() {
		codes <- cli.Run(ctx, cli.Options{In: strings.NewReader(""), Out: in, Err: &errs,
			Getenv: func(string) string { return s.host() }}, args)
		in.Close()
	}()
	var read strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := out.Read(buf)
		read.Write(buf[:n])
		if err != nil {
			return <-codes, read.String() + errs.String()
		}
		if enough(read.String()) {
			cancel()
		}
	}
}

func TestGetWatch(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	if code, _, stderr := run(t, s.host(), "service", "create", "-q", "--name", "web", "hello:1"); code != 0 {
		t.Fatal(stderr)
	}
	scaled := false
	code, text := follow(t, s, func(text string) bool {
		if strings.Contains(text, "web ") && !scaled {
			scaled = true
			if code, _, stderr := run(t, s.host(), "service", "scale", "-d", "web=3"); code != 0 {
				t.Error(stderr)
			}
		}
		return strings.Contains(text, "/3")
	}, "get", "services", "web", "--watch")
	if code != 130 || !strings.HasPrefix(text, "NAME") || strings.Count(text, "NAME") != 1 {
		t.Errorf("status %d, output\n%s", code, text)
	}
}

// TestLogsFollow: the output goes on until it is interrupted, which is no error of the logs.
func TestLogsFollow(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	if code, _, stderr := run(t, s.host(), "service", "create", "-q", "--name", "noisy", "noisy:1"); code != 0 {
		t.Fatal(stderr)
	}
	task := strings.TrimSpace(func() string { _, out, _ := run(t, s.host(), "service", "ps", "-q", "noisy"); return out }())
	wrote := false
	code, text := follow(t, s, func(text string) bool {
		if strings.Contains(text, "partial") && !wrote {
			if wrote = true; !s.runtime.Write(task, v1.LogRecord{Line: []byte("later")}) {
				t.Errorf("there is no container %s", task)
			}
		}
		return strings.Contains(text, "later")
	}, "service", "logs", "--follow", "--raw", "noisy")
	if code != 130 || !strings.HasPrefix(text, "hello out\npartial\nlater\n") { // errors are told after it
		t.Errorf("status %d, output\n%s", code, text)
	}
}

func TestEvents(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	// Events are told from the time of the request on, which cannot be seen from outside: services are made until one is told.
	ctx, cancel := context.WithCancel(t.Context())
	var making sync.WaitGroup
	making.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			run(t, s.host(), "service", "create", "-d", "--name", fmt.Sprintf("s%d", i), "hello:1")
		}
	})
	code, text := follow(t, s, func(text string) bool { return strings.Contains(text, "\n") },
		"events", "--filter", "type=service", "--filter", "event=create")
	cancel()
	making.Wait()
	if code != 0 || !strings.Contains(text, " service create ") || !strings.Contains(text, "name=s") {
		t.Errorf("status %d, output\n%s", code, text)
	}
}

// TestStaleManifest: a manifest that came from get is refused where somebody else wrote since.
func TestStaleManifest(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	if code, _, stderr := run(t, s.host(), "service", "create", "-q", "--name", "web", "hello:1"); code != 0 {
		t.Fatal(stderr)
	}
	_, manifest, _ := run(t, s.host(), "get", "service", "web", "-o", "yaml")
	if code, _, stderr := run(t, s.host(), "service", "scale", "-d", "web=2"); code != 0 {
		t.Fatal(stderr)
	}
	var out, errs strings.Builder
	code := cli.Run(t.Context(), cli.Options{In: strings.NewReader(manifest), Out: &out, Err: &errs,
		Getenv: func(string) string { return s.host() }}, []string{"apply", "-d", "-f", "-"})
	if code != 1 || !strings.Contains(errs.String(), "standard input: service/web: Error response from daemon: update out of sequence") {
		t.Errorf("status %d, error %s", code, errs.String())
	}
}

// TestTerminal: on a terminal, what went before is drawn over.
func TestTerminal(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	var out strings.Builder
	code := cli.Run(t.Context(), cli.Options{Out: &out, Err: io.Discard, Terminal: func() int { return 80 },
		Getenv: func(string) string { return s.host() }}, []string{"service", "create", "--name", "web", "--replicas", "2", "hello:1"})
	if code != 0 || !strings.Contains(out.String(), "\x1b[2A") || !strings.Contains(out.String(), "2/2: running   [=====") {
		t.Errorf("status %d, output\n%q", code, out.String())
	}
}
