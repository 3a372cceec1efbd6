package compose

import (
	"encoding/json"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func TestRebalance(t *testing.T) {
	for value, want := range map[string]v1.Rebalance{"on-join": v1.RebalanceOnJoin, "off": v1.RebalanceOff} {
		p, err := world{}.load(one("deploy: {placement: {x-rebalance: " + value + "}}"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Stack()
		if err != nil {
			t.Fatal(err)
		}
		if placement := s.Services[0].Spec.Task.Placement; placement == nil || placement.Rebalance != want {
			t.Errorf("x-rebalance: %s: got %+v", value, placement)
		}
	}
}

func TestSchedule(t *testing.T) {
	p, err := world{}.load(one("deploy:", "  mode: cron", "  x-schedule: {cron: 30 3 * * MON, time_zone: Europe/Berlin, concurrency: replace,",
		"    starting_deadline: 1h, keep_successful: 5, keep_failed: 0, suspend: true}"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Stack()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(s.Services[0].Spec.Schedule)
	const want = `{"cron":"30 3 * * MON","timeZone":"Europe/Berlin","concurrency":"replace","startingDeadline":"1h0m0s","keepSuccessful":5,"keepFailed":0,"suspend":true}`
	if err != nil || string(got) != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
}
