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
	// openGrace is how long a manager may take for its first message, and to tell how often to send heartbeats.
	openGrace = 10 * time.Second
	// minGrace is the least silence that ends a session, however short its heartbeat's period is.
	minGrace = 2 * time.Second
	// maxPeriod bounds what a manager may say of the period.
	maxPeriod = time.Minute
)

// Session opens the node's session and yields what the manager assigns to it, the first of them Complete. What describe says
// goes up at the beginning, and again with the heartbeat after it changed: it is asked before each, so it must be cheap, and by
// another goroutine.
//
// It sends heartbeats for as long as it lasts, also while the caller works on what was yielded. It ends with an error when the
// manager has said nothing for v1.HeartbeatGrace heartbeats, at least 2 s, when the connection is lost, when a newer session of
// the same node takes its place (409), or with ctx; the caller opens the next one.
func (n *NodeClient) Session(ctx context.Context, describe func() v1.NodeDescription) iter.Seq2[v1.Assignment, error] {
	return func(yield func(v1.Assignment, error) bool) {
		inner, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		s := &session{node: n, describe: describe, period: make(chan time.Duration, 1)}
		if err := s.change(); err != nil {
			yield(v1.Assignment{}, err)
			return
		}
		defer s.end()
		resp, h, err := s.open(inner)
		if err != nil {
			yield(v1.Assignment{}, err)
			return
		}
		defer resp.Body.Close()
		n.session.Store(h)
		err = s.read(h, resp.Body, cancel, func(a v1.Assignment) bool { return yield(a, nil) })
		switch {
		case err == nil: // the caller has enough
		case errors.Is(err, errStopped), Status(err) != 0:
			yield(v1.Assignment{}, err)
		default:
			yield(v1.Assignment{}, n.client.broken(ctx, inner, h, err))
		}
	}
}

// session is one session of a node.
type session struct {
	node     *NodeClient
	describe func() v1.NodeDescription
	told     []byte             // the line with the description that was sent last
	period   chan time.Duration // holds the newest that was told
	up       *io.PipeWriter     // what follows the first line
	beats    sync.WaitGroup
}

// change looks whether the description changed, and makes a line of it.
func (s *session) change() error {
	d := s.describe()
	line, err := json.Marshal(v1.SessionLine{Description: &d})
	if err != nil {
		return fmt.Errorf("client: node description: %w", err)
	}
	s.told = append(line, '\n')
	return nil
}

// open sends the first line, and the beginning of all that follows, until a manager answers.
func (s *session) open(ctx context.Context) (*http.Response, *host, error) {
	return s.node.client.send(ctx, request{
		method: http.MethodPost, path: s.node.path + "/session",
		again: true, patience: openGrace, // a session takes the place of the one before it
		body: func() io.Reader {
			s.close()
			r, w := io.Pipe()
			s.up = w
			return io.MultiReader(bytes.NewReader(s.told), r)
		},
	})
}

func (s *session) close() {
	if s.up != nil {
		_ = s.up.Close() // it never fails
	}
}

// end closes what goes up, and waits for the heartbeats to stop.
func (s *session) end() {
	s.close()
	close(s.period)
	s.beats.Wait()
}

// sessionLine is one line of a session: an Assignment, or why the session ends.
type sessionLine struct {
	v1.Assignment
	Problem *v1.Problem `json:"problem"`
}

// read hands on what comes down, until it is cut off or the caller has enough.
func (s *session) read(h *host, body io.Reader, cancel context.CancelCauseFunc, to func(v1.Assignment) bool) error {
	var alive *pulse
	alive = newPulse(body, openGrace, func() { cancel(silentError(h, alive.limit)) })
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
			alive.limit = max(v1.HeartbeatGrace*period, minGrace)
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

// beat says, once a period, that the node is there, or what has become of it.
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
