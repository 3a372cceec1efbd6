package agent

import (
	"testing"
	"time"
)

// TestSecondLook: a repair of what was noticed is followed by another, which may find what somebody did meanwhile, and that by none.
func TestSecondLook(t *testing.T) {
	var l links
	now := time.Now()
	l.disturbed(now)
	if !l.resyncAt.Equal(now) {
		t.Fatalf("the repair is put on for %s from now", l.resyncAt.Sub(now))
	}
	l.resyncAt = time.Time{} // it begins
	l.repairIsDone(now, time.Millisecond)
	if got := l.resyncAt.Sub(now); got != secondLook {
		t.Fatalf("the second look is put on for %s from then, want %s", got, secondLook)
	}
	l.resyncAt = time.Time{}
	if l.repairIsDone(now.Add(secondLook), time.Millisecond); !l.resyncAt.IsZero() {
		t.Errorf("a third is put on for %s from then", l.resyncAt.Sub(now))
	}
}

// TestRepairsHaveABudget: who never stops doing damage has repairs come more rarely, which those that only waited do not.
func TestRepairsHaveABudget(t *testing.T) {
	var l links
	now := time.Now()
	for range 2 {
		l.repairIsDone(now, time.Millisecond) // for which it waited for half a minute, say
		now = now.Add(20 * time.Second)
	}
	if at := l.disturbed(now); !at.Equal(now) {
		t.Errorf("after two cheap repairs the next waits for %s", at.Sub(now))
	}
	l.repairIsDone(now, 5*time.Second)
	l.repairIsDone(now, 5*time.Second)
	if got, want := l.disturbed(now).Sub(now), min(repairShare*5*time.Second, resyncMost); got != want {
		t.Errorf("after ten seconds' work the next waits for %s, want %s", got, want)
	}
}
