package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestExec runs commands in tasks on every node by every manager: input, output, exit status, user, folder, environment and terminal; ends
// that are told, and a command that does not outlive the user who ran it. Then it reaches a port that is not published.
func TestExec(t *testing.T) {
	s := form(t, 2, 1)
	first := s.Hosts[0]
	for _, h := range s.Hosts {
		h.Must("image", "load", "--quiet", "-i", filepath.Join(s.Bin, "tutorial-nginx-latest.tar"))
	}
	first.Must("service", "create", "--quiet", "--name", "web", "--replicas", "3", "--replicas-max-per-node", "1", "nginx:latest")
	s.converged(first, "web", 3, generous)
	input := make([]byte, 1<<20)
	_, _ = rand.Read(input)
	text := fmt.Sprintf("%x", input)
	for _, h := range s.Hosts[:2] {
		for slot := 1; slot <= 3; slot++ {
			task := fmt.Sprintf("web.%d", slot)
			r := h.Ctl("exec", "-u", "1234:5", "-w", "/", "-e", "GREETING=good day", task, "/workload", "whoami")
			if want := "uid 1234 in / says \"good day\", terminal: false\n"; r.Stdout != want || r.Stderr != "that is all\n" || r.Code != 7 {
				t.Errorf("%s: exec in %s: status %d, %q, %q; want 7, %q", h.Name, task, r.Code, r.Stdout, r.Stderr, want)
			}
			if r := h.CtlInput(text, "exec", "-i", task, "/workload", "cat"); r.Stdout != text || r.Code != 0 {
				t.Errorf("%s: %d bytes through cat in %s came back as %d, status %d, %s", h.Name, len(text), task, len(r.Stdout), r.Code, r.Stderr)
			}
		}
	}
	for _, bad := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"exec", "web", "/nothing"}, 127, "no such file"},
		{[]string{"exec", "web.7", "true"}, 1, "no such task or service: web.7"},
		{[]string{"exec", "-it", "web", "true"}, 1, "the input device is not a TTY"},
		{[]string{"exec", "-u", "nobody-there", "web", "/workload"}, 126, "nobody-there"},
	} {
		if r := first.Ctl(bad.args...); r.Code != bad.code || !strings.Contains(r.Stderr, bad.says) {
			t.Errorf("%q: status %d, %s; want %d, %q", bad.args, r.Code, r.Stderr, bad.code, bad.says)
		}
	}
	s.hasTerminal()
	s.endsWithItsUser()
	s.reachesPort()
}

// open is a tunnel from outside swarmctl, by the last manager.
func (s *swarm) open(start v1.TunnelStart) v1.Tunnel {
	s.t.Helper()
	to, err := s.tunnel(s.Hosts[1], "web", "worker1", start)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { to.Close() })
	return to
}

// tunnel leads by a manager to the service's only task on a node.
func (s *swarm) tunnel(h *lab.Host, service, node string, start v1.TunnelStart) (v1.Tunnel, error) {
	c := s.client(h)
	tasks, err := client.List(s.t.Context(), c, v1.Tasks, v1.Filter{"service": {service}, "node": {node}})
	if err != nil {
		return nil, err
	}
	if len(tasks) != 1 {
		return nil, fmt.Errorf("%d tasks of %s on %s, want one", len(tasks), service, node)
	}
	return c.Tunnel(s.t.Context(), tasks[0].Meta.ID, start)
}

// hasTerminal runs a command with a terminal, whose size changes.
func (s *swarm) hasTerminal() {
	s.t.Helper()
	to := s.open(v1.TunnelStart{Exec: &v1.ExecStart{Command: []string{"/workload", "size"}, TTY: true, Stdin: true, Size: v1.WindowSize{Rows: 24, Columns: 80}}})
	var seen bytes.Buffer
	step := 0
	for {
		kind, data, err := v1.ReadFrame(to)
		if err != nil {
			s.t.Fatalf("after %q: %v", seen.String(), err)
		}
		if kind == v1.FrameEnd {
			var end v1.TunnelEnd
			if err := json.Unmarshal(data, &end); err != nil || end.ExitCode == nil || *end.ExitCode != 0 || step != 2 {
				s.t.Errorf("it ends with %s after %q", data, seen.String())
			}
			return
		}
		seen.Write(data)
		switch {
		case step == 0 && strings.Contains(seen.String(), "24x80\r\n"):
			step = 1
			err = v1.WriteFrameJSON(to, v1.FrameSize, v1.WindowSize{Rows: 50, Columns: 132})
		case step == 1 && strings.Contains(seen.String(), "50x132\r\n"):
			step = 2
			err = v1.WriteFrame(to, v1.FrameInput, []byte("\r"))
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// endsWithItsUser leaves in the middle of a command: it is ended too.
func (s *swarm) endsWithItsUser() {
	s.t.Helper()
	worker := s.Host("worker1")
	commands := func() (n int) {
		lines, err := worker.CommandLines()
		if err != nil {
			s.t.Fatal(err)
		}
		for _, line := range lines {
			if strings.Contains(line, "workload\x00ping") || strings.Contains(line, "workload ping") {
				n++
			}
		}
		return n
	}
	to := s.open(v1.TunnelStart{Exec: &v1.ExecStart{Command: []string{"/workload", "ping", "nobody"}}})
	if kind, data, err := v1.ReadFrame(to); err != nil || kind != v1.FrameOutput || commands() != 1 {
		s.t.Fatalf("%c %q %v, %d commands", kind, data, err, commands())
	}
	to.Close()
	s.Eventually(generous, "a command whose user is gone ends", func() error {
		if n := commands(); n > 0 {
			return fmt.Errorf("%d run", n)
		}
		return nil
	})
}

// reachesPort asks a port of a task that is not published.
func (s *swarm) reachesPort() {
	s.t.Helper()
	to := s.open(v1.TunnelStart{Forward: &v1.ForwardStart{Port: 80}})
	if err := v1.WriteFrame(to, v1.FrameInput, []byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		s.t.Fatal(err)
	}
	stuck := time.AfterFunc(generous, func() { to.Close() })
	defer stuck.Stop()
	var page bytes.Buffer
	for {
		kind, data, err := v1.ReadFrame(to)
		if err != nil && err != io.EOF {
			s.t.Fatal(err)
		}
		if err != nil || kind == v1.FrameEnd {
			break
		}
		page.Write(data)
	}
	if !strings.Contains(page.String(), "Welcome to nginx!") {
		s.t.Errorf("port 80 of a task says %q", page.String())
	}
	to = s.open(v1.TunnelStart{Forward: &v1.ForwardStart{Port: 81}})
	if kind, data, err := v1.ReadFrame(to); err != nil || kind != v1.FrameEnd || !strings.Contains(string(data), "refused") {
		s.t.Errorf("a port that nobody listens on: %c %s %v", kind, data, err)
	}
}
