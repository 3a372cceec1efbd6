package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
)

// period is that of the tests' heartbeats.
const period = 5 * time.Millisecond

// manager is the server's end of sessions.
type manager struct {
	t *testing.T
	// do is what it does with the n-th session, from 1, after the first line. Without it, it answers heartbeats until the end.
	do func(n int32, s *served)

	sessions atomic.Int32
	ends     chan error // how each session's body ended; io.EOF is in order
}

// served is one session as the server has it.
type served struct {
	t     *testing.T
	first v1.SessionLine
	lines *bufio.Reader
	w     http.ResponseWriter
	r     *http.Request
}

func (m *manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/nodes/n1/session" {
		http.NotFound(w, r)
		return
	}
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		m.t.Error(err)
	}
	s := &served{t: m.t, lines: bufio.NewReader(r.Body), w: w, r: r}
	n := m.sessions.Add(1)
	text, err := s.lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(text, &s.first)
	}
	if err != nil || s.first.Description == nil {
		m.t.Errorf("a session begins with %q: %v", text, err)
		return
	}
	if m.do != nil {
		m.do(n, s)
		return
	}
	s.say(v1.Assignment{Revision: 1, Complete: true, Swarm: news(period)})
	m.ends <- s.answer(nil)
}

func news(every time.Duration) *v1.SwarmNews { return &v1.SwarmNews{Heartbeat: v1.Duration(every)} }

func (s *served) say(a v1.Assignment) {
	if err := json.NewEncoder(s.w).Encode(a); err != nil {
		s.t.Error(err)
	}
	s.flush()
}

func (s *served) flush() { _ = http.NewResponseController(s.w).Flush() }

// answer answers heartbeats until the body ends, and shows each line to look.
func (s *served) answer(look func(line string)) error {
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return err
		}
		if look != nil {
			look(strings.TrimSpace(line))
		}
		io.WriteString(s.w, "\n")
		s.flush()
	}
}

// both runs a test over TLS, which is HTTP/2, and over a socket, which is HTTP/1.1.
func both(t *testing.T, test func(t *testing.T, m *manager, c *Client)) {
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		m := &manager{t: t, ends: make(chan error, 8)}
		s := newSwarm(t)
		_, addr := s.manager(m.ServeHTTP)
		test(t, m, s.client(addr))
	})
	t.Run("socket", func(t *testing.T) {
		t.Parallel()
		m := &manager{t: t, ends: make(chan error, 8)}
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(m)
		server.Listener.Close()
		server.Listener = l
		server.Start()
		t.Cleanup(server.Close)
		c, err := New("unix://" + path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		test(t, m, c)
	})
}

func describe(hostname string) func() v1.NodeDescription {
	return func() v1.NodeDescription { return v1.NodeDescription{Hostname: hostname} }
}

// last runs a session to its end and returns the error that it ends with.
func last(assignments iter.Seq2[v1.Assignment, error]) (n int, err error) {
	for _, err = range assignments {
		n++
	}
	return n, err
}

