package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

const (
	// tunnelStart is how long a user may take to say what a tunnel is for.
	tunnelStart = 10 * time.Second
	// maxCommand bounds the words of a command, and its environment's settings.
	maxCommand = 1000
)

// beginTunnel opens this node's end of a tunnel to a task and does what the user asks for, until one of them ends it.
func (a *Agent) beginTunnel(s v1.StreamRequest) {
	t := a.tasks[s.Task]
	running := s.Task == v1.NodeItself || t != nil && t.phase >= phaseStarted && t.phase < phaseEnded
	refusal := ""
	switch {
	case len(a.streams) >= maxStreams:
		refusal = "there are too many streams at once on this node"
	case !running:
		refusal = "the task does not run"
	}
	a.openTunnel(s, refusal, func() {}, func(ctx context.Context, cancel context.CancelFunc, to v1.Tunnel) v1.TunnelEnd {
		return a.tunnel(ctx, cancel, s, to)
	})
}

// openTunnel opens this node's end of a tunnel, where it says why it refuses, if it does, or does what is to be done, and then the end. After runs in
// the loop once that is over.
func (a *Agent) openTunnel(s v1.StreamRequest, refusal string, after func(), do func(context.Context, context.CancelFunc, v1.Tunnel) v1.TunnelEnd) {
	ctx, cancel := context.WithCancel(a.ctx)
	a.streams[s.ID] = cancel
	a.workers.Go(func() {
		defer cancel()
		defer a.post(func() { delete(a.streams, s.ID); after() })
		to, err := a.o.Manager.Tunnel(ctx, s.ID)
		if err != nil {
			a.log.Debug("tunnel not opened", "task.id", s.Task, "err", err)
			return
		}
		defer to.Close()
		end := v1.TunnelEnd{Error: refusal}
		if refusal == "" {
			open := &openEnd{Tunnel: to}
			end = do(ctx, func() {
				if !open.over.Load() {
					cancel()
				}
			}, open)
			open.over.Store(true)
		}
		_ = v1.WriteFrameJSON(to, v1.FrameEnd, end) // who is gone needs no answer
		_ = to.CloseWrite()
		_, _ = io.Copy(io.Discard, to) // until the manager has passed it on
	})
}

// openEnd is an end of a tunnel that something is done with. What comes once that is over is thrown away: whoever still reads finds no
// more, and not the middle of a frame.
type openEnd struct {
	v1.Tunnel
	over atomic.Bool
}

// Read implements io.Reader.
func (o *openEnd) Read(p []byte) (int, error) {
	if o.over.Load() {
		return 0, io.EOF
	}
	return o.Tunnel.Read(p)
}

// readStart reads what a tunnel is for. Whoever is too slow to say so is cut off.
func readStart(to v1.Tunnel) (start v1.TunnelStart, err error) {
	slow := time.AfterFunc(tunnelStart, func() { _ = to.Close() })
	kind, data, err := v1.ReadFrame(to)
	slow.Stop()
	if err == nil && kind != v1.FrameStart {
		err = errors.New("the first frame says nothing of what the tunnel is for")
	}
	if err == nil {
		err = json.Unmarshal(data, &start)
	}
	return start, err
}

// tunnel does what the first frame asks for.
func (a *Agent) tunnel(ctx context.Context, cancel context.CancelFunc, s v1.StreamRequest, to v1.Tunnel) v1.TunnelEnd {
	task := s.Task
	start, err := readStart(to)
	switch {
	case err != nil:
		return v1.TunnelEnd{Error: "read what the tunnel is for: " + err.Error()}
	case (task == v1.NodeItself) != start.OfNode():
		return v1.TunnelEnd{Error: "the network is examined, and volumes are looked at and removed, by a node itself, and a node itself does nothing else", Invalid: true}
	case start.Doctor != nil:
		return a.tunnelDoctor(ctx, to, start.Doctor)
	case start.CheckVolume != nil:
		return a.tunnelVolume(ctx, s.Volume, start.CheckVolume.Name, false)
	case start.RemoveVolume != nil:
		return a.tunnelVolume(ctx, s.Volume, start.RemoveVolume.Name, true)
	case start.InspectVolume != nil:
		return a.tunnelInspectVolume(ctx, to, start.InspectVolume)
	case start.Exec != nil:
		return a.tunnelExec(ctx, cancel, task, to, start.Exec)
	case start.Attach != nil:
		return a.tunnelAttach(ctx, cancel, task, to, start.Attach)
	case start.Copy != nil:
		return a.tunnelCopy(ctx, cancel, task, to, start.Copy)
	case start.Forward != nil:
		return a.tunnelForward(ctx, task, to, start.Forward)
	}
	return v1.TunnelEnd{Error: "this version of swarmd does not know what the tunnel is for"}
}

