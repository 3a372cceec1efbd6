package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// waitFlags say whether and how a command waits for services to converge.
type waitFlags struct {
	detach, quiet bool
	timeout       time.Duration
	goal          goal // not a flag's: the command knows
	run           bool // of a service of mode cron: wait for the run that was asked for
}

func (w *waitFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.BoolVarP(&w.detach, "detach", "d", false, "Exit immediately instead of waiting for the service to converge")
	s.BoolVarP(&w.quiet, "quiet", "q", false, "Suppress progress output")
	s.DurationVar(&w.timeout, "timeout", 0, "Stop waiting after this long and exit with status 1 (0 waits for ever)")
}

// change is something that a watch told: an object that is there now, or that is gone, or that everything is told anew.
type change struct {
	service  *v1.Service
	task     *v1.Task
	revision *v1.ServiceRevision
	gone     bool
	anew     v1.Kind // everything of this kind is told once more
	err      error
}

// converge waits until a service's tasks run as it says and have done so for a moment, and shows how it goes.
func (a *app) converge(ctx context.Context, c *client.Client, w *waitFlags, started time.Time, svc *v1.Service) error {
	if w.detach {
		return nil
	}
	p := a.newProgress(w.quiet)
	err := a.await(ctx, c, w, started, svc, p)
	p.end()
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		a.printf("Operation continuing in background.\nUse `swarmctl service ps %s` to check progress.\n", svc.Meta.Name)
		return &exitError{code: 130}
	}
	return err
}

func (a *app) await(ctx context.Context, c *client.Client, w *waitFlags, started time.Time, svc *v1.Service, p *progress) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	changes := make(chan change, 64)
	send := func(ch change) bool {
		select {
		case changes <- ch:
			return true
		case <-watching.Done():
			return false
		}
	}
	go follow(watching, c, v1.Services, v1.Filter{"id": {svc.Meta.ID}}, send, func(s *v1.Service) change { return change{service: s} })
	go follow(watching, c, v1.Tasks, v1.Filter{"service": {svc.Meta.ID}}, send, func(t *v1.Task) change { return change{task: t} })
	go follow(watching, c, v1.ServiceRevisions, v1.Filter{"service": {svc.Meta.ID}}, send, func(r *v1.ServiceRevision) change { return change{revision: r} })
	var timeout <-chan time.Time
	if w.timeout > 0 {
		t := time.NewTimer(w.timeout)
		defer t.Stop()
		timeout = t.C
	}
	known := view{service: svc, tasks: map[string]*v1.Task{}, revisions: map[string]*v1.ServiceRevisionSpec{}, goal: w.goal}
	if w.run {
		known.asked = svc.Spec.Schedule.RunNow
	}
	watch := &waiter{app: a, progress: p, started: started, view: known, ref: svc.Meta.ID, numbers: map[string]int{}}
	if svc.Desired != nil {
		watch.view.before = svc.Desired.Update
	}
	return watch.run(ctx, changes, timeout, w.timeout)
}

// follow sends what a watch of a kind tells, and begins again where the store no longer has the watch's revision.
func follow[S, D, T any](ctx context.Context, c *client.Client, k v1.KindOf[S, D, T], f v1.Filter, send func(change) bool, of func(*v1.Resource[S, D, T]) change) {
	for {
		for event, err := range client.Watch(ctx, c, k, f, -1) {
			if client.Status(err) == http.StatusGone {
				break
			}
			ch := change{err: err}
			if err == nil {
				ch = of(event.Object)
				ch.gone = event.Type == client.EventDelete
			}
			if !send(ch) || err != nil {
				return
			}
		}
		if ctx.Err() != nil || !send(change{anew: k.Kind()}) {
			return
		}
	}
}

// waiter waits for one service.
type waiter struct {
	*app
	progress *progress
	view     view
	ref      string
	started  time.Time
	reached  bool           // all tasks have run at the same time at least once
	numbers  map[string]int // which bar a slot has: in the order in which they were seen
	// settled fires when what runs has run for long enough; nil while it does not.
	settled *time.Timer
}

