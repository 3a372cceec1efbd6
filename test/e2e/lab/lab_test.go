package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLab shows that the lab does to its hosts what it says, with no swarm on them: whoever tests with it relies on that.
func TestLab(t *testing.T) {
	l := New(t, "manager1", "worker1", "worker2")
	for _, h := range l.Hosts {
		out, err := h.Command("hostname").Output()
		if err != nil || strings.TrimSpace(string(out)) != h.Name {
			t.Errorf("the name of %s is %q, %v", h.Name, out, err)
		}
		echo(t, h)
	}
	m, w1, w2 := l.Hosts[0], l.Hosts[1], l.Hosts[2]
	reach := func(what string, want map[[2]*Host]bool) {
		t.Helper()
		for p, reachable := range want {
			if took, err := ask(p[0].Namespace, p[1]); (err == nil) != reachable {
				t.Errorf("%s: from %s to %s: %v after %s", what, p[0].Name, p[1].Name, err, took)
			} else if err != nil && errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: %v: a broken link says nothing", what, err)
			}
		}
	}
	all := map[[2]*Host]bool{{m, w1}: true, {w1, m}: true, {w1, w2}: true, {w2, m}: true}
	reach("at first", all)
	must(t, l.Cut(w1))
	reach("with worker1 cut off", map[[2]*Host]bool{{m, w1}: false, {w1, m}: false, {w1, w2}: false, {w2, m}: true})
	if _, err := ask(l.Client, w1); err == nil {
		t.Error("the client reaches a host that is cut off")
	}
	must(t, l.Heal())
	reach("healed", all)
	must(t, l.Partition([]*Host{m, w1}, []*Host{w2}))
	reach("partitioned", map[[2]*Host]bool{{m, w1}: true, {w1, w2}: false, {w2, m}: false})
	must(t, l.HealHost(w2))
	reach("healed", all)
	labDelay(t, l)
	labPower(t, l, w2)
	must(t, l.Heal())
	added, err := l.Add("worker3")
	must(t, err)
	if _, err := ask(added.Namespace, m); err != nil {
		t.Errorf("from a host that was added: %v", err)
	}
	must(t, l.Discard(added))
	if again, err := l.Add("worker3"); err != nil || again.Addr != added.Addr {
		t.Errorf("adding it again: %v", err)
	}
	other, err := Open(t, l.Dir)
	must(t, err)
	if _, err := ask(other.Client, other.Host("manager1")); err != nil {
		t.Errorf("with the lab opened by another process: %v", err)
	}
}

func labDelay(t *testing.T, l *Lab) {
	m, w1, w2 := l.Hosts[0], l.Hosts[1], l.Hosts[2]
	must(t, l.Delay(w1, 50*time.Millisecond))
	// A connection and an answer are two round trips.
	if took, err := ask(m.Namespace, w1); err != nil || took < 200*time.Millisecond {
		t.Errorf("over a slow link: %v after %s, want at least 200 ms", err, took)
	}
	must(t, l.CutBetween(m, w1))
	if _, err := ask(m.Namespace, w1); err == nil {
		t.Error("a slow link that is cut still works")
	}
	if _, err := ask(w2.Namespace, w1); err != nil {
		t.Errorf("from a host that is not cut off: %v", err)
	}
	must(t, l.Heal())
	must(t, l.Delay(w1, 0))
	// A packet may be lost on a busy machine, and is sent again a second later; over a slow link no answer is as quick as this.
	must(t, Await(30*time.Second, func() error {
		took, err := ask(m.Namespace, w1)
		if err == nil && took >= 200*time.Millisecond {
			err = fmt.Errorf("over a link that is fast again an answer took %s", took)
		}
		return err
	}))
}

func labPower(t *testing.T, l *Lab, h *Host) {
	must(t, h.UseSmallDisk(1<<20))
	file := filepath.Join(h.Root, "file")
	must(t, os.WriteFile(file, []byte("kept"), 0o600))
	must(t, h.FillDisk())
	if err := os.WriteFile(file+"2", []byte("x"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("writing to a full disk: %v", err)
	}
	must(t, h.FreeDisk())
	must(t, os.WriteFile(file+"2", []byte("x"), 0o600))

	sleeper := h.Command("sleep", "1000")
	must(t, sleeper.Start())
	must(t, os.MkdirAll(sockets(h), 0o700))
	must(t, h.PowerOff())
	if _, err := os.Stat(sockets(h)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s outlived the power: %v", sockets(h), err)
	}
	var exit interface{ Error() string }
	if err := sleeper.Wait(); err == nil || !errors.As(err, &exit) {
		t.Errorf("a process outlived the power: %v", err)
	}
	if _, err := ask(l.Client, h); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a host without power answers: %v", err)
	}
	must(t, h.PowerOn())
	if data, err := os.ReadFile(file); err != nil || string(data) != "kept" {
		t.Errorf("after the power cut the disk has %q, %v", data, err)
	}
	if _, err := ask(h.Namespace, l.Hosts[0]); err != nil {
		t.Errorf("from a host that has power again: %v", err)
	}
}

// TestLabLeavesNothing: neither a lab that was removed nor one that crashed leaves processes, mounts or files.
func TestLabLeavesNothing(t *testing.T) {
	l := New(t, "host1")
	left := l.Hosts[0].Command("sleep", "1000")
	must(t, left.Start())
	again := New(t, "host1", "host2")
	if err := left.Wait(); err == nil {
		t.Error("the process of the lab that crashed ended well")
	}
	host := again.Hosts[0]
	must(t, os.MkdirAll(filepath.Join(host.Root, "containerd"), 0o700))
	must(t, os.MkdirAll(filepath.Join(sockets(host), "s"), 0o700))
	must(t, again.Remove())
	if _, err := os.Stat(sockets(host)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", sockets(host), err)
	}
	if _, err := os.Stat(again.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", again.Dir, err)
	}
	if left := mounts(again.Dir); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
}

// sockets are those of a host's container runtime, where its path is long.
func sockets(h *Host) string { return socketDir(filepath.Join(h.Root, "containerd")) }

// echo answers on a host.
func echo(t *testing.T, h *Host) {
	t.Helper()
	must(t, h.Do(func() error {
		server, err := net.Listen("tcp", fmt.Sprintf("%s:7777", h.Addr))
		if err != nil {
			return err
		}
		t.Cleanup(func() { server.Close() })
		go func() {
			for {
				conn, err := server.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					_, _ = io.Copy(conn, conn)
				}()
			}
		}()
		return nil
	}))
}

// ask has a host's echo say 100,000 bytes.
func ask(from *Namespace, h *Host) (time.Duration, error) {
	began := time.Now()
	conn, err := from.DialContext(context.Background(), "tcp", fmt.Sprintf("%s:7777", h.Addr))
	if err != nil {
		return time.Since(began), err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	const size = 100_000
	go func() { _, _ = conn.Write(make([]byte, size)) }()
	_, err = io.CopyN(io.Discard, conn, size)
	return time.Since(began), err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
