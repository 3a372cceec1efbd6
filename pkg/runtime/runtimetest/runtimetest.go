// Package runtimetest is the contract of runtime.Runtime as tests. The fake and containerd are both held to it.
//
// It asks for nothing but the contract: what containers really do is tested where they do it.
package runtimetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// timeout is how long anything may take before it counts as never.
const timeout = time.Minute

// Subject is a runtime to test.
type Subject struct {
	// Open opens the runtime. Each call is another client of the same one: what the one before made is still there.
	Open func(t *testing.T) runtime.Runtime
	// Image is a reference that Pull finds, and Missing one that is never here.
	Image, Missing string
	// Forever are the Args of a container that runs until it is killed.
	Forever []string
	// Exit are those of one that ends at once, with the code.
	Exit func(code int) []string
	// Say are those of one that writes the text as a line to stdout, and runs on until SIGTERM, on which it ends with an
	// error.
	Say func(text string) []string
	// Echo are those of one that writes what it reads.
	Echo []string
	// Command is a command that writes the text and ends with the code, and Hang one that does not end.
	Command func(text string, code int) []string
	Hang    []string
}

// Run runs all tests.
func Run(t *testing.T, s Subject) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"Create", testCreate}, {"Start", testStart}, {"ExitCode", testExitCode}, {"Signal", testSignal},
		{"Remove", testRemove}, {"Unknown", testUnknown}, {"Labels", testLabels}, {"Events", testEvents},
		{"EventsEnd", testEventsEnd}, {"Reopen", testReopen}, {"ReopenAfterExit", testReopenAfterExit},
		{"Images", testImages}, {"MissingImage", testMissingImage}, {"Logs", testLogs}, {"LogOutlives", testLogOutlives},
		{"Exec", testExec}, {"Attach", testAttach}, {"Healthcheck", testHealthcheck}, {"Files", testFiles}, {"Parallel", testParallel},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			u := &suite{Subject: s, T: t, ctx: ctx, r: s.Open(t)}
			image, err := u.r.Pull(ctx, s.Image, runtime.Source{})
			u.must(err)
			u.image = image.Name
			test.run(t, u)
		})
	}
}

// suite is one test's view of the subject.
type suite struct {
	Subject
	*testing.T
	ctx   context.Context
	r     runtime.Runtime
	image string
}

func (u *suite) must(err error) {
	u.Helper()
	if err != nil {
		u.Fatal(err)
	}
}

// create makes a container that is removed after the test.
func (u *suite) create(args []string, change ...func(*runtime.Container)) string {
	u.Helper()
	c := runtime.Container{ID: v1.NewID(), Image: u.image, Spec: v1.ContainerSpec{Image: u.image, Args: args}}
	c.Name = "web.1." + c.ID
	for _, f := range change {
		f(&c)
	}
	u.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := errors.Join(u.r.Remove(ctx, c.ID), u.r.RemoveLog(ctx, c.ID)); err != nil {
			u.Error(err)
		}
	})
	u.must(u.r.Create(u.ctx, c))
	return c.ID
}

func (u *suite) start(id string) uint32 {
	u.Helper()
	pid, err := u.r.Start(u.ctx, id)
	u.must(err)
	if pid == 0 {
		u.Fatal("Start: process 0")
	}
	return pid
}

func (u *suite) state(id string) runtime.State {
	u.Helper()
	s, err := u.r.State(u.ctx, id)
	u.must(err)
	return s
}