// TestSession: heartbeats go up and are answered for as long as the session lasts, and a description that changed goes with them. How
// long the daemon took to start is told from the first line on.
func TestSession(t *testing.T) {
	both(t, func(t *testing.T, m *manager, c *Client) {
		const startup = v1.Duration(1200 * time.Millisecond)
		c.options.Startup = func() time.Duration { return time.Duration(startup) }
		var name atomic.Pointer[string]
		set := func(s string) { name.Store(&s) }
		set("one")
		var mu sync.Mutex
		var told []string
		m.do = func(_ int32, s *served) {
			if s.first.Description.Hostname != "one" || s.first.Startup != startup || s.r.Method != http.MethodPost {
				t.Errorf("%s with %+v", s.r.Method, s.first)
			}
			s.say(v1.Assignment{Revision: 1, Complete: true, Swarm: news(period)})
			beats := 0
			m.ends <- s.answer(func(line string) {
				if line != "" {
					mu.Lock()
					told = append(told, line)
					mu.Unlock()
				}
				switch beats++; beats {
				case 5:
					set("two")
				case 15:
					set("three")
				case 25:
					s.say(v1.Assignment{Revision: 2})
				}
			})
		}
		var revisions []int64
		for a, err := range c.Node("n1").Session(t.Context(), func() v1.NodeDescription { return v1.NodeDescription{Hostname: *name.Load()} }) {
			if err != nil {
				t.Fatal(err)
			}
			revisions = append(revisions, a.Revision)
			if a.Revision == 2 {
				break
			}
		}
		if err := <-m.ends; err != io.EOF {
			t.Errorf("the caller ended the session, and its body ended with %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		var names []string
		for _, line := range told {
			var l v1.SessionLine
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Error(err)
			}
			names = append(names, l.Description.Hostname)
		}
		if !slices.Equal(names, []string{"two", "three"}) || !slices.Equal(revisions, []int64{1, 2}) {
			t.Errorf("told %v, got revisions %v", names, revisions)
		}
	})
}

// TestSessionEndsInOrder: with its caller's context, and the manager is told so by the end of the body.
func TestSessionEndsInOrder(t *testing.T) {
	both(t, func(t *testing.T, m *manager, c *Client) {
		why := errors.New("the daemon stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		n := 0
		for a, err := range c.Node("n1").Session(ctx, describe("x")) {
			if n++; n == 1 {
				if err != nil || !a.Complete {
					t.Fatalf("%+v %v", a, err)
				}
				cancel(why)
				continue
			}
			if !errors.Is(err, why) {
				t.Errorf("%v, want the context's cause", err)
			}
		}
		if err := <-m.ends; err != io.EOF || n != 2 {
			t.Errorf("%d yields, and the body ended with %v", n, err)
		}
		if _, err := last(c.Node("n1").Session(ctx, describe("x"))); !errors.Is(err, why) {
			t.Errorf("with an ended context: %v", err)
		}
	})
}

// TestSessionOfASlowCaller: heartbeats go on while the caller works, and time that it takes is not the manager's silence.
func TestSessionOfASlowCaller(t *testing.T) {
	both(t, func(t *testing.T, m *manager, c *Client) {
		beats := make(chan struct{}, 1000)
		m.do = func(_ int32, s *served) {
			s.say(v1.Assignment{Revision: 1, Complete: true, Swarm: news(period)})
			m.ends <- s.answer(func(string) { beats <- struct{}{} })
		}
		for _, err := range c.Node("n1").Session(t.Context(), describe("x")) {
			if err != nil {
				t.Fatal(err)
			}
			for range 50 {
				<-beats
			}
			break
		}
		<-m.ends
	})
}

// TestSilentManager: a manager that says nothing any more loses the session, and the next one is opened elsewhere.
func TestSilentManager(t *testing.T) {
	both(t, func(t *testing.T, m *manager, c *Client) {
		m.do = func(_ int32, s *served) {
			s.say(v1.Assignment{Revision: 1, Complete: true, Swarm: news(period)})
			_, err := io.Copy(io.Discard, s.lines) // hears, and does not answer
			m.ends <- err
		}
		n, err := last(c.Node("n1").Session(t.Context(), describe("x")))
		if refused(t, err, "has been silent for "+minGrace.String()); n != 2 {
			t.Errorf("%d yields, want one and the error", n)
		}
		if err := <-m.ends; err == nil {
			t.Error("the manager was told of an end in order, after it had been given up")
		}
	})
}

// TestSessionGoesElsewhere: a lost connection ends the session, and the next is with a manager that is there. What a manager asks to
// be streamed goes to the one that holds the session, wherever other requests go.
func TestSessionGoesElsewhere(t *testing.T) {
	s := newSwarm(t)
	first, second := &manager{t: t, ends: make(chan error, 8)}, &manager{t: t, ends: make(chan error, 8)}
	streamed := make(chan string, 1)
	serverA, a := s.manager(first.ServeHTTP)
	_, b := s.manager(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/nodes/n1/streams/") {
			io.Copy(io.Discard, r.Body)
			streamed <- r.URL.Path
			return
		}
		second.ServeHTTP(w, r)
	})
	_, other := s.manager(func(http.ResponseWriter, *http.Request) { t.Error("another manager was asked") })
	c := s.client(a, b)
	node := c.Node("n1")
	for _, err := range node.Session(t.Context(), describe("x")) {
		if err != nil {
			break
		}
		serverA.CloseClientConnections()
		serverA.Listener.Close()
	}
	<-first.ends
	for _, err := range node.Session(t.Context(), describe("x")) {
		if err != nil {
			t.Fatal(err)
		}
		c.SetHosts([]string{other})
		if err := c.Node("n1").Stream(t.Context(), "s1", func(func(v1.LogRecord, error) bool) {}); err != nil {
			t.Error(err)
		}
		break
	}
	if got := <-streamed; got != "/v1/nodes/n1/streams/s1" {
		t.Error(got)
	}
	if err := <-second.ends; err != io.EOF || second.sessions.Load() != 1 {
		t.Errorf("%d sessions, %v", second.sessions.Load(), err)
	}
}

