package daemon

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// initSystem is where systemd would listen.
func initSystem(t *testing.T) *net.UnixConn {
	t.Helper()
	at := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: at, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", at)
	return c
}

// next is the next message, and how many files came with it.
func next(t *testing.T, c *net.UnixConn) (message string, files int) {
	t.Helper()
	b, rights := make([]byte, 1000), make([]byte, 1000)
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, with, _, _, err := c.ReadMsgUnix(b, rights)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:with])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		descriptors, err := unix.ParseUnixRights(&m)
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range descriptors {
			unix.Close(fd)
			files++
		}
	}
	return string(b[:n]), files
}

// TestKeptSockets: what is kept goes to systemd with its name and stays usable here, as it was: it does not block.
func TestKeptSockets(t *testing.T) {
	systemd := initSystem(t)
	k := inherit(slog.Default())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	k.Keep("names-tcp", f)
	f.Close()
	if message, files := next(t, systemd); message != "FDSTORE=1\nFDNAME=names-tcp" || files != 1 {
		t.Errorf("systemd was told %q with %d files", message, files)
	}
	f, err = l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	k.Keep("names-tcp", f)
	f.Close()
	for _, want := range []string{"FDSTOREREMOVE=1\nFDNAME=names-tcp", "FDSTORE=1\nFDNAME=names-tcp"} { // in this order, or the new one is removed
		if message, _ := next(t, systemd); message != want {
			t.Errorf("systemd was told %q, want %q", message, want)
		}
	}
	for range 2 { // as often as it is asked for
		kept := k.Kept("names-tcp")
		again, err := net.FileListener(kept)
		if err != nil || again.Addr().String() != l.Addr().String() {
			t.Fatalf("what was kept is %v, %v", again, err)
		}
		kept.Close()
		again.Close()
	}
	if k.Kept("names-udp") != nil {
		t.Error("there is one that was never kept")
	}
	accepted := make(chan error, 1)
	go func() { _, err := l.Accept(); accepted <- err }()
	l.Close()
	select {
	case err := <-accepted:
		if err == nil || !strings.Contains(err.Error(), "use of closed") {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the socket blocks")
	}
	k.dropAll()
	if message, files := next(t, systemd); message != "FDSTOREREMOVE=1\nFDNAME=names-tcp" || files != 0 {
		t.Errorf("systemd was told %q with %d files", message, files)
	}
	if k.Kept("names-tcp") != nil {
		t.Error("it is there after it was let go of")
	}
}

// TestNothingIsKept: without systemd, and where nobody is at its socket.
func TestNothingIsKept(t *testing.T) {
	for _, at := range []string{"", filepath.Join(t.TempDir(), "nobody")} {
		t.Setenv("NOTIFY_SOCKET", at)
		k := inherit(slog.Default())
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		k.Keep("names-udp", f)
		f.Close()
		if k.Kept("names-udp") != nil {
			t.Errorf("%q: it is kept", at)
		}
		k.dropAll()
	}
}
