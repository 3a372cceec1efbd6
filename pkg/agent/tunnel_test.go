package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// piped is an end of a tunnel in memory.
type piped struct{ net.Conn }

// CloseWrite implements v1.Tunnel.
func (p piped) CloseWrite() error { return nil }

// user asks for a tunnel to a task, and is its other end.
func (l *lab) user(task string) net.Conn { return l.userOf(v1.StreamRequest{Task: task}) }

func (l *lab) userOf(r v1.StreamRequest) net.Conn {
	here, there := net.Pipe()
	l.swarm.tunnelled = func(string) (v1.Tunnel, error) { return piped{there}, nil }
	r.ID, r.Tunnel = v1.NewID(), true
	l.swarm.send(v1.Assignment{Streams: []v1.StreamRequest{r}})
	return here
}

// streams is how many the agent has open.
func (l *lab) streams() int {
	n := make(chan int, 1)
	l.agent.post(func() { n <- len(l.agent.streams) })
	return <-n
}

// said is all that comes until the end, and the end.
func said(t *testing.T, from io.Reader) (output string, end v1.TunnelEnd) {
	t.Helper()
	for {
		kind, data, err := v1.ReadFrame(from)
		if err != nil {
			t.Fatalf("after %q: %v", output, err)
		}
		if kind == v1.FrameEnd {
			if err := json.Unmarshal(data, &end); err != nil {
				t.Fatal(err)
			}
			return output, end
		}
		output += string(data)
	}
}

// TestTunnelExec runs commands that users ask for.
func TestTunnelExec(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		settle(5 * time.Second)
		l.want("t1", v1.TaskRunning)
		to := l.user("t1")
		go func() {
			_ = v1.WriteFrameJSON(to, v1.FrameStart, v1.TunnelStart{Exec: &v1.ExecStart{Command: []string{"cat"}, Stdin: true}})
			for i := range 100 {
				_ = v1.WriteFrameJSON(to, v1.FrameSize, v1.WindowSize{Rows: uint16(i)})
				_ = v1.WriteFrame(to, v1.FrameInput, fmt.Appendf(nil, "line %d\n", i))
			}
			_ = v1.WriteFrame(to, v1.FrameInput, nil)
		}()
		output, end := said(t, to)
		if end.ExitCode == nil || *end.ExitCode != 0 || strings.Count(output, "\n") != 100 {
			t.Errorf("%+v after %d bytes", end, len(output))
		}
		to.Close()
		for name, try := range map[string]struct {
			task, start, says string
		}{
			"a task that does not run": {"t9", `{"exec":{"command":["cat"]}}`, "does not run"},
			"no command":               {"t1", `{"exec":{"command":[]}}`, "a command has from 1"},
			"nothing":                  {"t1", `{}`, "does not know what"},
			"no JSON":                  {"t1", `{`, "read what the tunnel is for"},
		} {
			to := l.user(try.task)
			go func() { _ = v1.WriteFrame(to, v1.FrameStart, []byte(try.start)) }()
			if _, end := said(t, to); !strings.Contains(end.Error, try.says) {
				t.Errorf("%s: %+v", name, end)
			}
			to.Close()
		}
		settle(time.Minute)
		if n := l.streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

// TestTunnelUserIsGone: a command whose user is gone, or never says what they want, does not stay.
func TestTunnelUserIsGone(t *testing.T) {
	begun := make(chan struct{}, 1)
	o := engine.FakeOptions{Exec: func(ctx context.Context, _ engine.Container, _ []string) (engine.ExecResult, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return engine.ExecResult{}, ctx.Err()
	}}
	bubble(t, o, func(t *testing.T, l *lab) {
		web := l.swarm.service("web", nil)
		l.swarm.assign("t1", web, v1.TaskRunning)
		l.start(nil)
		settle(5 * time.Second)
		to := l.user("t1")
		if err := v1.WriteFrameJSON(to, v1.FrameStart, v1.TunnelStart{Exec: &v1.ExecStart{Command: []string{"sleep"}}}); err != nil {
			t.Fatal(err)
		}
		<-begun
		to.Close()
		silent := l.user("t1")
		defer silent.Close()
		settle(time.Minute)
		if n := l.streams(); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	})
}

// TestImageTunnelIsForImages: another node that was led here for an image gets no command run, and nothing of a task that is not here.
func TestImageTunnelIsForImages(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.assign("t1", l.swarm.service("web", nil), v1.TaskRunning)
		l.swarm.assign("t3", l.swarm.service("web", nil), v1.TaskRunning)
		l.start(nil)
		settle(time.Second)
		l.want("t1", v1.TaskRunning)
		l.swarm.desire("t3", v1.TaskShutdown) // which leaves its image here
		settle(time.Minute)
		l.want("t3", v1.TaskShutdown)
		for _, test := range []struct {
			task  string
			start v1.TunnelStart
			want  string
		}{
			{"t1", v1.TunnelStart{Exec: &v1.ExecStart{Command: []string{"cat"}, Stdin: true}}, "for parts of an image alone"},
			{"t1", v1.TunnelStart{Forward: &v1.ForwardStart{Port: 80}}, "for parts of an image alone"},
			{"t1", v1.TunnelStart{Blob: &v1.BlobStart{Digest: "sha256:1"}}, "sha256:1 of hello:1"},
			{"t2", v1.TunnelStart{Blob: &v1.BlobStart{Digest: "sha256:1"}}, "the task is not known here"},
			{"t3", v1.TunnelStart{Blob: &v1.BlobStart{Digest: "sha256:1"}}, "sha256:1 of hello:1"},
		} {
			here, there := net.Pipe()
			l.swarm.tunnelled = func(string) (v1.Tunnel, error) { return piped{there}, nil }
			l.swarm.send(v1.Assignment{Streams: []v1.StreamRequest{{ID: v1.NewID(), Task: test.task, Image: true}}})
			go func() { _ = v1.WriteFrameJSON(here, v1.FrameStart, test.start) }()
			if output, end := said(t, here); output != "" || !strings.Contains(end.Error, test.want) {
				t.Errorf("%+v: %q, %+v, want %q", test.start, output, end, test.want)
			}
			here.Close()
			settle(time.Second)
		}
		if n := l.fake.Calls(engine.FakeExec); n != 0 || l.streams() != 0 {
			t.Errorf("%d commands were run, %d streams are open", n, l.streams())
		}
	})
}

