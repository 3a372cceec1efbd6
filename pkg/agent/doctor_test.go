package agent

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// examine asks a node itself, or a task, for an examination.
func (l *lab) examine(t *testing.T, of string, start v1.TunnelStart) (e v1.Examination, end v1.TunnelEnd) {
	t.Helper()
	to := l.user(of)
	defer to.Close()
	go func() { _ = v1.WriteFrameJSON(to, v1.FrameStart, start) }()
	output, end := said(t, to)
	for in := json.NewDecoder(strings.NewReader(output)); ; {
		var part v1.Examination
		if err := in.Decode(&part); err == io.EOF {
			return e, end
		} else if err != nil {
			t.Fatal(err)
		}
		e.Checks += part.Checks
		e.Findings = append(e.Findings, part.Findings...)
	}
}

// TestDoctor: what the network finds is told with the nodes' IDs, more than a frame holds and not without end, and by the node itself alone.
func TestDoctor(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		settle(5 * time.Second)
		l.want("t1", v1.TaskRunning)
		doctor := v1.TunnelStart{Doctor: &v1.DoctorStart{}}
		if e, end := l.examine(t, v1.NodeItself, doctor); end != (v1.TunnelEnd{}) || e.Checks != 7 || len(e.Findings) != 0 {
			t.Errorf("of a network that is well: %+v, %+v", e, end)
		}
		many := make([]netplugin.Finding, mostFindings+5)
		for i := range many {
			many[i] = netplugin.Finding{About: netplugin.AboutLink, Overlay: "net", Text: strings.Repeat("x", 500)}
		}
		l.net.mu.Lock()
		l.net.findings = many
		l.net.mu.Unlock()
		e, end := l.examine(t, v1.NodeItself, doctor)
		if end != (v1.TunnelEnd{}) || len(e.Findings) != mostFindings+1 || e.Findings[0].Check != v1.CheckLink || e.Findings[0].Network != "net" ||
			!strings.Contains(e.Findings[mostFindings].Text, "5 findings more") {
			t.Errorf("%d findings, %+v", len(e.Findings), end)
		}
		l.net.mu.Lock()
		l.net.findings, l.net.unseen = many[:1], errors.New("it takes longer than a minute")
		l.net.mu.Unlock()
		if e, end := l.examine(t, v1.NodeItself, doctor); end != (v1.TunnelEnd{}) || len(e.Findings) != 2 || !strings.Contains(e.Findings[0].Text, "cannot be examined wholly (it takes longer") {
			t.Errorf("of what was not looked at as a whole: %+v, %+v", e, end)
		}
		l.net.mu.Lock()
		l.net.findings = nil
		l.net.mu.Unlock()
		if _, end := l.examine(t, v1.NodeItself, doctor); end.Error != "it takes longer than a minute" {
			t.Errorf("of nothing that could be looked at: %+v", end)
		}
		if _, end := l.examine(t, "t1", doctor); !strings.Contains(end.Error, "by a node itself") {
			t.Errorf("by a task: %+v", end)
		}
		if _, end := l.examine(t, v1.NodeItself, v1.TunnelStart{Exec: &v1.ExecStart{Command: []string{"sh"}}}); !strings.Contains(end.Error, "does nothing else") {
			t.Errorf("a command of a node itself: %+v", end)
		}
	})
}