// ended waits for the container's end.
func (u *suite) ended(id string) runtime.State {
	u.Helper()
	for {
		s := u.state(id)
		if s.Status == runtime.Ended {
			return s
		}
		select {
		case <-u.ctx.Done():
			u.Fatalf("container is %s after %s, want it ended", s.Status, timeout)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func testCreate(t *testing.T, u *suite) {
	c := runtime.Container{ID: v1.NewID(), Image: u.image, Spec: v1.ContainerSpec{Image: u.image, Args: u.Forever}}
	defer func() { u.must(u.r.Remove(context.Background(), c.ID)) }()
	for range 2 {
		u.must(u.r.Create(u.ctx, c))
		if s := u.state(c.ID); s.ID != c.ID || s.Status != runtime.Created || !s.Started.IsZero() || !s.Ended.IsZero() {
			t.Errorf("after Create: %+v", s)
		}
	}
	pid := u.start(c.ID)
	u.must(u.r.Create(u.ctx, c)) // leaves it as it is
	if s := u.state(c.ID); s.Status != runtime.Running || s.PID != pid {
		t.Errorf("Create of a running container: %+v, want process %d", s, pid)
	}
}

func testStart(t *testing.T, u *suite) {
	id := u.create(u.Forever)
	pid := u.start(id)
	if again := u.start(id); again != pid {
		t.Errorf("Start again: process %d, want %d", again, pid)
	}
	if s := u.state(id); s.Status != runtime.Running || s.PID != pid || s.Started.IsZero() {
		t.Errorf("started: %+v, want process %d", s, pid)
	}
	u.must(u.r.Signal(u.ctx, id, "SIGKILL"))
	u.ended(id)
	if _, err := u.r.Start(u.ctx, id); err == nil {
		t.Error("Start of an ended container: no error")
	}
}

func testExitCode(t *testing.T, u *suite) {
	for _, code := range []int{0, 1, 42, 255} {
		id := u.create(u.Exit(code))
		u.start(id)
		if s := u.ended(id); s.ExitCode != code || s.OOMKilled || s.Ended.IsZero() || s.Ended.Before(s.Started) {
			t.Errorf("exit %d: %+v", code, s)
		}
	}
}

func testSignal(t *testing.T, u *suite) {
	for _, signal := range []string{"SIGTERM", "SIGKILL", "KILL", ""} {
		id := u.create(u.Say("ready")) // process 1 is deaf to what it does not handle yet
		u.start(id)
		for _, err := range u.r.Logs(u.ctx, id, v1.LogOptions{Stdout: true, Follow: true, Tail: -1}) {
			u.must(err)
			break
		}
		u.must(u.r.Signal(u.ctx, id, signal))
		// What SIGTERM ends with is the process's business; SIGKILL is nobody's.
		if s := u.ended(id); s.ExitCode == 0 || strings.HasSuffix(signal, "KILL") && s.ExitCode != 137 || s.OOMKilled {
			t.Errorf("%s: %+v, want exit code 137", signal, s)
		}
		if err := u.r.Signal(u.ctx, id, signal); err != nil {
			t.Errorf("%s to an ended container: %v", signal, err)
		}
	}
	id := u.create(u.Forever)
	if err := u.r.Signal(u.ctx, id, "SIGNOSUCH"); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("SIGNOSUCH: %v, want ErrInvalid", err)
	}
}

func testRemove(t *testing.T, u *suite) {
	created, running, ended := u.create(u.Forever), u.create(u.Forever), u.create(u.Exit(0))
	u.start(running)
	u.start(ended)
	u.ended(ended)
	for _, id := range []string{created, running, ended} {
		for range 2 {
			u.must(u.r.Remove(u.ctx, id))
		}
		if _, err := u.r.State(u.ctx, id); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("State after Remove: %v, want ErrNotFound", err)
		}
	}
	all, err := u.r.List(u.ctx)
	u.must(err)
	if slices.ContainsFunc(all, func(s runtime.State) bool { return s.ID == created || s.ID == running || s.ID == ended }) {
		t.Errorf("List after Remove: %+v", all)
	}
}

func testUnknown(t *testing.T, u *suite) {
	id := v1.NewID()
	if _, err := u.r.Start(u.ctx, id); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Start: %v, want ErrNotFound", err)
	}
	if err := u.r.Signal(u.ctx, id, "SIGTERM"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Signal: %v, want ErrNotFound", err)
	}
	u.must(u.r.Remove(u.ctx, id))
	u.must(u.r.RemoveLog(u.ctx, id))
	for _, err := range u.r.Logs(u.ctx, id, v1.LogOptions{Stdout: true, Tail: -1}) {
		if !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("Logs: %v, want ErrNotFound", err)
		}
	}
}

