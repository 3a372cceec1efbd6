package apiserver_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/store"
)

// second is another manager's server over the cluster's store.
type second struct {
	addr   string
	server *apiserver.Server
	http   *http.Server
	// stop takes the whole manager away; it may be called twice.
	stop func()
}

// another starts the server of manager m2, and writes down both as members.
func (c *cluster) another() *second {
	c.Helper()
	chain, key := c.certify("m2", ca.RoleManager)
	identity, err := ca.NewIdentity(chain, key, c.cert)
	if err != nil {
		c.Fatal(err)
	}
	m := &second{server: apiserver.New(apiserver.Options{Log: slog.New(slog.DiscardHandler)})}
	m.server.Attach(c.store, apiserver.Backing{Node: "m2", Identity: identity})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.Fatal(err)
	}
	m.addr = listener.Addr().String()
	m.http = apiserver.NewHTTPServer(m.server.Door(), slog.New(slog.DiscardHandler))
	served := make(chan struct{})
	go func() {
		defer close(served)
		m.http.Serve(tls.NewListener(listener, identity.ServerTLS()))
	}()
	m.stop = sync.OnceFunc(func() {
		m.http.Close()
		<-served
		m.server.Close()
	})
	c.Cleanup(m.stop)
	c.commit(c.memberOp("m1", c.addr), c.memberOp("m2", m.addr))
	return m
}

func (c *cluster) memberOp(id, addr string) store.Op {
	return store.Op{Kind: v1.KindMember, ID: id, Section: v1.SectionStatus, If: store.Always(), Meta: &v1.Meta{},
		Value: &v1.MemberStatus{MemberID: id, Addr: addr, Voter: true, Reachable: true}}
}

// agentAt connects a node to a manager over TLS.
func (c *cluster) agentAt(node, addr string) *agent {
	c.Helper()
	chain, key := c.certify(node, ca.RoleWorker)
	identity, err := ca.NewIdentity(chain, key, c.cert)
	if err != nil {
		c.Fatal(err)
	}
	cl, err := client.Dial(client.Options{Hosts: []string{addr}, TLS: identity.ClientTLS()})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(cl.Close)
	f := *c.fixture
	f.client = cl
	return f.connect(node)
}

// TestLogsOfAnotherManagersNodes: whichever manager is asked, it gives the output of all tasks.
func TestLogsOfAnotherManagersNodes(t *testing.T) {
	c := form(t)
	m2 := c.another()
	c.commit(taskOp("a", "s", "w1", "r", 1), taskOp("b", "s", "w1", "r", 2))
	a := c.agentAt("w1", m2.addr)
	a.answerLogs(hello)
	lines, failures := c.logs("tasks", "a", v1.LogOptions{Stdout: true, Stderr: true, Tail: 5, Since: time.Unix(100, 0)})
	want := []string{"web.1@w1 stdout: a line 0 tail 5 follow false", "web.1@w1 stdout: a line 1 tail 5 follow false", "web.1@w1 stdout: a line 2 tail 5 follow false"}
	if !slices.Equal(lines, want) || failures != nil {
		t.Errorf("got %q, %q", lines, failures)
	}
	if lines, failures := c.logs("tasks", "b", v1.LogOptions{Stdout: true, Tail: -1, Follow: true}); len(lines) != 3 || failures != nil {
		t.Errorf("following: %q, %q", lines, failures)
	}
}

