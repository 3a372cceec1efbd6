package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// shown is what an attachment writes.
type shown struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *shown) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

func testAttach(t *testing.T, u *suite) {
	id := u.create(u.Echo, func(c *runtime.Container) { c.Spec.OpenStdin = true })
	if _, err := u.r.Attach(u.ctx, id, runtime.Attachment{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("before it was started: %v, want ErrNotFound", err)
	}
	u.start(id)
	var out shown
	stdin, typed := io.Pipe()
	ctx, leave := context.WithCancel(u.ctx)
	defer leave()
	left := make(chan error, 1)
	go func() {
		_, err := u.r.Attach(ctx, id, runtime.Attachment{Stdin: stdin, Stdout: &out, Stderr: io.Discard})
		_ = stdin.Close()
		left <- err
	}()
	_, err := io.WriteString(typed, "hello\n")
	u.must(err)
	for !out.has("hello\n") {
		select {
		case <-u.ctx.Done():
			t.Fatal("what is typed does not come back")
		case <-time.After(time.Millisecond):
		}
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who leaves: %v", err)
	}
	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 1)
	begun := make(chan struct{})
	go func() {
		code, err := u.r.Attach(u.ctx, id, runtime.Attachment{Stdin: onRead(begun), Stdout: io.Discard, Stderr: io.Discard})
		ended <- end{code, err}
	}()
	<-begun
	u.must(u.r.Signal(u.ctx, id, "SIGKILL"))
	if e := <-ended; e.err != nil || e.code != 137 {
		t.Errorf("the container's end: %+v, want status 137", e)
	}
	closed := u.create(u.Forever)
	u.start(closed)
	if _, err := u.r.Attach(u.ctx, closed, runtime.Attachment{Stdin: strings.NewReader("x")}); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("a container without an input: %v, want ErrInvalid", err)
	}
	if _, err := u.r.Attach(u.ctx, v1.NewID(), runtime.Attachment{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("a container that is not there: %v, want ErrNotFound", err)
	}
}

// onRead is an empty input that tells when somebody reads it.
type onRead chan struct{}

// Read implements io.Reader.
func (c onRead) Read([]byte) (int, error) {
	close(c)
	return 0, io.EOF
}
