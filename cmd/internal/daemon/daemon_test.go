package daemon

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLockIsHeldByOne(t *testing.T) {
	root := t.TempDir()
	first, err := acquire(root)
	if err != nil {
		t.Fatal(err)
	}
	_, err = acquire(root)
	var locked *lockedError
	if !errors.As(err, &locked) || locked.pid != os.Getpid() {
		t.Fatalf("second lock: %v, want a lockedError that names process %d", err, os.Getpid())
	}
	if !strings.Contains(err.Error(), root) {
		t.Errorf("%q does not name the directory", err)
	}
	first.release()
	again, err := acquire(root)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	again.release()
}

// TestLockOfADaemonThatIsGoing: one that was killed holds its lock for a moment more.
func TestLockOfADaemonThatIsGoing(t *testing.T) {
	root := t.TempDir()
	old, err := acquire(root)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, old.release)
	l, err := acquireSoon(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	l.release()
}

// TestTakeOver ends a process that holds the lock, and has the lock then.
func TestTakeOver(t *testing.T) {
	if os.Getenv("SWARMD_TEST_HOLD") != "" {
		if _, err := acquire(os.Getenv("SWARMD_TEST_HOLD")); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("held\n")
		select {}
	}
	root := t.TempDir()
	holder := exec.Command(os.Args[0], "-test.run", "^TestTakeOver$")
	holder.Env = append(os.Environ(), "SWARMD_TEST_HOLD="+root)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Process.Kill()
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	go holder.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := takeOver(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	l.release()
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "s.sock")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v; want 0600", st.Mode(), err)
	}
	if _, err := listen(path); err == nil || !strings.Contains(err.Error(), "another daemon answers there") {
		t.Errorf("a socket that is in use: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	again, err := listen(path) // what a killed daemon left
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	again.Close()
	if _, err := listen("/" + strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "choose a shorter") {
		t.Errorf("a path that is too long: %v", err)
	}
}

func TestMainUsage(t *testing.T) {
	var root string
	ran := 0
	m := Main{Name: "swarmd", About: "about", Flags: func(f *flag.FlagSet) { f.StringVar(&root, "root", "/r", "`DIR` of data") },
		Run: func(context.Context, *slog.Logger) error { ran++; return errors.New("no luck") }}
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"--help"}, 0, "--root DIR", ""},
		{[]string{"--version"}, 0, "swarmd version", ""},
		{[]string{"--nosuch"}, 2, "", "--help"},
		{[]string{"extra"}, 2, "", `"extra" is one too many`},
		{[]string{"--log-level", "loud"}, 2, "", "debug, info, warn or error"},
		{[]string{"--log-format", "xml"}, 2, "", "text or json"},
		{[]string{"--root", "/x"}, 1, "", "no luck"},
	} {
		var out, errOut bytes.Buffer
		if code := m.Execute(c.args, &out, &errOut); code != c.code {
			t.Errorf("%v: exit code %d, want %d", c.args, code, c.code)
		}
		if !strings.Contains(out.String(), c.stdout) || !strings.Contains(errOut.String(), c.stderr) {
			t.Errorf("%v printed %q and %q", c.args, out.String(), errOut.String())
		}
	}
	if ran != 1 || root != "/x" {
		t.Errorf("ran %d times with root %s", ran, root)
	}
}
