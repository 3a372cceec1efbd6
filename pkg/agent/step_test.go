package agent

import (
	"testing"

	"pgregory.net/rapid"
)

func TestStep(t *testing.T) {
	for _, c := range []struct {
		name string
		view view
		want action
	}{
		{"new", view{phase: phaseNew}, actPull},
		{"after a failed pull", view{phase: phaseNew, pause: true}, actRest},
		{"pulled", view{phase: phasePulled}, actLink},
		{"linked", view{phase: phaseLinked}, actCreate},
		{"prepared, not to start yet", view{phase: phaseCreated}, actRest},
		{"prepared", view{phase: phaseCreated, start: true}, actStart},
		{"started", view{phase: phaseStarted, start: true}, actPublish},
		{"running", view{phase: phaseRunning, start: true}, actRest},
		{"to stop while new", view{phase: phaseNew, stop: true, pause: true}, actSettle},
		{"to stop before it started", view{phase: phaseCreated, stop: true}, actSettle},
		{"to stop before it was published", view{phase: phaseStarted, stop: true}, actWithdraw},
		{"to stop", view{phase: phaseRunning, stop: true}, actWithdraw},
		{"withdrawn", view{phase: phaseWithdrawn, stop: true}, actSignal},
		{"signalled", view{phase: phaseSignalled, stop: true}, actRest},
		{"grace over", view{phase: phaseSignalled, stop: true, late: true}, actKill},
		{"killed", view{phase: phaseKilled, stop: true}, actRest},
		{"will not die", view{phase: phaseKilled, stop: true, late: true}, actSettle},
		{"exited while starting", view{phase: phaseStarted, ended: true}, actSettle},
		{"exited", view{phase: phaseRunning, start: true, ended: true}, actSettle},
		{"exited when signalled", view{phase: phaseSignalled, stop: true, ended: true}, actSettle},
		{"ended", view{phase: phaseEnded}, actRemove},
		{"removal failed", view{phase: phaseEnded, pause: true}, actRest},
		{"removed", view{phase: phaseRemoved, stop: true}, actUnlink},
		{"unlinked", view{phase: phaseUnlinked, stop: true}, actRest},
		{"forgotten by the swarm", view{phase: phaseUnlinked, stop: true, gone: true}, actForget},
		{"an attachment", view{bare: true, phase: phaseNew}, actLink},
		{"an attachment that is linked", view{bare: true, phase: phaseLinked, start: true}, actPublish},
		{"an attachment that is there", view{bare: true, phase: phaseRunning, start: true}, actRest},
		{"an attachment that is to stop", view{bare: true, phase: phaseRunning, stop: true}, actWithdraw},
		{"an attachment that others still know", view{bare: true, phase: phaseWithdrawn, stop: true, linger: true}, actRest},
		{"an attachment that is withdrawn", view{bare: true, phase: phaseWithdrawn, stop: true}, actSettle},
		{"an attachment that ended", view{bare: true, phase: phaseEnded}, actUnlink},
		{"an attachment that is gone", view{bare: true, phase: phaseUnlinked, gone: true, stop: true}, actForget},
	} {
		if got := step(c.view); got != c.want {
			t.Errorf("%s: step is %s, want %s", c.name, got, c.want)
		}
	}
}

// after is the phase that an action that succeeds leads to.
var after = map[action]phase{actPull: phasePulled, actLink: phaseLinked, actCreate: phaseCreated, actStart: phaseStarted,
	actPublish: phaseRunning, actWithdraw: phaseWithdrawn, actSignal: phaseSignalled, actKill: phaseKilled,
	actSettle: phaseEnded, actRemove: phaseRemoved, actUnlink: phaseUnlinked}

// A task always gets to its end, never backwards, and its process is started once at most, in whatever order the world
// changes around it.
func TestStepMovesForward(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var v view
		starts := 0
		for range 60 {
			v.start = v.start || rapid.Bool().Draw(t, "start")
			v.stop = v.stop || rapid.IntRange(0, 9).Draw(t, "stop") == 0
			v.ended = v.ended || v.phase >= phaseStarted && rapid.IntRange(0, 9).Draw(t, "exit") == 0
			v.pause, v.late = rapid.Bool().Draw(t, "pause"), rapid.Bool().Draw(t, "late")
			v.phase = follow(t, v, &starts)
		}
		v.stop, v.gone, v.pause, v.late = true, true, false, true
		for range 12 {
			v.phase = follow(t, v, &starts)
		}
		if act := step(v); act != actForget {
			t.Fatalf("a task that nobody wants ends in phase %s with %s to do", v.phase, act)
		}
		if starts > 1 {
			t.Fatalf("started %d times", starts)
		}
	})
}

func follow(t *rapid.T, v view, starts *int) phase {
	act := step(v)
	if act == actStart {
		*starts++
		if v.stop {
			t.Fatalf("%+v is started though it is to stop", v)
		}
	}
	next, ok := after[act]
	if !ok {
		return v.phase
	}
	if next <= v.phase {
		t.Fatalf("%s takes a task from phase %s back to %s", act, v.phase, next)
	}
	return next
}