// TestPeersAreAskedInTurn: where one node has a part of an image no more, the next is asked, until there are no more.
func TestPeersAreAskedInTurn(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.start(nil)
		settle(time.Second)
		asked := 0
		gives := func(last int) {
			asked = 0
			l.swarm.given = func(again int) (v1.Tunnel, error) {
				if asked++; again != asked-1 {
					t.Errorf("asked as if %d had been, and %d had", again, asked-1)
				}
				if again > 2 {
					return nil, errAway
				}
				here, there := net.Pipe()
				go func() {
					defer there.Close()
					end := v1.TunnelEnd{}
					if again == last {
						_ = v1.WriteFrame(there, v1.FrameOutput, []byte("part"))
					} else {
						end.Error = "not here"
					}
					_ = v1.WriteFrameJSON(there, v1.FrameEnd, end)
				}()
				return piped{here}, nil
			}
		}
		gives(2)
		from, err := l.agent.askPeers(t.Context(), "hello:1", "sha256:1")
		if err != nil {
			t.Fatal(err)
		}
		if data, err := io.ReadAll(from); err != nil || string(data) != "part" || asked != 3 {
			t.Errorf("%q, %v of %d nodes", data, err, asked)
		}
		from.Close()
		gives(-1)
		if _, err := l.agent.askPeers(t.Context(), "hello:1", "sha256:1"); err == nil || err.Error() != "not here" || asked != 4 {
			t.Errorf("%v of %d nodes, want what the last one says", err, asked)
		}
	})
}
