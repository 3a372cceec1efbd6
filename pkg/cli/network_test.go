package cli

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// crowd is a network with a service of each endpoint mode on it, and tasks in several states.
func crowd(t *testing.T) *residents {
	t.Helper()
	service := func(text string) *v1.Service { return object[v1.Service](t, text) }
	task := func(text string) *v1.Task { return object[v1.Task](t, text) }
	return &residents{network: object[v1.Network](t, fullNetwork),
		services: []*v1.Service{
			service(`{metadata: {id: s1, name: db}, spec: {endpoint: {mode: dnsrr}, task: {networks: [{target: networkid, aliases: [store]}]}}}`),
			service(`{metadata: {id: s2, name: web}, spec: {task: {networks: [{target: front}]}},
  desired: {vips: [{network: other, addresses: [10.9.0.2/24]}, {network: networkid, addresses: [10.0.1.2/24]}]}}`),
		},
		tasks: []*v1.Task{
			task(`{metadata: {id: t1}, desired: {service: s2, serviceName: web, slot: 1, placement: {node: n2}, networks: [{network: networkid, addresses: [10.0.1.5/24]}]}}`),
			task(`{metadata: {id: t2}, desired: {service: s2, serviceName: web, slot: 2, pending: no address is left}}`),
			task(`{metadata: {id: t3}, desired: {service: s0, serviceName: gone, slot: 1, placement: {node: n1}, networks: [{network: networkid, addresses: [10.0.1.6/24]}]}}`),
		},
		nodes: map[string]*v1.Node{"n2": object[v1.Node](t, `{metadata: {id: n2}, status: {addr: 192.168.1.2, description: {hostname: worker2}}}`)},
	}
}

func TestConvertNetwork(t *testing.T) {
	r := crowd(t)
	plain, full := convertNetwork(object[v1.Network](t, "{metadata: {id: x, name: plain}}")), convertNetwork(r.network)
	r.convert(full)
	var out bytes.Buffer
	if err := writeInspected(&out, "", []any{plain, full}); err != nil {
		t.Fatal(err)
	}
	golden(t, "network.json", out.Bytes())
}

func TestDescribeNetwork(t *testing.T) {
	r := crowd(t)
	var out bytes.Buffer
	a := &app{Options: withDefaults(Options{Out: &out, Now: func() time.Time { return time.Date(2026, 1, 2, 4, 6, 5, 0, time.UTC) }})}
	if err := a.writeNetwork(r); err != nil {
		t.Fatal(err)
	}
	golden(t, "network.describe", out.Bytes())
}

func TestNetworkBook(t *testing.T) {
	b := networkBook{
		{Meta: v1.Meta{ID: "abc1", Name: "front"}}, {Meta: v1.Meta{ID: "abd2", Name: "back"}}, {Meta: v1.Meta{ID: "x9", Name: "abc1"}}, {Meta: v1.Meta{ID: "y7", Name: "ab"}},
	}
	for ref, want := range map[string]string{
		"front": "abc1", "abc1": "abc1", "abc": "abc1", "ab": "y7", "a": "", "abd": "abd2", "": "", "none": "", "x": "x9",
	} {
		got := ""
		if n := b.find(ref); n != nil {
			got = n.Meta.ID
		}
		if got != want {
			t.Errorf("%q is %q, want %q", ref, got, want)
		}
	}
	list := []v1.NetworkAttachment{{Target: "abd", Aliases: []string{"a"}}, {Target: "abc1"}, {Target: "none"}}
	got := b.whole(list)
	if got[0].Target != "back" || got[0].Aliases[0] != "a" || got[1].Target != "abc1" || got[2].Target != "none" || list[0].Target != "abd" {
		t.Errorf("%+v of %+v", got, list)
	}
}

// TestPruneAsks: nothing is removed without a yes, on a terminal or from standard input.
func TestPruneAsks(t *testing.T) {
	for _, c := range []struct {
		in, terminal string
		ok           bool
	}{
		{in: "y\n", ok: true}, {in: "YES", ok: true}, {in: "n\n"}, {in: ""}, {in: "yet\n"},
		{terminal: "y", ok: true}, {terminal: "N"}, {terminal: " "},
	} {
		o := Options{In: strings.NewReader(c.in), Out: io.Discard, Err: io.Discard}
		if c.terminal != "" {
			o.Ask = func(string, bool) (string, error) { return strings.TrimSpace(c.terminal), nil }
		}
		a := &app{Options: withDefaults(o)}
		if err := a.confirm("network prune", "WARNING!"); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestPruneFilter(t *testing.T) {
	now := time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC)
	a := &app{Options: withDefaults(Options{Now: func() time.Time { return now }})}
	n := &v1.Network{Meta: v1.Meta{Labels: map[string]string{"tier": "a", "keep": ""}, CreatedAt: now.Add(-time.Hour)}}
	for filters, want := range map[string]bool{
		"": true, "label=tier": true, "label=tier=a": true, "label=tier=b": false, "label=tier,label=none": false, "label!=tier": false,
		"label!=tier=b": true, "label!=none": true, "until=30m": true, "until=2h": false, "until=2026-01-02T03:30:00Z": true, "until=30m,label=none": false,
	} {
		holds, err := a.pruneFilter(strings.FieldsFunc(filters, func(r rune) bool { return r == ',' }))
		if err != nil {
			t.Errorf("%s: %v", filters, err)
		} else if holds(n) != want {
			t.Errorf("%s: %v, want %v", filters, !want, want)
		}
	}
	for _, filter := range []string{"until=soon", "name=x", "label"} {
		if _, err := a.pruneFilter([]string{filter}); err == nil {
			t.Errorf("%s is taken", filter)
		}
	}
}
