package agent

import (
	"context"
	"errors"
	"io"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/archive"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// tunnelCopy copies into a task's container or out of it, until the user is gone.
func (a *Agent) tunnelCopy(ctx context.Context, cancel context.CancelFunc, task string, to v1.Tunnel, c *v1.CopyStart) v1.TunnelEnd {
	stdin, input := io.Pipe()
	go func() {
		if !readInput(to, input, make(chan v1.WindowSize, 1), nil) {
			cancel()
		}
	}()
	notes := v1.FrameWriter{To: to, Kind: v1.FrameErrors}
	var err error
	if c.To {
		err = a.o.Runtime.CopyTo(ctx, task, c.Path, archive.Options{Contents: c.Contents, Owners: c.Owners, Plain: c.Plain}, stdin, notes)
	} else {
		err = a.o.Runtime.CopyFrom(ctx, task, c.Path, c.Follow, v1.FrameWriter{To: to, Kind: v1.FrameOutput}, notes)
	}
	_ = stdin.Close() // what comes now nobody reads
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return v1.TunnelEnd{Error: "the task does not run"}
	case err != nil:
		return v1.TunnelEnd{Error: forPeople.Replace(err.Error()), Invalid: errors.Is(err, engine.ErrInvalid)}
	}
	return v1.TunnelEnd{}
}
