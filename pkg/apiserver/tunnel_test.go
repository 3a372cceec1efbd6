package apiserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
)

// answerTunnels is an agent that comes to every tunnel and does what the function says. What it returns tells of each that has ended.
func (a *agent) answerTunnels(do func(v1.Tunnel)) <-chan string {
	ended := make(chan string, 100)
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(a.ctx)
	all.Go(func() {
		for {
			m, err, ok := a.next()
			if err != nil || !ok {
				return
			}
			for _, r := range m.Streams {
				all.Go(func() {
					to, err := a.client.Node(a.name).Tunnel(ctx, r.ID)
					if err != nil || !r.Tunnel {
						a.Errorf("the node comes to %+v: %v", r, err)
						return
					}
					defer to.Close()
					do(to)
					ended <- r.Task
				})
			}
		}
	})
	a.Cleanup(func() { // before that of connect
		cancel()
		a.hangUp()
		all.Wait()
	})
	return ended
}

// echo answers each frame with the same, and the end of the input with an end.
func echo(to v1.Tunnel) {
	for {
		kind, data, err := v1.ReadFrame(to)
		if err != nil {
			return
		}
		if kind == v1.FrameInput && len(data) == 0 {
			_ = v1.WriteFrameJSON(to, v1.FrameEnd, v1.TunnelEnd{})
			_ = to.CloseWrite()
			_, _ = io.Copy(io.Discard, to)
			return
		}
		if err := v1.WriteFrame(to, kind, data); err != nil {
			return
		}
	}
}

