package v1

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPublishedPorts(t *testing.T) {
	for _, test := range []struct{ name, spec, desired, want string }{
		{"no endpoint", `{}`, `{}`, `null`},
		{"all given", `{"endpoint":{"ports":[{"target":80,"published":8080}]}}`, `{}`, `[{"target":80,"published":8080}]`},
		{"not chosen yet", `{"endpoint":{"ports":[{"target":80}]}}`, `{}`, `[{"target":80}]`},
		{"chosen", `{"endpoint":{"ports":[{"target":80},{"target":81,"published":81}]}}`,
			`{"ports":[{"target":80,"published":30001},{"target":81,"published":81}]}`, `[{"target":80,"published":30001},{"target":81,"published":81}]`},
		{"of a spec that was changed since", `{"endpoint":{"ports":[{"target":81},{"target":80}]}}`,
			`{"ports":[{"target":80,"published":30001}]}`, `[{"target":81},{"target":80,"published":30001}]`},
		{"twice the same target", `{"endpoint":{"ports":[{"target":80},{"target":80}]}}`,
			`{"ports":[{"target":80,"published":30001},{"target":80,"published":30002}]}`, `[{"target":80,"published":30001},{"target":80,"published":30002}]`},
		{"beside one that was asked for", `{"endpoint":{"ports":[{"target":80,"published":30005},{"target":80}]}}`,
			`{"ports":[{"target":80,"published":30005},{"target":80,"published":30001}]}`, `[{"target":80,"published":30005},{"target":80,"published":30001}]`},
		{"any in host mode", `{"endpoint":{"ports":[{"target":80,"mode":"host"}]}}`, `{"ports":[{"target":80,"published":30001}]}`, `[{"target":80,"mode":"host"}]`},
		{"of another protocol", `{"endpoint":{"ports":[{"target":80,"protocol":"udp"}]}}`, `{"ports":[{"target":80,"protocol":"tcp","published":30001}]}`,
			`[{"target":80,"protocol":"udp"}]`},
		{"one that was never chosen", `{"endpoint":{"ports":[{"target":80}]}}`, `{"ports":[{"target":80,"published":8080}]}`, `[{"target":80}]`},
	} {
		s := &Service{Spec: new(ServiceSpec), Desired: new(ServiceDesired)}
		var want []PortConfig
		for text, into := range map[string]any{test.spec: s.Spec, test.desired: s.Desired, test.want: &want} {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				t.Fatal(test.name, err)
			}
		}
		before := encode(t, s)
		got := PublishedPorts(s)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", test.name, diff)
		}
		waits := false
		for _, p := range want {
			waits = waits || p.Published == 0 && p.Mode != PublishHost
		}
		if WaitsForPorts(s) != waits {
			t.Errorf("%s: waits %v, want %v", test.name, !waits, waits)
		}
		if after := encode(t, s); string(after) != string(before) {
			t.Errorf("%s: the service was changed to %s", test.name, after)
		}
	}
}

func TestHasAddresses(t *testing.T) {
	on := func(networks ...string) (list []NetworkAddress) {
		for _, n := range networks {
			list = append(list, NetworkAddress{n, []string{"10.0.0.2/24"}})
		}
		return list
	}
	two := &TaskSpec{Networks: []NetworkAttachment{{Target: "a"}, {Target: "b"}}}
	for i, test := range []struct {
		spec *TaskSpec
		have []NetworkAddress
		want bool
	}{
		{&TaskSpec{}, nil, true}, {two, on("a", "b"), true}, {two, nil, false}, {two, on("a"), false}, {&TaskSpec{}, on("a"), false},
		{two, append(on("a"), NetworkAddress{Network: "b"}), false},
	} {
		if got := HasAddresses(&Task{Desired: &TaskDesired{Networks: test.have}}, test.spec); got != test.want {
			t.Errorf("case %d: got %v", i, got)
		}
	}
}