// TestSessionsThatAreRefused: what the manager says ends it, at the beginning or later.
func TestSessionsThatAreRefused(t *testing.T) {
	both(t, func(t *testing.T, m *manager, c *Client) {
		m.do = func(n int32, s *served) {
			switch n {
			case 1:
				s.w.Header().Set("Content-Type", "application/problem+json")
				s.w.WriteHeader(http.StatusNotFound)
				fmt.Fprint(s.w, `{"title":"Not Found","detail":"this node was removed from the swarm"}`)
			case 2:
				s.say(v1.Assignment{Revision: 1, Complete: true})
				fmt.Fprintln(s.w, `{"problem":{"title":"Conflict","status":409,"detail":"a newer session"}}`)
			case 3:
				s.say(v1.Assignment{Revision: 1, Complete: true})
			case 4:
				fmt.Fprintln(s.w, `{"revision":"one"}`)
			}
		}
		for n, want := range []struct {
			yields, status int
			text           string
		}{{1, 404, "removed from the swarm"}, {2, 409, "a newer session"}, {2, 0, errStopped.Error()}, {1, 0, "cannot unmarshal"}} {
			yields, err := last(c.Node("n1").Session(t.Context(), describe("x")))
			if refused(t, err, want.text); yields != want.yields || Status(err) != want.status {
				t.Errorf("session %d: %d yields, %v", n+1, yields, err)
			}
		}
	})
}

// TestSessionsLeaveNothing: no goroutine outlives its session, however that ended.
func TestSessionsLeaveNothing(t *testing.T) {
	s := newSwarm(t)
	m := &manager{t: t, ends: make(chan error, 100)}
	m.do = func(n int32, s *served) {
		s.say(v1.Assignment{Revision: 1, Complete: true, Swarm: news(period)})
		if n%3 == 0 {
			panic(http.ErrAbortHandler)
		}
		s.answer(nil)
	}
	var open sync.WaitGroup // connections
	server := httptest.NewUnstartedServer(m)
	server.TLS, server.EnableHTTP2, server.Config.ErrorLog = s.identity("m1", ca.RoleManager).ServerTLS(), true, quiet
	server.Config.ConnState = func(_ net.Conn, to http.ConnState) {
		switch to {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed:
			open.Done()
		}
	}
	server.StartTLS()
	addr := server.Listener.Addr().String()
	c := s.client(addr, nobody(t))
	before := goleak.IgnoreCurrent()
	defer goleak.VerifyNone(t, before)
	defer server.Close()
	for n := range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		for range c.Node("n1").Session(ctx, describe("x")) {
			switch n % 3 {
			case 0:
				cancel()
				continue
			case 2:
				continue
			}
			break
		}
		cancel()
	}
	c.Close()
	closed := make(chan struct{})
	go func() {
		open.Wait()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(30 * time.Second): // they would end by themselves after 90
		t.Error("connections stay open after their sessions")
	}
}
