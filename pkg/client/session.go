package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// How long a session bears silence.
const (
	// openGrace is how long a manager may take for its first message, and to tell how often to send heartbeats: another one may answer at once.
	openGrace = 5 * time.Second
	// minGrace is the least silence that ends a session, however short its heartbeat's period is.
	minGrace = 2 * time.Second
	// spare is how many periods before the managers miss a node it gives up a manager that is silent: time for another session.
	spare = 1
	// endGrace is how long a manager may take to see that a session is over.
	endGrace = time.Second
	// maxPeriod bounds what a manager may say of the period.
	maxPeriod = time.Minute
)

// Session opens the node's session and yields what the manager assigns to it, the first of them Complete. What describe says
// goes up at the beginning, and again with the heartbeat after it changed: it is asked before each, so it must be cheap, and by
// another goroutine.
//
// It sends heartbeats for as long as it lasts, also while the caller works on what was yielded. It ends with an error when the
// manager has said nothing for one heartbeat less than v1.HeartbeatGrace, at least 2 s, when the connection is lost, when a newer session of
// the same node takes its place (409), or with ctx; the caller opens the next one.
//
// A caller that stops, or whose ctx ends, ends the session in order: the manager is told, and has a second to take note. So it
// knows such an end from that of a process that was killed.
func (n *NodeClient) Session(ctx context.Context, describe func() v1.NodeDescription) iter.Seq2[v1.Assignment, error] {
	return func(yield func(v1.Assignment, error) bool) {
		if ctx.Err() != nil {
			yield(v1.Assignment{}, context.Cause(ctx))
			return
		}
		inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		defer cancel(nil)
		s := &session{node: n, describe: describe, cancel: cancel, period: make(chan time.Duration, 1)}
		defer context.AfterFunc(ctx, func() { s.finish(context.Cause(ctx)) })()
		defer s.end()
		err := s.run(inner, func(a v1.Assignment) bool { return ctx.Err() != nil || yield(a, nil) })
		switch {
		case err == nil: // the caller has enough
		case ctx.Err() != nil:
			yield(v1.Assignment{}, context.Cause(ctx))
		default:
			yield(v1.Assignment{}, err)
		}
	}
}

// session is one session of a node.
type session struct {
	node     *NodeClient
	describe func() v1.NodeDescription
	told     []byte                  // the line with the description that was sent last
	period   chan time.Duration      // holds the newest that was told
	cancel   context.CancelCauseFunc // of the request
	beats    sync.WaitGroup

	mu   sync.Mutex
	up   *io.PipeWriter // what follows the first line
	open bool           // a manager has answered
}

// run opens the session and hands on what comes down, until it is cut off, or the caller has enough.
func (s *session) run(inner context.Context, to func(v1.Assignment) bool) error {
	if err := s.change(); err != nil {
		return err
	}
	resp, h, err := s.begin(inner)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	s.node.session.Store(h)
	s.mu.Lock()
	s.open = true
	s.mu.Unlock()
	if inner.Err() != nil {
		return context.Cause(inner)
	}
	err = s.read(h, resp.Body, to)
	switch {
	case err == nil:
		s.finish(errFinished)
		_, _ = io.Copy(io.Discard, resp.Body) // until the manager has taken note
		return nil
	case errors.Is(err, errStopped), Status(err) != 0:
		return err
	}
	return s.node.client.broken(context.Background(), inner, h, err)
}

// errFinished ends a session whose manager takes no note of its end.
var errFinished = errors.New("client: the session is over")

// finish ends what goes up, and all of the session soon after, whatever the manager does.
func (s *session) finish(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		s.cancel(cause)
		return
	}
	_ = s.up.Close() // it never fails
	time.AfterFunc(endGrace, func() { s.cancel(cause) })
}

// change looks whether the description changed, and makes a line of it.
func (s *session) change() error {
	d := s.describe()
	line := v1.SessionLine{Description: &d}
	if startup := s.node.client.options.Startup; startup != nil {
		line.Startup = v1.Duration(startup())
	}
	text, err := json.Marshal(line)
	if err != nil {
		return fmt.Errorf("client: node description: %w", err)
	}
	s.told = append(text, '\n')
	return nil
}

// begin sends the first line, and the beginning of all that follows, until a manager answers.
func (s *session) begin(ctx context.Context) (*http.Response, *host, error) {
	return s.node.client.send(ctx, request{
		method: http.MethodPost, path: s.node.path + "/session",
		hosts: s.node.client.nearest(ctx),
		again: true, patience: openGrace, // a session takes the place of the one before it
		body: func() io.Reader {
			r, w := io.Pipe()
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.up != nil {
				_ = s.up.Close()
			}
			s.up = w
			return &upBody{io.MultiReader(bytes.NewReader(s.told), r), r}
		},
	})
}

// upBody is what goes up in a session. Closing it ends a Read that waits for the next heartbeat.
type upBody struct {
	io.Reader
	io.Closer
}

// end closes what goes up, and waits for the heartbeats to stop.
func (s *session) end() {
	s.mu.Lock()
	if s.up != nil {
		_ = s.up.Close()
	}
	s.mu.Unlock()
	close(s.period)
	s.beats.Wait()
}

// sessionLine is one line of a session: an Assignment, or why the session ends.
type sessionLine struct {
	v1.Assignment
	Problem *v1.Problem `json:"problem"`
}

// read hands on what comes down, until it is cut off or the caller has enough.
func (s *session) read(h *host, body io.Reader, to func(v1.Assignment) bool) error {
	var alive *pulse
	alive = newPulse(body, openGrace, func() { s.cancel(silentError(h, alive.limit)) })
	defer alive.stop()
	decoder := json.NewDecoder(alive)
	for first := true; ; first = false {
		var line sessionLine
		switch err := decoder.Decode(&line); {
		case err == io.EOF:
			return errStopped
		case err != nil:
			return err
		case line.Problem != nil:
			return line.Problem
		}
		if first {
			s.beats.Go(s.beat)
		}
		if line.Swarm != nil && line.Swarm.Heartbeat > 0 {
			period := min(time.Duration(line.Swarm.Heartbeat), maxPeriod)
			alive.limit = max((v1.HeartbeatGrace-spare)*period, minGrace)
			s.keep(period)
		}
		if !to(line.Assignment) {
			return nil
		}
	}
}

// keep has heartbeats sent so often from now on.
func (s *session) keep(period time.Duration) {
	select {
	case <-s.period: // an older one that was not seen
	default:
	}
	s.period <- period
}

// beat says, once a period, that the node is there, or what has become of it, and at once what it follows.
func (s *session) beat() {
	period := v1.DefaultHeartbeatPeriod
	timer := time.NewTimer(period)
	defer timer.Stop()
	for {
		select {
		case told, open := <-s.period:
			if !open {
				return
			}
			if told != period {
				period = told
				timer.Reset(period)
			}
			continue
		case number := <-s.node.followed:
			line, err := json.Marshal(v1.SessionLine{Followed: number})
			if err != nil {
				return // of a number: it cannot fail
			}
			if _, err := s.up.Write(append(line, '\n')); err != nil {
				return
			}
			continue // the heartbeat is due when it was
		case <-timer.C:
		}
		last, line := s.told, []byte{'\n'}
		if err := s.change(); err == nil && !bytes.Equal(last, s.told) {
			line = s.told
		}
		if _, err := s.up.Write(line); err != nil { // the session ends, and whoever reads it says why
			return
		}
		timer.Reset(period)
	}
}
