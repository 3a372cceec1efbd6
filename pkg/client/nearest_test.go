package client

import (
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/swarmd/swarmd/pkg/ca"
)

// mute is host:port of somebody who takes no connection and does not refuse one either, as a host that is cut off.
func mute(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: bound.(*syscall.SockaddrInet4).Port}
	for range 8 { // until nobody else fits into the line
		conn, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond)
		if err != nil {
			return addr.String()
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Skip("this kernel takes connections that nobody accepts")
	return ""
}

// TestNearest: managers that are cut off do not keep a node from one that is there.
func TestNearest(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	hosts := []string{mute(t), mute(t), gone.Addr().String(), l.Addr().String()}
	c, err := Dial(Options{Hosts: hosts, TLS: newSwarm(t).identity("n1", ca.RoleWorker).ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	order := c.nearest(t.Context())
	if len(order) != 4 || order[0].name != l.Addr().String() {
		t.Fatalf("%d hosts, %s first, want the one that is there", len(order), order[0].name)
	}
	seen := make(map[string]bool)
	for _, h := range order {
		seen[h.name] = true
	}
	if len(seen) != 4 {
		t.Errorf("the hosts are %v", seen)
	}
	l.Close()
	if order := c.nearest(t.Context()); len(order) != 4 || order[0].name != hosts[0] {
		t.Errorf("with nobody there: %d hosts, %s first, want the order that there was", len(order), order[0].name)
	}
}
