package daemon

import (
	"errors"
	"flag"
	"io"
	"maps"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// TestLabelFlag reads labels as they are given on the command line.
func TestLabelFlag(t *testing.T) {
	for _, c := range []struct {
		args []string
		want map[string]string
		bad  string
	}{
		{nil, nil, ""},
		{[]string{"--label", "disk=ssd", "--label", "zone=a,b", "--label", "note=x=y", "--label", "none="}, map[string]string{"disk": "ssd", "zone": "a,b", "note": "x=y", "none": ""}, ""},
		{[]string{"--label", "disk=ssd", "--label", "disk=ssd"}, map[string]string{"disk": "ssd"}, ""},
		{[]string{"--label", "disk=ssd", "--label", "disk=hdd"}, nil, `invalid value "disk=hdd" for flag -label: label disk is given twice, as "ssd" and as "hdd"`},
		{[]string{"--label", "disk"}, nil, `invalid value "disk" for flag -label: "disk" is no label: want KEY=VALUE`},
		{[]string{"--label", " =x"}, nil, `invalid value " =x" for flag -label: " =x" is no label: want KEY=VALUE`},
	} {
		var o Options
		flags := flag.NewFlagSet("swarmd", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		o.NodeFlags(flags)
		err := flags.Parse(c.args)
		switch {
		case c.bad != "" && (err == nil || err.Error() != c.bad):
			t.Errorf("%q: %v, want %s", c.args, err, c.bad)
		case c.bad == "" && (err != nil || !maps.Equal(o.Labels, c.want)):
			t.Errorf("%q: %q, %v; want %q", c.args, o.Labels, err, c.want)
		}
	}
}

// TestEngineLabels: a node tells the labels that its daemon was started with, and others once it is started with those.
func TestEngineLabels(t *testing.T) {
	h := newHost(t, "a")
	h.stop()
	for _, want := range []map[string]string{{"disk": "ssd", "zone": "a"}, {"disk": "hdd"}, nil} {
		h.labels = want
		h.start()
		if want["zone"] != "" {
			h.init()
		}
		eventually(t, "the node to tell its labels", func() error {
			all, err := client.List(t.Context(), h.client, v1.Nodes, nil)
			if err != nil || len(all) != 1 || all[0].Status == nil {
				return errors.New("it is not there yet")
			}
			if got := all[0].Status.Description.Engine.Labels; !maps.Equal(got, want) {
				return errors.New("it has others")
			}
			constraint, err := v1.ParseConstraint("engine.labels.disk==ssd")
			if matches := constraint.Match(all[0]); err != nil || matches != (want["disk"] == "ssd") {
				t.Errorf("with %q it satisfies %s: %t", want, constraint, matches)
			}
			return nil
		})
		h.stop()
	}
}