func testLabels(t *testing.T, u *suite) {
	id := u.create(u.Forever, func(c *runtime.Container) {
		c.Spec.Labels = map[string]string{"of": "spec", "both": "spec"}
		c.Labels = map[string]string{"both": "container", "a/b.c": ""}
	})
	want := map[string]string{"of": "spec", "both": "container", "a/b.c": ""}
	all, err := u.r.List(u.ctx)
	u.must(err)
	at := slices.IndexFunc(all, func(s runtime.State) bool { return s.ID == id })
	if at < 0 {
		t.Fatalf("List: %+v, want %s in it", all, id)
	}
	for _, s := range []runtime.State{all[at], u.state(id)} {
		for k, v := range want {
			if got, ok := s.Labels[k]; !ok || got != v {
				t.Errorf("label %s: %q, %t, want %q", k, got, ok, v)
			}
		}
	}
}

func testEvents(t *testing.T, u *suite) {
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	events := u.r.Events(ctx)
	codes := map[string]int{}
	for _, code := range []int{3, 4} { // they end before anybody reads
		id := u.create(u.Exit(code))
		codes[id] = code
		u.start(id)
		u.ended(id)
	}
	for s, err := range events {
		u.must(err)
		if code, ours := codes[s.ID]; ours {
			if s.Status != runtime.Ended || s.ExitCode != code {
				t.Errorf("event %+v, want exit code %d", s, code)
			}
			delete(codes, s.ID)
		}
		if len(codes) == 0 {
			return
		}
	}
	t.Errorf("no events of %v", codes)
}

func testEventsEnd(t *testing.T, u *suite) {
	ctx, cancel := context.WithCancel(u.ctx)
	events := u.r.Events(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s, err := range events {
			if err == nil && s.Status != runtime.Ended {
				t.Errorf("event %+v", s)
			}
		}
	}()
	cancel()
	select {
	case <-done:
	case <-u.ctx.Done():
		t.Error("Events does not end with its context")
	}
}

func testReopen(t *testing.T, u *suite) {
	running, created := u.create(u.Forever), u.create(u.Forever)
	pid := u.start(running)
	u.must(u.r.Close())
	u.r = u.Open(t)
	all, err := u.r.List(u.ctx)
	u.must(err)
	found := 0
	for _, s := range all {
		switch s.ID {
		case running:
			found++
			if s.Status != runtime.Running || s.PID != pid {
				t.Errorf("after reopening: %+v, want process %d", s, pid)
			}
		case created:
			found++
			if s.Status != runtime.Created {
				t.Errorf("after reopening: %+v, want it created", s)
			}
		}
	}
	if found != 2 {
		t.Errorf("after reopening there are %+v", all)
	}
	u.start(created)
}

func testReopenAfterExit(t *testing.T, u *suite) {
	id := u.create(u.Exit(9))
	u.start(id)
	u.must(u.r.Close())
	u.r = u.Open(t)
	if s := u.ended(id); s.ExitCode != 9 {
		t.Errorf("ended while nobody looked: %+v, want exit code 9", s)
	}
	u.must(u.r.Remove(u.ctx, id))
}

func testImages(t *testing.T, u *suite) {
	again, err := u.r.Pull(u.ctx, u.image, runtime.Source{}) // what Pull returned is a reference, too
	u.must(err)
	if again.Name != u.image || again.Digest == "" {
		t.Errorf("Pull of %s: %+v", u.image, again)
	}
	all, err := u.r.Images(u.ctx)
	u.must(err)
	if !slices.ContainsFunc(all, func(i runtime.Image) bool { return i.Name == u.image && i.Digest == again.Digest }) {
		t.Errorf("Images: %+v, want %s in it", all, u.image)
	}
}