// tunnelExec runs a command, which is killed when the user is gone.
func (a *Agent) tunnelExec(ctx context.Context, cancel context.CancelFunc, task string, to v1.Tunnel, e *v1.ExecStart) v1.TunnelEnd {
	if len(e.Command) == 0 || len(e.Command) > maxCommand || len(e.Env) > maxCommand {
		return v1.TunnelEnd{Error: fmt.Sprintf("a command has from 1 to %d words, and as many settings at most", maxCommand), Invalid: true}
	}
	p := engine.Process{Command: e.Command, Env: e.Env, User: e.User, Dir: e.Dir, TTY: e.TTY, Size: e.Size,
		Stdout: v1.FrameWriter{To: to, Kind: v1.FrameOutput}, Stderr: v1.FrameWriter{To: to, Kind: v1.FrameErrors}}
	resize := make(chan v1.WindowSize, 1)
	p.Resize = resize
	stdin, input := io.Pipe()
	if e.Stdin {
		p.Stdin = stdin
	} else {
		_ = stdin.Close()
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		if !readInput(to, input, resize, nil) {
			cancel()
		}
	})
	code, err := a.o.Runtime.Run(ctx, task, p)
	_ = stdin.Close() // what comes now nobody reads
	if err != nil {
		return v1.TunnelEnd{Error: forPeople.Replace(err.Error()), Invalid: errors.Is(err, engine.ErrInvalid)}
	}
	return v1.TunnelEnd{ExitCode: &code}
}

// readInput hands on what comes from a user, until there is no more, which it tells, or they are gone. Signals may be nil.
func readInput(from io.Reader, input *io.PipeWriter, resize chan v1.WindowSize, signal func(name string)) (ended bool) {
	defer func() { _ = input.Close() }()
	for {
		kind, data, err := v1.ReadFrame(from)
		switch {
		case err != nil:
			return false
		case kind == v1.FrameInput && len(data) == 0:
			_ = input.Close()
		case kind == v1.FrameInput:
			_, _ = input.Write(data) // where nobody reads it any more it is lost
		case kind == v1.FrameSignal && signal != nil:
			signal(string(data))
		case kind == v1.FrameSize:
			var size v1.WindowSize
			if json.Unmarshal(data, &size) != nil {
				continue
			}
			select {
			case <-resize: // an older one that nobody took
			default:
			}
			resize <- size
		}
	}
}

// tunnelForward connects to a port inside the task.
func (a *Agent) tunnelForward(ctx context.Context, task string, to v1.Tunnel, f *v1.ForwardStart) v1.TunnelEnd {
	within, done := context.WithTimeout(ctx, tunnelStart)
	conn, err := a.dial(within, task, f.Port)
	done()
	if err != nil {
		return v1.TunnelEnd{Error: fmt.Sprintf("connect to port %d of the task: %s", f.Port, err)}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go func() {
		for {
			kind, data, err := v1.ReadFrame(to)
			switch {
			case err != nil:
				conn.Close()
				return
			case kind == v1.FrameInput && len(data) == 0:
				if c, ok := conn.(*net.TCPConn); ok {
					_ = c.CloseWrite()
				}
			case kind == v1.FrameInput:
				if _, err := conn.Write(data); err != nil {
					return
				}
			}
		}
	}()
	_, _ = io.Copy(v1.FrameWriter{To: to, Kind: v1.FrameOutput}, conn)
	return v1.TunnelEnd{}
}
