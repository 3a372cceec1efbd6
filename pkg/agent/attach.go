package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// tunnelAttach connects a user to a task's own process. When they leave, it stays as it is.
func (a *Agent) tunnelAttach(ctx context.Context, cancel context.CancelFunc, task string, to v1.Tunnel, s *v1.AttachStart) v1.TunnelEnd {
	resize := make(chan v1.WindowSize, 1)
	errs := v1.FrameWriter{To: to, Kind: v1.FrameErrors}
	at := engine.Attachment{Stdout: v1.FrameWriter{To: to, Kind: v1.FrameOutput}, Stderr: errs, Resize: resize}
	stdin, input := io.Pipe()
	if s.Stdin {
		at.Stdin = stdin
	} else {
		_ = stdin.Close()
	}
	signal := func(name string) {
		if err := a.o.Runtime.Signal(ctx, task, name); err != nil {
			_, _ = fmt.Fprintf(errs, "signal %q was not sent: %s\n", name, forPeople.Replace(err.Error()))
		}
	}
	go func() {
		redraw(ctx, resize, s.Size)
		if !readInput(to, input, resize, signal) {
			cancel()
		}
	}()
	code, err := a.o.Runtime.Attach(ctx, task, at)
	_ = stdin.Close() // what comes now nobody reads
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return v1.TunnelEnd{Error: "the task does not run"}
	case err != nil:
		return v1.TunnelEnd{Error: forPeople.Replace(err.Error()), Invalid: errors.Is(err, engine.ErrInvalid)}
	}
	return v1.TunnelEnd{ExitCode: &code}
}

// redraw gives a terminal its user's size by way of another one, so that what is on it is drawn anew also where it had that size before.
func redraw(ctx context.Context, resize chan<- v1.WindowSize, size v1.WindowSize) {
	if size == (v1.WindowSize{}) {
		return
	}
	for _, s := range []v1.WindowSize{{Rows: size.Rows + 1, Columns: size.Columns}, size} {
		select {
		case resize <- s:
		case <-ctx.Done():
			return
		}
	}
}
