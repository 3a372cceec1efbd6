package agent

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// TestChangesOutliveTheAgent: what changed since all was written is known after a restart, too, in whatever state the agent left its files.
func TestChangesOutliveTheAgent(t *testing.T) {
	changed := func(l *lab, gateway string) {
		l.swarm.mu.Lock()
		task := l.swarm.peers.Tasks[0]
		l.swarm.mu.Unlock()
		task.Gateway = gateway
		l.swarm.send(v1.Assignment{Revision: 50, Peers: &v1.Peers{Tasks: []v1.PeerTask{task}}})
		settle(3 * time.Second)
	}
	crash := func(l *lab) { l.agent.post(func() { l.agent.crashed.Store(true); l.agent.cancel() }) }
	appended := func(text string) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) {
			f, err := os.OpenFile(filepath.Join(l.dir, changesName), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteString(text); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		damage func(*testing.T, *lab)
		want   string
	}{
		{"as they are", func(*testing.T, *lab) {}, "100.64.9.4"},
		{"cut off", appended("0123 {"), "100.64.9.4"},
		{"of other peers", func(t *testing.T, l *lab) {
			path := filepath.Join(l.dir, changesName)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text[0] ^= 1
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "100.64.9.2"},
		{"not there", func(t *testing.T, l *lab) {
			if err := os.Remove(filepath.Join(l.dir, changesName)); err != nil {
				t.Fatal(err)
			}
		}, "100.64.9.2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
				backend(l)
				l.start(nil)
				settle(5 * time.Second)
				whole, err := os.ReadFile(filepath.Join(l.dir, peersName))
				if err != nil {
					t.Fatal(err)
				}
				changed(l, "100.64.9.3")
				changed(l, "100.64.9.4")
				if now, err := os.ReadFile(filepath.Join(l.dir, peersName)); err != nil || string(now) != string(whole) {
					t.Errorf("all peers were written again for one that changed: %v", err)
				}
				l.swarm.leave(true)
				crash(l)
				l.stop()
				c.damage(t, l)
				l.net.applied = netplugin.Config{}
				l.start(nil)
				settle(5 * time.Second)
				to := l.net.config().Published[0].Backends
				if want := netip.AddrPortFrom(netip.MustParseAddr(c.want), 80); !slices.Contains(to, want) || len(to) != 2 {
					t.Errorf("the port leads to %v, want %s among two", to, want)
				}
			})
		})
	}
}

// TestChangesAreWrittenAnew: a file of changes does not grow without end.
func TestChangesAreWrittenAnew(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		backend(l)
		l.start(nil)
		settle(5 * time.Second)
		largest := int64(0)
		for i := range 1000 {
			task := l.swarm.peers.Tasks[0]
			task.Gateway = fmt.Sprint("100.64.9.", 2+i%200)
			l.swarm.send(v1.Assignment{Revision: 50, Peers: &v1.Peers{Tasks: []v1.PeerTask{task}}})
			settle(1500 * time.Millisecond)
			info, err := os.Stat(filepath.Join(l.dir, changesName))
			if err != nil {
				t.Fatal(err)
			}
			largest = max(largest, info.Size())
		}
		if largest < leastChanges || largest > 2*leastChanges {
			t.Errorf("the file of changes grew to %d bytes", largest)
		}
	})
}
