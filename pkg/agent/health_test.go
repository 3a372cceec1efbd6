package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// patient is a program in a container whose health the test decides.
type patient struct {
	mu     sync.Mutex
	code   int
	output string
	err    error
	hangs  bool
	asked  []time.Time
}

func (p *patient) exec(context.Context, engine.Container, []string) (engine.ExecResult, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, time.Now())
	return engine.ExecResult{ExitCode: p.code, Output: []byte(p.output)}, p.err
}

func (p *patient) set(code int, output string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.code, p.output, p.err = code, output, err
}

func (p *patient) times() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

// sick is a lab with a service whose health check is a command.
func sick(t *testing.T, p *patient, change func(*v1.Healthcheck)) (*lab, string) {
	l := newLab(t, engine.FakeOptions{Exec: p.exec, Delay: func(op engine.FakeOp, _ string) time.Duration {
		p.mu.Lock()
		defer p.mu.Unlock()
		if op == engine.FakeExec && p.hangs {
			return time.Hour
		}
		return 0
	}})
	return l, l.swarm.service("web", func(s *v1.ServiceRevisionSpec) {
		s.Task.Container.Healthcheck = &v1.Healthcheck{Test: []string{"CMD", "check"}, Interval: v1.Duration(10 * time.Second), Retries: 2}
		s.Endpoint = &v1.EndpointSpec{Ports: []v1.PortConfig{{Target: 80, Published: 8080}}}
		if change != nil {
			change(s.Task.Container.Healthcheck)
		}
	})
}

// leads tells whether the published port leads to a task.
func (l *lab) leads() bool {
	for _, p := range l.net.config().Published {
		if len(p.Backends) > 0 {
			return true
		}
	}
	return false
}

func TestHealthGatesRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{code: 1, output: "not\nyet"}
		l, web := sick(t, p, func(h *v1.Healthcheck) {
			h.StartPeriod, h.StartInterval = v1.Duration(time.Minute), v1.Duration(2*time.Second)
		})
		l.start(nil)
		l.swarm.assign("a", web, v1.TaskRunning)
		settle(time.Second)
		if s := l.want("a", v1.TaskStarting); s.Message != "waiting for the health check" || l.leads() {
			t.Errorf("a task whose health is not known: %+v, traffic: %v", s, l.leads())
		}
		settle(30 * time.Second) // failures in the start period do not count
		if s := l.want("a", v1.TaskStarting); s.Err != "health check failed: exit code 1: not yet" || p.times() < 10 {
			t.Errorf("asked %d times, and it says %+v", p.times(), s)
		}
		p.set(0, "", nil)
		settle(3 * time.Second)
		if s := l.want("a", v1.TaskRunning); s.Err != "" || !l.leads() {
			t.Errorf("a healthy task: %+v, traffic: %v", s, l.leads())
		}
		asked := p.times()
		settle(21 * time.Second)
		if now := p.times(); now != asked+2 {
			t.Errorf("asked %d times in 21 s, want each 10 s", now-asked)
		}
		l.wantHistory("a", v1.TaskStarting, v1.TaskRunning)
		l.stop()
	})
}

func TestUnhealthyIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(patient)
		l, web := sick(t, p, nil)
		l.start(nil)
		l.swarm.assign("a", web, v1.TaskRunning)
		settle(11 * time.Second)
		l.want("a", v1.TaskRunning)
		p.set(3, "database is gone", nil)
		settle(10 * time.Second) // one failure of two
		if s := l.want("a", v1.TaskRunning); s.Unhealthy || !l.leads() {
			t.Errorf("after one failure: %+v, traffic: %v", s, l.leads())
		}
		settle(10 * time.Second)
		want := "task: unhealthy container: health check failed 2 times in a row: exit code 3: database is gone"
		if s := l.want("a", v1.TaskFailed); s.Err != want || !s.Unhealthy || *s.Container.ExitCode != 143 || l.leads() {
			t.Errorf("after two failures: %+v, traffic: %v", s, l.leads())
		}
		l.stop()
	})
}

// TestUnhealthyInGrace has a process that takes its time to stop: nothing leads to it meanwhile, and a restart of the agent
// makes no difference.
func TestUnhealthyInGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{code: 1}
		l, web := sick(t, p, func(h *v1.Healthcheck) { h.Retries = 1 })
		l.fake = engine.NewFake(engine.FakeOptions{Exec: p.exec, Process: func(engine.Container) engine.FakeProcess { return engine.FakeProcess{Deaf: true} }})
		p.set(0, "", nil)
		l.start(nil)
		l.swarm.assign("a", web, v1.TaskRunning)
		settle(11 * time.Second)
		p.set(1, "", nil)
		settle(11 * time.Second)
		if s := l.want("a", v1.TaskRunning); !s.Unhealthy || l.leads() {
			t.Errorf("while it stops: %+v, traffic: %v", s, l.leads())
		}
		l.stop()
		l.start(nil)
		p.set(0, "", nil)
		settle(5 * time.Second)
		if l.want("a", v1.TaskRunning); l.leads() {
			t.Error("after a restart of the agent there is traffic to an unhealthy task")
		}
		settle(15 * time.Second)
		if s := l.want("a", v1.TaskFailed); !strings.HasPrefix(s.Err, "task: unhealthy container: health check failed once: exit code 1") {
			t.Errorf("it ended: %+v", s)
		}
		l.stop()
	})
}

