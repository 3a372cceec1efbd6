package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace, and one of a host's name, each kept by a bind mount.
type Namespace struct {
	// Path is that of the network namespace; Path with ".uts" is that of the name.
	Path string
	file *os.File
}

// InsideOf is the network namespace of a process, such as a container's. The caller closes it with Leave.
func InsideOf(pid int) (*Namespace, error) { return openNamespace(fmt.Sprintf("/proc/%d/ns/net", pid)) }

// Inside enters the network namespace that is mounted at a path.
func Inside(path string) (*Namespace, error) { return openNamespace(path) }

// Leave lets go of a namespace that InsideOf gave.
func (n *Namespace) Leave() { n.file.Close() }

// Guest makes a network namespace that is no host's, as a user would with "ip netns add", below the lab's directory.
func (l *Lab) Guest(name string) (*Namespace, error) {
	dir := filepath.Join(l.Dir, "guests")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	n, err := newNamespace(filepath.Join(dir, name), name)
	if err == nil {
		err = n.Do(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return netlink.LinkSetUp(lo)
		})
	}
	return n, err
}

// Delete removes a namespace's file, as "ip netns del" does, and lets go of it.
func (n *Namespace) Delete() error {
	return errors.Join(n.close(), os.Remove(n.Path), os.Remove(n.Path+".uts"))
}

// newNamespace makes namespaces, gives the host its name, and mounts them at the path.
func newNamespace(path, hostname string) (*Namespace, error) {
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its namespaces with it
		made <- mountNamespaces(path, hostname)
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("namespace %s: %w", path, err)
	}
	return openNamespace(path)
}

func openNamespace(path string) (*Namespace, error) {
	file, err := os.Open(path)
	return &Namespace{Path: path, file: file}, err
}

func mountNamespaces(path, hostname string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	for kind, at := range map[string]string{"net": path, "uts": path + ".uts"} {
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			return err
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/%s", unix.Gettid(), kind), at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
	}
	return nil
}

// close lets go of the namespaces; they end with the last process in them.
func (n *Namespace) close() error {
	err := n.file.Close()
	for _, at := range []string{n.Path, n.Path + ".uts"} {
		if e := unix.Unmount(at, unix.MNT_DETACH); !errors.Is(e, unix.EINVAL) && !errors.Is(e, unix.ENOENT) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Do runs f on a thread that is in the network namespace.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so that no other goroutine gets the thread
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", n.Path, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Arguments are a command line that runs a program in the namespaces. "ip netns exec" would hide the cgroup mounts.
func (n *Namespace) Arguments(name string, args ...string) []string {
	return append([]string{"nsenter", "--net=" + n.Path, "--uts=" + n.Path + ".uts", "--", name}, args...)
}

// Command is a command that runs in the namespaces.
func (n *Namespace) Command(name string, args ...string) *exec.Cmd {
	line := n.Arguments(name, args...)
	return exec.Command(line[0], line[1:]...)
}

// DialContext makes a connection in the namespace.
func (n *Namespace) DialContext(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	inside := n.Do(func() error {
		conn, err = (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, addr)
		return nil
	})
	return conn, errors.Join(err, inside)
}

// Resolver asks the name server at the address, in the namespace.
func (n *Namespace) Resolver(addr string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return n.DialContext(ctx, network, addr)
	}}
}

// HTTP is a client whose connections are made in the namespace, a new one for each request.
func (n *Namespace) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.DialContext, DisableKeepAlives: true}, Timeout: 10 * time.Second}
}

// Get is the body that a URL answers with in the namespace.
func (n *Namespace) Get(url string) (string, error) {
	answer, err := n.HTTP().Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return string(body), err
}
