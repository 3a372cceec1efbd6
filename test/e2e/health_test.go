package e2e

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// askHealth asks the published port on every host for the health of whoever answers, until the function that it returns is called,
// which tells what was answered.
func (s *swarm) askHealth() func() map[string]int {
	stop := make(chan struct{})
	answers := make(map[string]int)
	var asking sync.WaitGroup
	asking.Go(func() {
		for i := 0; ; i++ {
			text, err := s.Client.Get(fmt.Sprintf("http://%s:8080/healthz", s.Hosts[i%len(s.Hosts)].Addr))
			if err != nil {
				text = "error: " + err.Error()
			}
			answers[strings.TrimSpace(text)]++
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	return func() map[string]int {
		close(stop)
		asking.Wait()
		return answers
	}
}

// onlyHealthy checks that nobody was led to a task that is not healthy.
func onlyHealthy(t *testing.T, when string, answers map[string]int) {
	t.Helper()
	if answers["healthy"] == 0 || len(answers) > 1 {
		t.Errorf("%s: the answers were %v, want healthy ones alone", when, answers)
	}
}

// makeSick has the program of a task say that it is not healthy.
func (i inside) makeSick(t *testing.T) {
	t.Helper()
	answer, err := i.HTTP().Post("http://127.0.0.1:8080/sick", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
}

// failsUnhealthy waits until a task has failed for being unhealthy, and is the error that it says.
func (s *swarm) failsUnhealthy(h *lab.Host, id string) (text string) {
	s.t.Helper()
	c := s.client(h)
	s.Eventually(generous, "the sick task has failed", func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
		defer cancel()
		task, err := client.Get(ctx, c, v1.Tasks, id)
		if err != nil {
			return err
		}
		if v1.Observed(task) != v1.TaskFailed {
			return fmt.Errorf("it is %s: %s", v1.Observed(task), task.Status.Err)
		}
		text = task.Status.Err
		return nil
	})
	return text
}

// TestHealth has services whose health is asked for by a page, a command and a port. A task gets no traffic before it is healthy, also
// in an update, and none once it is not; it is replaced; and a restart of the daemon changes nothing of that.
func TestHealth(t *testing.T) {
	s := form(t, 1, 1)
	first := s.Hosts[0]
	every := []string{"--health-interval", "300ms", "--health-retries", "2", "--health-start-period", "30s", "--health-start-interval", "200ms"}

	// The page of a program that takes two seconds to be healthy.
	s.serve(first, "web", 4, append(every, "--publish", "8080:8080", "--env", "HEALTHY_AFTER=2s", "--health-http", "http://:8080/healthz",
		"--update-order", "start-first", "--update-parallelism", "2", "--update-monitor", "100ms", "--restart-delay", "100ms")...)
	answers := s.askHealth()
	first.Must("service", "update", "--quiet", "--image", "hello:2", "web")
	onlyHealthy(t, "in an update", answers())

	tasks := s.tasksOf(first, "web", 4)
	tasks[1].makeSick(t)
	text := s.failsUnhealthy(first, tasks[1].task.Meta.ID)
	if want := "task: unhealthy container: health check failed 2 times in a row: 503 Service Unavailable: sick"; text != want {
		t.Errorf("the sick task says %q, want %q", text, want)
	}
	answers = s.askHealth()
	s.converged(first, "web", 4, generous)
	onlyHealthy(t, "while it is replaced", answers())

	// Both daemons again: what is healthy goes on, and is looked after.
	tasks = s.tasksOf(first, "web", 4)
	before := s.untouched(nil)
	answers = s.askHealth()
	for _, h := range s.Hosts {
		h.Kill()
		h.Start()
	}
	s.converged(first, "web", 4, generous)
	onlyHealthy(t, "while the daemons were restarted", answers())
	s.stillRun("the daemons were restarted", before)
	for _, sick := range []inside{tasks[0], tasks[len(tasks)-1]} {
		sick.makeSick(t)
		s.failsUnhealthy(first, sick.task.Meta.ID)
	}
	s.converged(first, "web", 4, generous)
	first.Must("service", "rm", "web")

	// A command in the container, and a port.
	manifest := `{apiVersion: swarm/v1, kind: Service, metadata: {name: command}, spec: {replicas: 2, task: {container: {image: "hello:1",
		healthcheck: {test: [CMD, /hello, check], interval: 300ms, retries: 2}}, restartPolicy: {delay: 100ms}}}}`
	if r := first.CtlInput(manifest, "apply", "-f", "-"); r.Err != nil {
		t.Fatalf("apply: %v\n%s", r.Err, r.Stderr)
	}
	tasks = s.tasksOf(first, "command", 2)
	tasks[0].makeSick(t)
	if text := s.failsUnhealthy(first, tasks[0].task.Meta.ID); !strings.Contains(text, "exit code 1: hello: 503 Service Unavailable") {
		t.Errorf("the sick task says %q", text)
	}
	s.converged(first, "command", 2, generous)
	s.serve(first, "port", 1, append(every, "--health-tcp", "8080")...)
	r := first.Ctl(append([]string{"service", "create", "--name", "closed", "--timeout", "60s", "--health-tcp", "81", "--health-interval", "100ms",
		"--health-retries", "1", "--restart-condition", "none"}, "hello:1")...)
	if r.Err == nil || !strings.Contains(r.Stderr, "unhealthy container: health check failed once: dial tcp 127.0.0.1:81: connect: connection refused") {
		t.Errorf("a port that nobody listens on: %v, %s", r.Err, r.Stderr)
	}
}
