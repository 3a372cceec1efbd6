package apiserver_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
)

// from is a stranger at one of this machine's own addresses.
func (c *cluster) from(addr string) *someone {
	c.Helper()
	config, err := ca.UserTLS(nil, nil, c.cert)
	if err != nil {
		c.Fatal(err)
	}
	s := c.with(config, "")
	t := s.http.Transport.(*http.Transport)
	t.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}).DialContext
	t.ExpectContinueTimeout = patience
	return s
}

// dawdle makes a request whose body never ends, and returns when the server reads it, or has answered.
func (s *someone) dawdle(method, path string) (answered <-chan int) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	body, keep := io.Pipe()
	reading, code := make(chan struct{}), make(chan int, 1)
	trace := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got100Continue: func() { close(reading) }})
	req, err := http.NewRequestWithContext(trace, method, s.base+path, body)
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Expect", "100-continue")
	done := make(chan struct{})
	go func() {
		defer close(done)
		resp, err := s.http.Do(req)
		if err != nil {
			code <- 0
			return
		}
		resp.Body.Close()
		code <- resp.StatusCode
	}()
	s.Cleanup(func() { cancel(); keep.Close(); <-done })
	select {
	case <-reading:
	case <-done:
	}
	return code
}

// TestStrangersHoldUpNobody: however many callers without an identity send bodies that never end, everybody else is served, and so are
// strangers at other addresses, as long as there is a place for strangers.
func TestStrangersHoldUpNobody(t *testing.T) {
	var log bytes.Buffer
	c := form(t, func(o *apiserver.Options) {
		o.Limits.StrangerTimeout = patience
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	})
	token := c.joinToken(workerSecret)
	_, csr := c.request()
	crowd := c.from("127.0.0.2")
	for range 8 {
		crowd.dawdle("POST", "/v1/nodes/join")
	}
	crowd.expect(http.StatusTooManyRequests, "POST", "/v1/nodes/join", admission(token, csr), "too many requests of yours")
	crowd.expect(http.StatusOK, "GET", "/healthz", "")
	c.from("127.0.0.3").expect(http.StatusCreated, "POST", "/v1/nodes/join", admission(token, csr))
	for i := range 7 {
		for range 8 {
			c.from(fmt.Sprintf("127.0.0.%d", 10+i)).dawdle("POST", "/v1/nodes/join")
		}
	}
	stranger := c.from("127.0.0.3")
	stranger.expect(http.StatusTooManyRequests, "POST", "/v1/nodes/join", admission(token, csr), "at most 64")
	stranger.expect(http.StatusTooManyRequests, "GET", "/v1/swarm/roots", "")
	stranger.expect(http.StatusOK, "GET", "/healthz", "")
	c.local().expect(http.StatusOK, "GET", "/v1/services", "")
	c.local().expect(http.StatusOK, "GET", "/healthz", "")
	c.node("w1", ca.RoleWorker).expect(http.StatusOK, "POST", "/v1/nodes/w1/status", `{"tasks":[]}`)
	if _, _, err := c.user("vera", v1.UserView); err != nil {
		t.Fatal(err)
	}
	user, err := c.token("vera")
	if err != nil {
		t.Fatal(err)
	}
	c.as(nil, nil, user).expect(http.StatusOK, "GET", "/v1/services", "")
	if log.Len() > 0 {
		t.Errorf("logged as errors: %s", log.String())
	}
}

// TestStrangersAreBrief: a body of theirs has less time than others', and no more than a request for a certificate takes.
func TestStrangersAreBrief(t *testing.T) {
	c := form(t, func(o *apiserver.Options) {
		o.Limits.StrangerTimeout, o.Limits.BodyTimeout = 50*time.Millisecond, patience
	})
	worker := c.node("w1", ca.RoleWorker)
	worker.http.Transport.(*http.Transport).ExpectContinueTimeout = patience
	slow := worker.dawdle("POST", "/v1/nodes/w1/status")
	if got := <-c.from("127.0.0.2").dawdle("POST", "/v1/nodes/join"); got != http.StatusRequestTimeout {
		t.Errorf("a stranger: %d", got)
	}
	select {
	case got := <-slow:
		t.Errorf("a node: %d", got)
	default:
	}
	c.as(nil, nil, "").expect(http.StatusRequestEntityTooLarge, "POST", "/v1/nodes/join", strings.Repeat(" ", 64<<10+1))
}

// TestOneNodeHoldsUpNoOther: nor a user another, nor either root.
func TestOneNodeHoldsUpNoOther(t *testing.T) {
	c := form(t, func(o *apiserver.Options) { o.Limits.Requests = 40 })
	thief := c.node("w1", ca.RoleWorker)
	thief.http.Transport.(*http.Transport).ExpectContinueTimeout = patience
	for range 8 {
		thief.dawdle("POST", "/v1/nodes/w1/status")
	}
	thief.expect(http.StatusTooManyRequests, "POST", "/v1/nodes/w1/status", `{"tasks":[]}`, "of yours already")
	c.node("w2", ca.RoleWorker).expect(http.StatusOK, "POST", "/v1/nodes/w2/status", `{"tasks":[]}`)
	c.local().expect(http.StatusOK, "GET", "/v1/services", "")
}

// TestStreamsOfOneConnection: the server tells HTTP/2 clients how many requests one connection carries.
func TestStreamsOfOneConnection(t *testing.T) {
	c := form(t)
	conn, err := tls.Dial("tcp", c.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 9)
	if _, err := io.ReadFull(conn, head); err != nil || head[3] != 4 {
		t.Fatalf("%x, %v", head, err)
	}
	settings := make([]byte, int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(conn, settings); err != nil {
		t.Fatal(err)
	}
	for ; len(settings) >= 6; settings = settings[6:] {
		if id, n := binary.BigEndian.Uint16(settings), binary.BigEndian.Uint32(settings[2:]); id == 3 && n == 100 {
			return
		}
	}
	t.Error("streams are not bounded at 100")
}