// TestLogsOfAManagerThatIsGone: the user is told for each task why its output is missing, and does not wait for long.
func TestLogsOfAManagerThatIsGone(t *testing.T) {
	c := form(t)
	m2 := c.another()
	c.commit(taskOp("a", "s", "w1", "r", 1), taskOp("b", "s", "w2", "r", 2), taskOp("c", "s", "demoted", "r", 2))
	a := c.agentAt("w1", m2.addr)
	// A node whose session m2 does not know of any more, one at a manager that nobody knows, and one at this manager that is gone.
	c.commit(presenceAt("w2", "m2"), presenceAt("demoted", "m7"), presenceAt("m2", "m1"), taskOp("d", "s", "m2", "r", 2))
	for task, want := range map[string]string{
		"b": "manager m2, which node w2 is connected to, says: node w2 is not connected to this manager",
		"c": "node demoted is connected to manager m7, which this server cannot ask",
		"d": "node m2 is not available",
	} {
		if lines, failures := c.logs("tasks", task, v1.LogOptions{Stdout: true}); lines != nil || !slices.Equal(failures, []string{task + ": " + want}) {
			t.Errorf("%q, %q", lines, failures)
		}
	}
	a.answerLogs(func(ctx context.Context, _ v1.StreamRequest) iter.Seq2[v1.LogRecord, error] {
		return func(yield func(v1.LogRecord, error) bool) {
			yield(v1.LogRecord{Stream: "stdout", Line: []byte("first")}, nil)
			<-ctx.Done()
		}
	})
	var said []string
	for record, err := range c.client.Logs(c.ctx, "tasks", "a", v1.LogOptions{Stdout: true, Follow: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if said = append(said, string(record.Line)+record.Error); len(said) == 1 {
			m2.http.Close()
		}
	}
	if len(said) != 2 || said[0] != "first" || !strings.HasSuffix(said[1], " was lost") { // of node or manager, whoever was quicker
		t.Errorf("a manager that dies: %q", said)
	}
	m2.stop()
	c.commit(presenceAt("w1", "m2"))
	if lines, failures := c.logs("tasks", "a", v1.LogOptions{Stdout: true}); lines != nil ||
		!slices.Equal(failures, []string{"a: manager m2, which node w1 is connected to, cannot be reached"}) {
		t.Errorf("a manager that is gone: %q, %q", lines, failures)
	}
}

func presenceAt(node, manager string) store.Op {
	return store.Op{Kind: v1.KindPresence, ID: node, Section: v1.SectionStatus, If: store.Always(), Meta: &v1.Meta{},
		Value: &v1.PresenceStatus{Manager: manager, Session: "x"}}
}

// TestReaderOfRelayedLogsHangsUp: when nobody listens any more the node is told to stop.
func TestReaderOfRelayedLogsHangsUp(t *testing.T) {
	c := form(t)
	m2 := c.another()
	c.commit(taskOp("a", "s", "w1", "r", 1))
	a := c.agentAt("w1", m2.addr)
	over := a.answerLogs(func(ctx context.Context, _ v1.StreamRequest) iter.Seq2[v1.LogRecord, error] {
		return func(yield func(v1.LogRecord, error) bool) {
			for i := 0; yield(v1.LogRecord{Stream: "stdout", Line: fmt.Append(nil, i)}, nil); i++ {
				select {
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
					return
				}
			}
		}
	})
	for record, err := range c.client.Logs(c.ctx, "tasks", "a", v1.LogOptions{Stdout: true, Follow: true}) {
		if err != nil || record.Error != "" {
			t.Fatalf("%+v, %v", record, err)
		}
		if string(record.Line) == "5" {
			break
		}
	}
	if task := <-over; task != "a" {
		t.Errorf("the stream of %s has ended", task)
	}
}

// TestSessionOverTLS: the connection of a node's process that dies is seen at once, over a real network.
func TestSessionOverTLS(t *testing.T) {
	c := form(t)
	chain, key := c.certify("w1", ca.RoleWorker)
	config, err := ca.UserTLS(chain, key, c.cert)
	if err != nil {
		t.Fatal(err)
	}
	for name, kill := range map[string]func(*net.TCPConn){
		"reset":  func(conn *net.TCPConn) { conn.SetLinger(0); conn.Close() },
		"closed": func(conn *net.TCPConn) { conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", c.addr)
			if err != nil {
				t.Fatal(err)
			}
			secured := tls.Client(conn, config)
			fmt.Fprintf(secured, "POST /v1/nodes/w1/session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
			line := described + "\n"
			fmt.Fprintf(secured, "%x\r\n%s\r\n", len(line), line)
			c.until("w1 is there", func(s *store.Snapshot) bool { _, ok := store.Get(s, v1.Presences, "w1"); return ok })
			began := time.Now()
			kill(conn.(*net.TCPConn))
			c.until("w1 is gone", func(s *store.Snapshot) bool { _, ok := store.Get(s, v1.Presences, "w1"); return !ok })
			t.Logf("gone after %s", time.Since(began))
		})
	}
}

// TestSessionOutlivesNoCertificate: a session ends when the certificate that it was opened with does not count any more, and not
// while a rotation of the root is under way.
func TestSessionOutlivesNoCertificate(t *testing.T) {
	next, nextKey, err := ca.NewRoot(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("expired", func(t *testing.T) {
		var now clock
		c := form(t, now.option)
		a := c.agentAt("w1", c.addr)
		now.advance(2 * time.Hour)
		c.endsUntrusted(a)
	})
	t.Run("rotated", func(t *testing.T) {
		c := form(t)
		a := c.agentAt("w1", c.addr)
		rotate := func(desired []byte) {
			c.commit(store.Op{Kind: v1.KindAuthority, ID: v1.AuthorityName, If: store.Exists(), Value: &v1.AuthoritySpec{
				ClusterID: clusterID, CA: v1.CertificateAuthority{Cert: next, Key: nextKey, Rotation: 1}}},
				store.Op{Kind: v1.KindAuthority, ID: v1.AuthorityName, Section: v1.SectionDesired, If: store.Exists(), Value: &v1.AuthorityDesired{Cert: desired}})
		}
		rotate(c.cert)
		a.take()
		if n := a.last.Swarm; n == nil || n.Issuer != ca.Digest(next) || !strings.Contains(string(n.Roots), strings.TrimSpace(string(c.cert))) {
			t.Errorf("news of a rotation: %+v", n)
		}
		rotate(next)
		c.endsUntrusted(a)
	})
}

// endsUntrusted waits for the end of a session whose certificate does not count.
func (c *cluster) endsUntrusted(a *agent) {
	c.Helper()
	for {
		_, err, ok := a.next()
		if err == nil && ok {
			continue
		}
		c.refused(err, http.StatusUnauthorized, "does not count any more")
		return
	}
}
