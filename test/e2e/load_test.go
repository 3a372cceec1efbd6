package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

const (
	writers = 6
	// answerWithin is how long a client waits; what it has no answer to by then may have happened.
	answerWithin = 2 * time.Second
	// pace is the time between two writes of one client.
	pace = 25 * time.Millisecond
	// perRound is how many registers a round has: few, so that clients meet.
	perRound = 4
)

// load is a number of clients that write without end, each through a manager of its own choice, and note what came of it.
type load struct {
	clients map[string]*client.Client // by the names of hosts
	round   int
	history *history
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu      sync.Mutex
	targets []string // hosts that are managers
	created []string // configs that were acknowledged
}

// startLoad makes the round's registers and sets the clients to work on them, through the managers among the hosts.
func (s *swarm) startLoad(clients map[string]*client.Client, round int, managers []*lab.Host) (*load, error) {
	l := &load{clients: clients, round: round, history: newHistory()}
	for _, h := range managers {
		l.targets = append(l.targets, h.Name)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), generous)
	defer cancel()
	for i := range perRound {
		_, _, err := client.Create(ctx, clients[l.targets[0]], v1.Configs, &v1.Config{Meta: v1.Meta{Name: l.register(i), Labels: map[string]string{"value": ""}},
			Spec: &v1.ConfigSpec{Data: []byte("register")}})
		if err != nil {
			return nil, fmt.Errorf("make a register: %w", err)
		}
	}
	ctx, l.cancel = context.WithCancel(s.t.Context())
	for i := range writers {
		l.done.Go(func() { l.write(ctx, i) })
	}
	return l, nil
}

func (l *load) register(i int) string { return fmt.Sprintf("register-%d-%d", l.round, i) }

// stop ends the clients, and waits for them.
func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// write is a client. What it does is random, and not from the seed: its pace depends on the machine anyway.
func (l *load) write(ctx context.Context, number int) {
	for i := 0; ctx.Err() == nil; i++ {
		host := l.targets[rand.N(len(l.targets))]
		value := fmt.Sprintf("%d.%d", number, i)
		if rand.N(5) == 0 {
			l.create(ctx, host, value)
		} else {
			l.attempt(ctx, number, host, value)
		}
		select {
		case <-time.After(pace):
		case <-ctx.Done():
		}
	}
}

// create makes a config of a name that nobody else uses.
func (l *load) create(ctx context.Context, host, value string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	name := fmt.Sprintf("created-%d-%s", l.round, value)
	_, _, err := client.Create(ctx, l.clients[host], v1.Configs, &v1.Config{Meta: v1.Meta{Name: name}, Spec: &v1.ConfigSpec{Data: []byte(value)}})
	if err == nil {
		l.mu.Lock()
		l.created = append(l.created, name)
		l.mu.Unlock()
	}
}

// attempt reads a register, not necessarily its newest value, and writes it.
func (l *load) attempt(ctx context.Context, number int, host, value string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerWithin)
	defer cancel()
	c := l.clients[host]
	read, err := client.Get(ctx, c, v1.Configs, l.register(rand.N(perRound)))
	if err != nil {
		return
	}
	in := attempt{register: read.Meta.Name, kind: writeIf, expected: read.Meta.Labels["value"], value: value}
	next := &v1.Config{Meta: v1.Meta{ID: read.Meta.ID, Name: read.Meta.Name, Labels: map[string]string{"value": value}, Revisions: read.Meta.Revisions}}
	if rand.N(4) == 0 {
		in.kind, in.expected, next.Meta.Revisions = writeAlways, "", v1.Revisions{}
	}
	call := l.history.now()
	_, _, err = client.Update(ctx, c, v1.Configs, next)
	if out, noted := outcomeOf(err); noted {
		l.history.note(number, in, call, out)
	}
}

// outcomeOf is what an answer says of a write; one that says that nothing was done is not worth noting.
func outcomeOf(err error) (out outcome, noted bool) {
	if err == nil {
		return outcome{state: acknowledged}, true
	}
	var unreachable *client.ConnectError
	var problem *v1.Problem
	switch {
	case errors.As(err, &unreachable):
		return outcome{}, false
	case errors.As(err, &problem) && problem.Status == http.StatusConflict && strings.Contains(problem.Detail, "out of sequence"):
		return outcome{state: conflicted}, true
	case errors.As(err, &problem) && problem.Status < 500:
		return outcome{}, false
	}
	return outcome{state: unknown}, true
}

// readAll notes what the registers are at the end, each read by a manager that has itself written after everything that was
// acknowledged, and holds what was created to being there.
func (s *swarm) readAll(l *load, h *lab.Host) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), generous)
	defer cancel()
	c := l.clients[h.Name]
	// A server shows its own writes: after this one it shows all that were acknowledged before.
	marker := fmt.Sprintf("marker-%d-%s-%d", l.round, h.Name, time.Now().UnixNano())
	if _, _, err := client.Create(ctx, c, v1.Configs, &v1.Config{Meta: v1.Meta{Name: marker}, Spec: &v1.ConfigSpec{Data: []byte("x")}}); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	call := l.history.now()
	all, err := client.List(ctx, c, v1.Configs, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	there := make(map[string]*v1.Config)
	for _, config := range all {
		there[config.Meta.Name] = config
	}
	for i := range perRound {
		name := l.register(i)
		if there[name] == nil {
			return fmt.Errorf("%s: %s is gone", h.Name, name)
		}
		l.history.note(writers+h.Number(), attempt{register: name, kind: readNow}, call, outcome{value: there[name].Meta.Labels["value"]})
	}
	for _, name := range l.created {
		if there[name] == nil {
			return fmt.Errorf("%s: %s was acknowledged and is not there", h.Name, name)
		}
	}
	return nil
}
