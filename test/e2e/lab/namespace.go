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
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace, kept by a bind mount.
type Namespace struct {
	Path string
	file *os.File
}

// newNamespace makes a namespace and mounts it at the path.
func newNamespace(path string) (*Namespace, error) {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its namespace with it
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- fmt.Errorf("unshare: %w", err)
			return
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, ""); err != nil {
			made <- fmt.Errorf("mount %s: %w", path, err)
			return
		}
		made <- nil
	}()
	if err := <-made; err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	return &Namespace{Path: path, file: file}, err
}

// Do runs f on a thread that is in the namespace.
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

// Command is a command that runs in the namespace. Only the network is another: "ip netns exec" would hide the cgroup mounts.
func (n *Namespace) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + n.Path, name}, args...)...)
}

// HTTP is a client whose connections are made in the namespace, a new one for each request.
func (n *Namespace) HTTP() *http.Client {
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		inside := n.Do(func() error {
			conn, err = (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, network, addr)
			return nil
		})
		return conn, errors.Join(err, inside)
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 10 * time.Second}
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
