package daemon

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/pkg/apiserver"
	"github.com/swarmd/swarmd/pkg/ca"
)

// guest is a connection from an address that it says itself.
type guest struct {
	net.Conn
	from string
}

func (g guest) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(g.from))
}

func (g guest) Close() error { return nil }

func TestVisitors(t *testing.T) {
	v := newVisitors(nil, 8)
	v.each = 2
	in := func(from string, want bool) *visit {
		t.Helper()
		c := v.enter(guest{from: from})
		if (c != nil) != want {
			t.Errorf("%s comes in: %t", from, c != nil)
		}
		return c
	}
	a := in("10.0.0.1:1", true)
	in("10.0.0.1:2", true)
	in("[::ffff:10.0.0.1]:3", false) // the same
	a.introduce()
	a.introduce() // counts once
	b := in("10.0.0.1:4", true)
	in("10.0.0.1:5", false)
	in("[fd00::1]:1", true)
	in("[fd00::2]:1", true) // four strangers: half of all
	in("10.0.0.2:1", false)
	b.Close()
	b.Close() // gives its place back once
	in("[fd00::3]:1", false)
	in("127.0.0.1:1", true)
	in("127.0.0.1:2", false)
	for range 5 {
		v.most1++
		if c := in(fmt.Sprintf("127.0.0.1:%d", v.most1), v.all < 8); c != nil {
			c.introduce()
		}
	}
	if v.all != 8 || v.strangers != 4 || len(v.from) != 3 {
		t.Errorf("%d are in, %d of them strangers, from %v", v.all, v.strangers, v.from)
	}
	a.Close()
	if v.all != 7 || v.strangers != 4 {
		t.Errorf("after one left, %d are in, %d of them strangers", v.all, v.strangers)
	}
}

// TestStrangersDoNotLinger: a connection without a certificate on which nothing is asked ends soon, one with a request under way does
// not, and a node's stays.
func TestStrangersDoNotLinger(t *testing.T) {
	root, rootKey, err := ca.NewRoot(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ca.NewSigner(root, rootKey, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	identity := func(name string) *ca.Identity {
		key, err := ca.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := ca.NewRequest(key)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := signer.Sign(t.Context(), csr, ca.Subject{ID: name, Role: ca.RoleManager, Cluster: "c"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		id, err := ca.NewIdentity(chain, key, root)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	held, begun := make(chan struct{}), make(chan struct{})
	s := apiserver.NewHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			close(begun)
			<-held
		}
		fmt.Fprint(w, "done")
	}), slog.New(slog.DiscardHandler))
	v := newVisitors(inner, 100)
	v.idle = 200 * time.Millisecond
	s.TLSConfig, s.ConnState = identity("server").ServerTLS(), v.watch
	go s.ServeTLS(v, "", "")
	defer s.Close()
	stranger, err := ca.UserTLS(nil, nil, root)
	if err != nil {
		t.Fatal(err)
	}
	dial := func(c *tls.Config) (net.Conn, *bufio.Reader) {
		c = c.Clone()
		c.NextProtos = []string{"http/1.1"}
		conn, err := tls.Dial("tcp", inner.Addr().String(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn, bufio.NewReader(conn)
	}
	ask := func(c net.Conn, path string) {
		if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
			t.Error(err)
		}
	}
	answer := func(r *bufio.Reader) {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "done" {
			t.Errorf("%q %v", body, err)
		}
	}
	node, fromNode := dial(identity("node").ClientTLS())
	ask(node, "/")
	answer(fromNode)
	busy, fromBusy := dial(stranger)
	ask(busy, "/held")
	<-begun
	idle, fromIdle := dial(stranger)
	ask(idle, "/")
	answer(fromIdle)
	if _, err := fromIdle.ReadByte(); err == nil { // waits until it is closed
		t.Error("the server said something unasked")
	}
	close(held)
	answer(fromBusy)
	ask(node, "/")
	answer(fromNode)
	if _, err := fromBusy.ReadByte(); err == nil {
		t.Error("the server said something unasked")
	}
	ask(node, "/")
	answer(fromNode)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all != 1 || v.strangers != 0 {
		t.Errorf("%d are in, %d of them strangers", v.all, v.strangers)
	}
}

func TestConnectionLimit(t *testing.T) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if files.Cur < files.Max {
		t.Errorf("the runtime left the limit of files at %d of %d", files.Cur, files.Max)
	}
	if n := connectionLimit(slog.New(slog.DiscardHandler)); n < 1 || n > maxConnections || uint64(n) > max(files.Max/4, 1) {
		t.Errorf("%d connections with %d files", n, files.Max)
	}
}
