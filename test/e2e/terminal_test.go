package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestTerminal attaches to tasks on every node by every manager, with a terminal and without, several at once, through a restart of the
// node's daemon; and copies into tasks and out of them, whose image has neither a shell nor tar.
func TestTerminal(t *testing.T) {
	s := form(t, 2, 1)
	first, second, worker := s.Hosts[0], s.Hosts[1], s.Host("worker1")
	for _, h := range s.Hosts {
		h.Must("image", "load", "--quiet", "-i", filepath.Join(s.Bin, "tutorial-nginx-latest.tar"))
	}
	first.Must("service", "create", "--quiet", "--name", "web", "--replicas", "3", "--replicas-max-per-node", "1", "-i", "nginx:latest", "cat")
	first.Must("service", "create", "--quiet", "--name", "shell", "-i", "-t", "--constraint", "node.hostname==worker1", "nginx:latest", "size")
	s.converged(first, "web", 3, generous)
	for _, h := range s.Hosts[:2] {
		for slot := 1; slot <= 3; slot++ {
			s.copies(h, fmt.Sprintf("web.%d", slot))
		}
	}
	one, two := s.attach(first, "web", "worker1", v1.AttachStart{Stdin: true}), s.attach(second, "web", "worker1", v1.AttachStart{Stdin: true})
	one.types("from one\n") // who sees their own words is attached
	one.shows("from one\n")
	two.types("from two\n")
	two.shows("from two\n")
	one.shows("from two\n")
	one.types("one again\n")
	two.shows("one again\n")
	one.to.Close()

	// Typed before, and read after a restart of the daemon, which the task does not notice.
	before := s.converged(first, "web", 3, generous)
	worker.Stop()
	worker.Start()
	s.Eventually(generous, "attach after a restart", func() error {
		if r := worker.Ctl("info"); r.Code != 0 {
			return fmt.Errorf("%s", r.Stderr)
		}
		r := second.Ctl("cp", "web.1:/workload", "-")
		if r.Code != 0 {
			return fmt.Errorf("%s", r.Stderr)
		}
		return nil
	})
	var three *attached
	s.Eventually(generous, "the node is back", func() error {
		at, err := s.tryAttach(second, "web", "worker1", v1.AttachStart{Stdin: true})
		three = at
		return err
	})
	three.types("from three\n")
	three.shows("from three\n")
	if after := s.converged(first, "web", 3, generous); len(after) != len(before) || after[0].Meta.ID != before[0].Meta.ID {
		t.Error("a task was replaced while somebody was attached")
	}

	shell := s.attach(second, "shell", "worker1", v1.AttachStart{Stdin: true, Size: v1.WindowSize{Rows: 24, Columns: 80}})
	shell.shows("24x80\r\n")
	if err := v1.WriteFrameJSON(shell.to, v1.FrameSize, v1.WindowSize{Rows: 50, Columns: 132}); err != nil {
		t.Fatal(err)
	}
	shell.shows("50x132\r\n")
	shell.types("that is all\r")
	if end := shell.end(); end.ExitCode == nil || *end.ExitCode != 0 {
		t.Errorf("the terminal's end: %+v", end)
	}
	if err := v1.WriteFrame(three.to, v1.FrameSignal, []byte("SIGKILL")); err != nil {
		t.Fatal(err)
	}
	if end := three.end(); end.ExitCode == nil || *end.ExitCode != 137 {
		t.Errorf("a task that is sent a signal: %+v", end)
	}
}

// copies copies a folder into a task, and out of it again.
func (s *swarm) copies(h *lab.Host, task string) {
	s.t.Helper()
	dir := s.t.TempDir()
	big := make([]byte, 3<<20)
	_, _ = rand.Read(big)
	from, to := filepath.Join(dir, "site"), filepath.Join(dir, "back")
	if err := os.MkdirAll(filepath.Join(from, "deep"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "deep", "big"), big, 0o640); err != nil {
		s.t.Fatal(err)
	}
	h.Must("cp", "-q", from+"/.", task+":/"+h.Name)
	h.Must("cp", "-q", task+":/"+h.Name, to)
	if back, err := os.ReadFile(filepath.Join(to, "deep", "big")); err != nil || !bytes.Equal(back, big) {
		s.t.Errorf("%s: %d bytes copied into %s came back as %d: %v", h.Name, len(big), task, len(back), err)
	}
	if r := h.Ctl("cp", task+":/nothing", dir); r.Code != 1 || !strings.Contains(r.Stderr, "/nothing: no such file or directory") {
		s.t.Errorf("cp of what is not there: %+v", r)
	}
}

// attached is somebody who is attached to a task.
type attached struct {
	s    *swarm
	to   v1.Tunnel
	seen bytes.Buffer
}

// attach attaches by a manager to the service's task on a node.
func (s *swarm) attach(h *lab.Host, service, node string, start v1.AttachStart) *attached {
	s.t.Helper()
	at, err := s.tryAttach(h, service, node, start)
	if err != nil {
		s.t.Fatal(err)
	}
	return at
}

func (s *swarm) tryAttach(h *lab.Host, service, node string, start v1.AttachStart) (*attached, error) {
	to, err := s.tunnel(h, service, node, v1.TunnelStart{Attach: &start})
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(func() { to.Close() })
	return &attached{s: s, to: to}, nil
}

func (a *attached) types(text string) {
	a.s.t.Helper()
	if err := v1.WriteFrame(a.to, v1.FrameInput, []byte(text)); err != nil {
		a.s.t.Fatal(err)
	}
}

// shows reads until the text was seen.
func (a *attached) shows(text string) {
	a.s.t.Helper()
	for !strings.Contains(a.seen.String(), text) {
		kind, data, err := v1.ReadFrame(a.to)
		if err != nil || kind == v1.FrameEnd {
			a.s.t.Fatalf("after %q: %c %s %v, want %q", a.seen.String(), kind, data, err, text)
		}
		a.seen.Write(data)
	}
}

// end reads to the end.
func (a *attached) end() (end v1.TunnelEnd) {
	a.s.t.Helper()
	for {
		kind, data, err := v1.ReadFrame(a.to)
		if err == nil && kind == v1.FrameEnd {
			err = json.Unmarshal(data, &end)
			if err == nil {
				return end
			}
		}
		if err != nil {
			a.s.t.Fatal(err)
		}
	}
}
