package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"time"

	eventtypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"github.com/swarmd/swarmd/pkg/runtime"
)

const (
	exitTopic = "/tasks/exit"
	// echoTopic is of events that we publish to see that a subscription has begun: containerd does not confirm one.
	echoTopic = "/swarmd/echo"
	// subscribeTimeout bounds how long containerd may take to begin.
	subscribeTimeout = 10 * time.Second
)

// Events implements runtime.Runtime. What ends after Events has returned is seen, even if it is read later.
func (r *Runtime) Events(ctx context.Context) iter.Seq2[runtime.State, error] {
	ctx, cancel := context.WithCancel(r.namespaced(ctx))
	s := &subscription{token: rand.Text()}
	err := r.subscribe(ctx, s)
	return func(yield func(runtime.State, error) bool) {
		defer cancel()
		for err == nil {
			var envelope *events.Envelope
			if envelope, err = s.next(ctx); err != nil {
				break
			}
			state, ok, serr := r.exited(ctx, envelope)
			if err = serr; err == nil && ok && !yield(state, nil) {
				return
			}
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		yield(runtime.State{}, fmt.Errorf("containerd: events: %w", err))
	}
}

// exited is the state of the container whose end the event tells, if that is what it tells.
func (r *Runtime) exited(ctx context.Context, envelope *events.Envelope) (runtime.State, bool, error) {
	if envelope.Topic != exitTopic {
		return runtime.State{}, false, nil
	}
	var exit eventtypes.TaskExit
	if err := typeurl.UnmarshalTo(envelope.Event, &exit); err != nil {
		return runtime.State{}, false, err
	}
	if exit.ID != exit.ContainerID {
		return runtime.State{}, false, nil // a further process of the container
	}
	s, err := r.State(ctx, exit.ContainerID)
	if errors.Is(err, runtime.ErrNotFound) {
		return s, false, nil // removed already
	}
	return s, err == nil && s.Status == runtime.Ended, err
}

// subscription is a stream of events that has been heard to deliver.
type subscription struct {
	token  string
	events <-chan *events.Envelope
	errs   <-chan error
	// early are the events that came before the echo.
	early []*events.Envelope
}

// subscribe opens the stream and publishes until it hears itself.
func (r *Runtime) subscribe(ctx context.Context, s *subscription) error {
	only := ",namespace==" + r.config.Namespace
	s.events, s.errs = r.client.EventService().Subscribe(ctx, `topic=="`+exitTopic+`"`+only, `topic=="`+echoTopic+`"`+only)
	deadline := time.After(subscribeTimeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if err := r.client.EventService().Publish(ctx, echoTopic, &eventtypes.TaskStart{ContainerID: s.token}); err != nil {
			return err
		}
		for again := time.After(pause); again != nil; {
			select {
			case e := <-s.events:
				if s.isEcho(e) {
					return nil
				}
				s.early = append(s.early, e)
			case err := <-s.errs:
				return errors.Join(errors.New("the stream ended"), err)
			case <-deadline:
				return errors.New("containerd does not deliver any")
			case <-ctx.Done():
				return ctx.Err()
			case <-again:
				again = nil
			}
		}
	}
}

func (s *subscription) isEcho(e *events.Envelope) bool {
	var echo eventtypes.TaskStart
	return e.Topic == echoTopic && typeurl.UnmarshalTo(e.Event, &echo) == nil && echo.ContainerID == s.token
}

func (s *subscription) next(ctx context.Context) (*events.Envelope, error) {
	if len(s.early) > 0 {
		e := s.early[0]
		s.early = s.early[1:]
		return e, nil
	}
	select {
	case e := <-s.events:
		return e, nil
	case err := <-s.errs:
		return nil, errors.Join(errors.New("the stream ended"), err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