// TestHealthOutlivesTheAgent restarts the agent of a healthy task: traffic goes on without a check, and checks go on.
func TestHealthOutlivesTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(patient)
		l, web := sick(t, p, nil)
		l.start(nil)
		l.swarm.assign("a", web, v1.TaskRunning)
		settle(11 * time.Second)
		l.want("a", v1.TaskRunning)
		l.stop()
		p.set(1, "", nil)
		l.start(nil)
		settle(time.Second)
		if l.want("a", v1.TaskRunning); !l.leads() {
			t.Error("a restart of the agent took the traffic away")
		}
		settle(25 * time.Second)
		l.want("a", v1.TaskFailed)
		l.stop()
	})
}

func TestHealthCheckThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{hangs: true}
		l, web := sick(t, p, func(h *v1.Healthcheck) { h.Timeout = v1.Duration(3 * time.Second) })
		l.start(nil)
		l.swarm.assign("a", web, v1.TaskRunning)
		settle(27 * time.Second)
		if s := l.want("a", v1.TaskFailed); !strings.HasSuffix(s.Err, "failed 2 times in a row: timed out after 3s") {
			t.Errorf("it ended: %+v", s)
		}
		l.stop()
	})
}

// TestHealthThatCannotBeAsked has a runtime that fails: that is not the task's fault. A command that is not there is.
func TestHealthThatCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{err: errors.New("the runtime is tired")}
		l, web := sick(t, p, nil)
		l.start(nil)
		l.swarm.assign("a", web, v1.TaskRunning)
		settle(time.Minute)
		l.want("a", v1.TaskStarting)
		p.set(0, "", engine.ErrInvalid)
		settle(time.Minute)
		l.want("a", v1.TaskFailed)
		l.stop()
	})
}

// TestUnhealthyAlone has no manager in reach: the task is started again in place, and healthy again.
func TestUnhealthyAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(patient)
		l, web := sick(t, p, nil)
		l.start(nil)
		l.swarm.assign("a", web, v1.TaskRunning)
		settle(11 * time.Second)
		l.swarm.leave(true)
		p.set(1, "", nil)
		settle(25 * time.Second)
		p.set(0, "", nil)
		settle(20 * time.Second)
		l.swarm.leave(false)
		settle(20 * time.Second)
		s := l.want("a", v1.TaskRunning)
		if s.Alone == nil || s.Alone.Count != 1 || !strings.Contains(s.Message, "unhealthy container") || s.Unhealthy || !l.leads() {
			t.Errorf("after a restart in place: %+v, %+v, traffic: %v", s, s.Alone, l.leads())
		}
		l.stop()
	})
}

// TestManyChecks has more tasks than checks are made at once, all of which hang: all get their turn.
func TestManyChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &patient{hangs: true}
		l, web := sick(t, p, func(h *v1.Healthcheck) { h.Timeout = v1.Duration(time.Second) })
		l.start(nil)
		for i := range 3 * maxChecks {
			l.swarm.assign("task"+string(rune('A'+i%26))+string(rune('a'+i/26)), web, v1.TaskRunning)
		}
		settle(40 * time.Second)
		l.swarm.mu.Lock()
		for id, s := range l.swarm.status {
			if s.State != v1.TaskFailed {
				t.Errorf("task %s is %s, want failed", id, s.State)
			}
		}
		l.swarm.mu.Unlock()
		l.stop()
	})
}

// TestProbes asks pages and ports through the network.
func TestProbes(t *testing.T) {
	a := New(Options{Network: newNetwork()})
	server := func(answer string) func(context.Context, string, string, string) (net.Conn, error) {
		return func(_ context.Context, task, network, address string) (net.Conn, error) {
			if task != "a" || network != "tcp" || address != "127.0.0.1:8080" {
				return nil, errors.New("dialed " + address + " in " + task)
			}
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				request := make([]byte, 4096)
				n, _ := far.Read(request)
				if !strings.HasPrefix(string(request[:n]), "GET /healthz?full=1 HTTP/1.1\r\nHost: localhost:8080\r\n") {
					answer = "HTTP/1.1 400 Bad Request\r\n\r\n" + string(request[:n])
				}
				_, _ = io.WriteString(far, answer)
			}()
			return near, nil
		}
	}
	page := &v1.Healthcheck{HTTP: &v1.HTTPProbe{Port: 8080, Path: "/healthz?full=1"}}
	for name, test := range map[string]struct {
		check  *v1.Healthcheck
		answer string
		want   string
	}{
		"page":           {page, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		"redirect":       {page, "HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", ""},
		"error":          {page, "HTTP/1.1 503 Service Unavailable\r\n\r\nno\n database\n", "503 Service Unavailable: no database"},
		"endless page":   {page, "HTTP/1.1 500 Oops\r\n\r\n" + strings.Repeat("x", 1<<20), "500 Oops: " + strings.Repeat("x", maxProbeOutput)},
		"endless header": {page, "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 1<<20), "header"},
		"no HTTP":        {page, "220 mail\r\n\r\n", "malformed HTTP"},
		"port":           {&v1.Healthcheck{TCP: &v1.TCPProbe{Port: 8080}}, "", ""},
		"other port":     {&v1.Healthcheck{TCP: &v1.TCPProbe{Port: 81}}, "", "dialed 127.0.0.1:81 in a"},
	} {
		a.o.Network.(*network).dial = server(test.answer)
		err := a.probeOf("a", test.check)(t.Context())
		switch {
		case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
}