func (w *waiter) run(ctx context.Context, changes <-chan change, timeout <-chan time.Time, limit time.Duration) error {
	defer w.unsettle()
	for {
		v := judge(w.view)
		w.show(v)
		switch {
		case v.err != nil:
			return fmt.Errorf("service %s: %w; it stays as it is: see `swarmctl service ps --no-trunc %[1]s`", w.view.service.Meta.Name, v.err)
		case v.over:
			w.progress.set("job", cmp.Or(v.note, "job complete"), 0)
			return nil
		case !v.done:
			if w.unsettle() && w.reached {
				w.progress.set("verify", "Detected task failure", 0)
			}
		case w.settled == nil:
			w.settled = time.NewTimer(v.monitor)
			if v.monitor > settle {
				w.progress.set("verify", fmt.Sprintf("Waiting %s to verify that tasks are stable...", v.monitor), 0)
			}
		}
		var settled <-chan time.Time
		if w.settled != nil {
			settled = w.settled.C
		}
		select {
		case <-ctx.Done():
			return context.Canceled
		case <-timeout:
			return fmt.Errorf("service %s has not converged after %s: %d of %d tasks running%s; it goes on in the background",
				w.view.service.Meta.Name, limit, v.running, v.wanted, worst(v))
		case <-settled:
			w.progress.set("verify", w.converged(v), 0)
			return nil
		case ch := <-changes:
			if err := w.take(ch); err != nil {
				return err
			}
			for more := true; more; { // all that is there already is judged once
				select {
				case ch := <-changes:
					if err := w.take(ch); err != nil {
						return err
					}
				default:
					more = false
				}
			}
		}
	}
}

func (w *waiter) converged(v verdict) string {
	text := fmt.Sprintf("Service %s converged", w.ref)
	if v.note != "" {
		text += ": " + v.note
	}
	return text
}

// unsettle forgets that everything ran, and tells whether it did.
func (w *waiter) unsettle() bool {
	if w.settled == nil {
		return false
	}
	w.settled.Stop()
	w.settled = nil
	return true
}

func (w *waiter) take(ch change) error {
	switch {
	case ch.err != nil:
		return daemonError(ch.err)
	case ch.anew == v1.KindTask:
		clear(w.view.tasks)
	case ch.anew == v1.KindServiceRevision:
		clear(w.view.revisions)
	case ch.service != nil && ch.gone:
		return fmt.Errorf("service %s was removed", w.view.service.Meta.Name)
	case ch.service != nil:
		// A watch that began before our own write may show what was there before it.
		if ch.service.Meta.Revisions[v1.SectionSpec] >= w.view.service.Meta.Revisions[v1.SectionSpec] {
			w.view.service = ch.service
			if run := w.view.askedRun(); run != nil {
				w.view.slot = run.Number
			}
			if d := ch.service.Desired; d != nil && d.Update != nil && d.Update.State == v1.UpdateRollbackStarted {
				w.view.rollback = d.Update.Message
			}
		}
	case ch.revision != nil && ch.gone:
		delete(w.view.revisions, ch.revision.Meta.ID)
	case ch.revision != nil:
		w.view.revisions[ch.revision.Meta.ID] = ch.revision.Spec
	case ch.task != nil && ch.gone:
		if w.view.asked != 0 && v1.Observed(ch.task) == v1.TaskComplete { // a run may be given up as soon as it is over
			break
		}
		delete(w.view.tasks, ch.task.Meta.ID)
	case ch.task != nil && ch.task.Desired != nil:
		w.view.tasks[ch.task.Meta.ID] = ch.task
	}
	return nil
}

// maxBars is how many slots are shown one by one, as in Docker.
const maxBars = 20

func (w *waiter) show(v verdict) {
	if v.over && v.note != "" {
		return
	}
	text := fmt.Sprintf("%d out of %d tasks", v.running, v.wanted)
	if v.rollback {
		text = "rolling back update: " + text
	}
	if v.wanted <= maxBars {
		for _, slot := range v.slots {
			n, known := w.numbers[slot.name]
			if !known {
				n = len(w.numbers) + 1
				w.numbers[slot.name] = n
			}
			if text, steps := slot.text(); n <= v.wanted {
				w.progress.set(fmt.Sprintf("%d/%d", n, v.wanted), oneLine(text), steps)
			}
		}
	} else if text := worst(v); text != "" {
		w.progress.set("problem", oneLine(text[2:]), 0)
	}
	w.progress.set(overall, text, 0)
	if v.done && !w.reached && v.wanted > 0 {
		w.reached = true
		w.progress.set("running", fmt.Sprintf("%d of %d tasks after %.2fs", v.running, v.wanted, w.Now().Sub(w.started).Seconds()), 0)
	}
}

// worst is the error that most slots have, with how many, after a colon; empty where there is none.
func worst(v verdict) string {
	counts := make(map[string]int)
	var most string
	for _, slot := range v.slots {
		if text, steps := slot.text(); steps == 0 && text != "" {
			counts[text]++
			if counts[text] > counts[most] || counts[text] == counts[most] && text < most {
				most = text
			}
		}
	}
	if most == "" {
		return ""
	}
	return fmt.Sprintf(": %s (%d %s)", most, counts[most], plural("task", counts[most]))
}
