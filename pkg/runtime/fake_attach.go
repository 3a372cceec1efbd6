package runtime

import (
	"bytes"
	"context"
	"fmt"
	"io"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Attach implements Runtime. What comes as input, which a container with OpenStdin takes, is what it writes. It has no terminal to resize.
func (f *Fake) Attach(ctx context.Context, id string, a Attachment) (int, error) {
	if err := f.enter(ctx, FakeAttach, id); err != nil {
		return 0, err
	}
	c, ok := f.containers[id]
	running := ok && c.state.Status == Running
	f.mu.Unlock()
	switch {
	case !running:
		return 0, fmt.Errorf("%w: running container %q", ErrNotFound, id)
	case c.container.Log.Discard:
		return 0, fmt.Errorf("%w: container %q keeps no log", ErrInvalid, id)
	case a.Stdin != nil && !c.container.Spec.OpenStdin:
		return 0, fmt.Errorf("%w: container %q has no input", ErrInvalid, id)
	}
	_, next, _, _ := f.read(id, 0)
	if a.Stdin != nil {
		go func() { _, _ = io.Copy(fakeInput{f, id}, a.Stdin) }()
	}
	for {
		state, err := f.State(ctx, id) // before reading: an ended one writes no more
		if err != nil {
			return 0, err
		}
		records, after, _, changed := f.read(id, next)
		next = after
		if err := show(records, a); err != nil {
			return 0, err
		}
		if state.Status == Ended {
			return state.ExitCode, nil
		}
		if now, err := f.State(ctx, id); err == nil && now.Status == Ended { // since, so that nobody tells
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// show writes records as a process wrote them.
func show(records []v1.LogRecord, a Attachment) error {
	for _, r := range records {
		to, line := a.Stdout, bytes.Clone(r.Line)
		if r.Stream == "stderr" {
			to = a.Stderr
		}
		if !r.Partial {
			line = append(line, '\n')
		}
		if _, err := to.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// fakeInput is the input of a container that writes what it reads.
type fakeInput struct {
	f  *Fake
	id string
}

// Write implements io.Writer.
func (i fakeInput) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		text, whole := bytes.CutSuffix(line, []byte("\n"))
		if !i.f.Write(i.id, v1.LogRecord{Stream: "stdout", Line: bytes.Clone(text), Partial: !whole}) {
			return 0, io.ErrClosedPipe
		}
	}
	return len(p), nil
}