// talk sends frames down a tunnel and wants them back, then ends it.
func talk(t *testing.T, to v1.Tunnel) {
	t.Helper()
	if kind, data, err := v1.ReadFrame(to); err != nil || kind != v1.FrameStart || !strings.Contains(string(data), `"port":80`) {
		t.Fatalf("the first frame came as %c %s, %v", kind, data, err)
	}
	for _, text := range []string{"one", strings.Repeat("long ", 13_000), "three"} {
		if err := v1.WriteFrame(to, v1.FrameInput, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if kind, data, err := v1.ReadFrame(to); err != nil || kind != v1.FrameInput || string(data) != text {
			t.Fatalf("%d bytes came back as %d, %v", len(text), len(data), err)
		}
	}
	if err := v1.WriteFrame(to, v1.FrameInput, nil); err != nil {
		t.Fatal(err)
	}
	if kind, _, err := v1.ReadFrame(to); err != nil || kind != v1.FrameEnd {
		t.Errorf("the end is %c, %v", kind, err)
	}
	if err := to.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v1.ReadFrame(to); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

var forward = v1.TunnelStart{Forward: &v1.ForwardStart{Port: 80}}

// TestTunnels leads users to tasks whose nodes are connected here and to another manager.
func TestTunnels(t *testing.T) {
	c := form(t)
	m2 := c.another()
	c.commit(taskOp("a", "s", "w1", "r", 1), taskOp("b", "s", "w2", "r", 2), statusOp("a", v1.TaskRunning, ""), statusOp("b", v1.TaskRunning, ""))
	for node, addr := range map[string]string{"w1": c.addr, "w2": m2.addr} {
		ended := c.agentAt(node, addr).answerTunnels(echo)
		task := map[string]string{"w1": "a", "w2": "b"}[node]
		for range 3 {
			to, err := c.client.Tunnel(c.ctx, task, forward)
			if err != nil {
				t.Fatal(err)
			}
			talk(t, to)
			to.Close()
			<-ended
		}
		to, err := c.client.Tunnel(c.ctx, task, forward)
		if err != nil {
			t.Fatal(err)
		}
		to.Close() // the user is gone
		<-ended
	}
}

// TestTunnelEndReachesWhoSends: a user who is sending when the node ends the tunnel reads the end, however late.
func TestTunnelEndReachesWhoSends(t *testing.T) {
	c := form(t)
	m2 := c.another()
	otto := c.operator("otto")
	c.commit(taskOp("a", "s", "w1", "r", 1), taskOp("b", "s", "w2", "r", 2), statusOp("a", v1.TaskRunning, ""), statusOp("b", v1.TaskRunning, ""))
	for node, addr := range map[string]string{"w1": c.addr, "w2": m2.addr} {
		c.agentAt(node, addr).answerTunnels(func(to v1.Tunnel) {
			_ = v1.WriteFrameJSON(to, v1.FrameEnd, v1.TunnelEnd{Error: "no such folder"})
			_ = to.CloseWrite()
			_, _ = io.Copy(io.Discard, to)
		})
		for name, user := range map[string]*client.Client{"by the socket": c.client, "over TLS": otto} {
			to, err := user.Tunnel(c.ctx, map[string]string{"w1": "a", "w2": "b"}[node], forward)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 200 { // more than any buffer on the way holds
				if err := v1.WriteFrame(to, v1.FrameInput, make([]byte, v1.MaxFrame)); err != nil {
					t.Errorf("%s %s: frame %d: %v", node, name, i, err)
					break
				}
			}
			if kind, data, err := v1.ReadFrame(to); err != nil || kind != v1.FrameEnd || !strings.Contains(string(data), "no such folder") {
				t.Errorf("%s %s: the end is %c %s, %v", node, name, kind, data, err)
			}
			to.Close()
		}
	}
}

// TestTunnelRefusals: what cannot be is said, and nothing waits for ever.
func TestTunnelRefusals(t *testing.T) {
	c := form(t, func(o *apiserver.Options) { o.Limits.StreamWait = 50 * time.Millisecond })
	c.commit(taskOp("a", "s", "w1", "r", 1), taskOp("b", "s", "w2", "r", 2), taskOp("c", "s", "demoted", "r", 3),
		statusOp("a", v1.TaskRunning, ""), statusOp("b", v1.TaskFailed, ""), statusOp("c", v1.TaskRunning, ""))
	c.agentAt("w1", c.addr) // which does not come
	for task, want := range map[string]struct {
		code int
		says string
	}{
		"a": {http.StatusGatewayTimeout, "node w1 did not answer within 50ms"},
		"b": {http.StatusConflict, "is not running: it is failed"},
		"c": {http.StatusServiceUnavailable, "node demoted is not available"},
		"d": {http.StatusNotFound, "d"},
	} {
		_, err := c.client.Tunnel(c.ctx, task, forward)
		if client.Status(err) != want.code || !strings.Contains(err.Error(), want.says) {
			t.Errorf("task %s: %v; want %d, %s", task, err, want.code, want.says)
		}
	}
	if _, err := c.client.Node("w1").Tunnel(c.ctx, "nothing"); client.Status(err) != http.StatusNotFound {
		t.Errorf("a node that comes to no meeting: %v", err)
	}
}

// TestTunnelRefusalIsHeard: who is refused is answered when they have said what they want, for on a connection that is closed before they might
// find no answer; and after a moment where they say nothing.
func TestTunnelRefusalIsHeard(t *testing.T) {
	f := serve(t)
	for _, says := range []bool{true, false} {
		conn, err := net.Dial("unix", f.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(conn, "POST /v1/tasks/none/tunnel HTTP/1.1\r\nHost: swarmd\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answered := make(chan string)
		go func() {
			line, _ := bufio.NewReader(conn).ReadString('\n')
			answered <- line
		}()
		var line string
		if says {
			select {
			case line = <-answered:
				t.Errorf("it was answered with %q before it said anything", line)
				continue
			case <-time.After(200 * time.Millisecond):
			}
			var start strings.Builder
			if err := v1.WriteFrameJSON(&start, v1.FrameStart, forward); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", start.Len(), start.String()); err != nil {
				t.Errorf("what it says: %v", err)
			}
		}
		if line = <-answered; !strings.HasPrefix(line, "HTTP/1.1 404 ") {
			t.Errorf("the answer begins with %q, want 404", line)
		}
	}
}

// operator is a user who may operate, over TLS.
func (c *cluster) operator(name string) *client.Client {
	c.Helper()
	if _, _, err := c.user(name, v1.UserOperate); err != nil {
		c.Fatal(err)
	}
	token, err := c.client.CreateUserToken(c.ctx, name, v1.UserTokenRequest{})
	if err != nil {
		c.Fatal(err)
	}
	roots, err := ca.UserTLS(nil, nil, c.cert)
	if err != nil {
		c.Fatal(err)
	}
	user, err := client.Dial(client.Options{Hosts: []string{c.addr}, TLS: roots, Token: token.Token})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(user.Close)
	return user
}

// TestTunnelEndsWithTheRight: a user who is removed is cut off, and so is the node's end.
func TestTunnelEndsWithTheRight(t *testing.T) {
	c := form(t, quick)
	c.commit(taskOp("a", "s", "w1", "r", 1), statusOp("a", v1.TaskRunning, ""))
	ended := c.agentAt("w1", c.addr).answerTunnels(echo)
	otto := c.operator("otto")
	to, err := otto.Tunnel(c.ctx, "a", forward)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	c.local().expect(http.StatusNoContent, "DELETE", "/v1/users/otto", "")
	<-ended
	for {
		if _, _, err := v1.ReadFrame(to); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error("it was not cut off")
			}
			return
		}
	}
}
