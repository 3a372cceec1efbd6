package agent

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// TestVolumesAreTold: the node itself says what a volume was made with; a task's end of a tunnel does not.
func TestVolumesAreTold(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		db := l.swarm.service("db", func(r *v1.ServiceRevisionSpec) {
			r.Task.Container.Mounts = []v1.Mount{{Type: v1.MountVolume, Source: "data", Target: "/data",
				Volume: &v1.VolumeOptions{Labels: map[string]string{"own": "{{.Service.Name}}"}}}}
		})
		l.swarm.assign("t1", db, v1.TaskRunning)
		l.start(nil)
		settle(5 * time.Second)
		ask := func(of, name string) (string, v1.TunnelEnd) {
			to := l.userOf(v1.StreamRequest{Task: of})
			defer to.Close()
			go func() {
				_ = v1.WriteFrameJSON(to, v1.FrameStart, v1.TunnelStart{InspectVolume: &v1.InspectVolumeStart{Name: name}})
			}()
			return said(t, to)
		}
		answer, end := ask(v1.NodeItself, "data")
		var v v1.NodeVolume
		if err := json.Unmarshal([]byte(answer), &v); err != nil || end != (v1.TunnelEnd{}) {
			t.Fatalf("%q, %+v: %v", answer, end, err)
		}
		if v.Name != "data" || v.Labels["own"] != "db" || v.Mountpoint != "/volumes/data" || v.CreatedAt.IsZero() {
			t.Errorf("the volume is %+v", v)
		}
		if answer, end := ask(v1.NodeItself, "other"); answer != "" || !strings.Contains(end.Error, "no such volume") {
			t.Errorf("one that is not there: %q, %+v", answer, end)
		}
		if answer, end := ask("t1", "data"); answer != "" || !end.Invalid {
			t.Errorf("asked of a task: %q, %+v", answer, end)
		}
	})
}

// TestVolumesAreRemoved: the one that the manager says, if no container has it; and the node tells what it has left.
func TestVolumesAreRemoved(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		db := l.swarm.service("db", func(r *v1.ServiceRevisionSpec) {
			r.Task.Container.Mounts = []v1.Mount{{Type: v1.MountVolume, Source: "data", Target: "/data"}}
		})
		l.swarm.assign("t1", db, v1.TaskRunning)
		l.start(nil)
		settle(5 * time.Second)
		l.want("t1", v1.TaskRunning)
		remove := func(may, name string) v1.TunnelEnd {
			to := l.userOf(v1.StreamRequest{Task: v1.NodeItself, Volume: may})
			defer to.Close()
			go func() {
				_ = v1.WriteFrameJSON(to, v1.FrameStart, v1.TunnelStart{RemoveVolume: &v1.RemoveVolumeStart{Name: name}})
			}()
			_, end := said(t, to)
			return end
		}
		check := func(may string) v1.TunnelEnd {
			to := l.userOf(v1.StreamRequest{Task: v1.NodeItself, Volume: may})
			defer to.Close()
			go func() {
				_ = v1.WriteFrameJSON(to, v1.FrameStart, v1.TunnelStart{CheckVolume: &v1.CheckVolumeStart{Name: "data"}})
			}()
			_, end := said(t, to)
			return end
		}
		if end := check("data"); !strings.Contains(end.Error, "volume is in use - [t1]") {
			t.Errorf("asked whether one goes that a container has: %+v", end)
		}
		if end := check("other"); !end.Invalid {
			t.Errorf("asked about another volume: %+v", end)
		}
		if end := remove("data", "data"); !strings.Contains(end.Error, "volume is in use - [t1]") {
			t.Errorf("one that a container has: %+v", end)
		}
		for _, c := range [][2]string{{"", "data"}, {"other", "data"}, {"", ""}} {
			if end := remove(c[0], c[1]); !end.Invalid || !strings.Contains(end.Error, "not for the removal of this volume") {
				t.Errorf("%q where %q may be: %+v", c[1], c[0], end)
			}
		}
		l.swarm.desire("t1", v1.TaskRemove)
		settle(15 * time.Second)
		if end := check("data"); end != (v1.TunnelEnd{}) {
			t.Errorf("asked whether one goes that nobody has: %+v", end)
		}
		if has := l.agent.describe().Volumes; !slices.Equal(has, []string{"data"}) {
			t.Errorf("without its task the node has %v", has)
		}
		if end := remove("data", "data"); end != (v1.TunnelEnd{}) {
			t.Errorf("one that nobody has: %+v", end)
		}
		if has := l.agent.describe().Volumes; len(has) != 0 {
			t.Errorf("after the removal the node has %v", has)
		}
		if end := remove("data", "data"); end != (v1.TunnelEnd{}) {
			t.Errorf("one that is gone: %+v", end)
		}
	})
}