func testMissingImage(t *testing.T, u *suite) {
	c := runtime.Container{ID: v1.NewID(), Image: u.Missing, Spec: v1.ContainerSpec{Image: u.Missing, Args: u.Forever}}
	if err := u.r.Create(u.ctx, c); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Create: %v, want ErrNotFound", err)
	}
	if _, err := u.r.State(u.ctx, c.ID); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("State: %v, want ErrNotFound", err)
	}
}

func testLogs(t *testing.T, u *suite) {
	id := u.create(u.Say("hello"))
	u.start(id)
	for record, err := range u.r.Logs(u.ctx, id, v1.LogOptions{Stdout: true, Stderr: true, Follow: true, Tail: -1}) {
		u.must(err)
		if string(record.Line) != "hello" || record.Stream != "stdout" || record.Partial || record.Time.IsZero() {
			t.Errorf("record %+v", record)
		}
		break
	}
	for what, o := range map[string]v1.LogOptions{
		"of stderr":        {Stderr: true, Tail: -1},
		"with a tail of 0": {Stdout: true},
		"of the future":    {Stdout: true, Tail: -1, Since: time.Now().Add(time.Hour)},
	} {
		for record, err := range u.r.Logs(u.ctx, id, o) {
			t.Errorf("%s: %+v, %v", what, record, err)
		}
	}
}

func testLogOutlives(t *testing.T, u *suite) {
	id := u.create(u.Say("last words"))
	u.start(id)
	lines := make(chan string, 10)
	go func() {
		defer close(lines)
		for record, err := range u.r.Logs(u.ctx, id, v1.LogOptions{Stdout: true, Follow: true, Tail: -1}) {
			if err != nil {
				t.Error(err)
				return
			}
			lines <- string(record.Line)
		}
	}()
	if got := <-lines; got != "last words" {
		t.Errorf("followed %q", got)
	}
	u.must(u.r.Remove(u.ctx, id))
	select {
	case extra, open := <-lines:
		if open {
			t.Errorf("followed %q", extra)
		}
	case <-u.ctx.Done():
		t.Fatal("following does not end when the container is removed")
	}
	read := 0
	for record, err := range u.r.Logs(u.ctx, id, v1.LogOptions{Stdout: true, Tail: -1}) {
		u.must(err)
		read += len(record.Line)
	}
	if read != len("last words") {
		t.Errorf("after Remove the log has %d bytes", read)
	}
	for range 2 {
		u.must(u.r.RemoveLog(u.ctx, id))
	}
	for record, err := range u.r.Logs(u.ctx, id, v1.LogOptions{Stdout: true, Tail: -1}) {
		if !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("after RemoveLog: %+v, %v, want ErrNotFound", record, err)
		}
	}
}

func testParallel(t *testing.T, u *suite) {
	const n = 8
	errs := make(chan error, n)
	ids := make([]string, n)
	for i := range n {
		ids[i] = v1.NewID()
		go func() {
			c := runtime.Container{ID: ids[i], Image: u.image, Spec: v1.ContainerSpec{Image: u.image, Args: u.Forever}}
			err := u.r.Create(u.ctx, c)
			if err == nil {
				_, err = u.r.Start(u.ctx, c.ID)
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	all, err := u.r.List(u.ctx)
	u.must(err)
	pids := map[uint32]bool{}
	for _, s := range all {
		if slices.Contains(ids, s.ID) && s.Status == runtime.Running {
			pids[s.PID] = true
		}
	}
	if len(pids) != n {
		t.Errorf("%d processes run, want %d", len(pids), n)
	}
	for _, id := range ids {
		u.must(u.r.Remove(u.ctx, id))
	}
}
