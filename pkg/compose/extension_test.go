package compose

import (
	"encoding/json"
	"strings"
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

// TestOnChange: a file that changed can be put in place without new tasks; what a service may not say is refused where it stands.
func TestOnChange(t *testing.T) {
	file := func(value string) string {
		return one("secrets: [{source: key, target: key, x-on-change: "+value+"}]", "configs: [{source: conf, target: /conf, x-on-change: signal}]") +
			"secrets: {key: {file: key.txt}}\nconfigs: {conf: {content: hello}}\n"
	}
	w := world{files: map[string]string{"/srv/key.txt": "a"}}
	p, err := w.load(file("none"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Stack()
	if err != nil {
		t.Fatal(err)
	}
	c := s.Services[0].Spec.Task.Container
	if c.Secrets[0].OnChange != v1.ChangeNone || c.Configs[0].OnChange != v1.ChangeSignal {
		t.Errorf("got %+v, %+v", c.Secrets, c.Configs)
	}
	if p, err = w.load(file("[1]")); err == nil {
		_, err = p.Stack()
	}
	if err == nil || !strings.Contains(err.Error(), "services.web.secrets[0].x-on-change") {
		t.Errorf("a list: %v", err)
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
