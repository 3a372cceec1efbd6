package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// openWord is in all that tasks of TestEncrypted tell each other.
const openWord = "a-word-that-nobody-else-may-read"

// tap reads every frame that a host has on the link between the hosts.
type tap struct {
	mu   sync.Mutex
	seen map[string]int // frames by what they are
}

// listenOn begins to read.
func listenOn(t *testing.T, h *lab.Host) *tap {
	t.Helper()
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	w := &tap{seen: map[string]int{}}
	var fd int
	err := h.Do(func() (err error) {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index})
	})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000})
	}
	if err != nil {
		t.Fatal(err)
	}
	var end atomic.Bool
	done := make(chan struct{})
	t.Cleanup(func() { end.Store(true); <-done; unix.Close(fd) })
	go func() {
		defer close(done)
		b := make([]byte, 1<<17)
		for !end.Load() {
			if n, _, err := unix.Recvfrom(fd, b, 0); err == nil {
				w.mu.Lock()
				w.seen[kindOf(b[:n])]++
				w.mu.Unlock()
			}
		}
	}()
	return w
}

// kindOf is what a frame of IPv4 is: VXLAN by its number, WireGuard by its port and its first bytes.
func kindOf(p []byte) string {
	if bytes.Contains(p, []byte(openWord)) {
		return "in the clear"
	}
	if len(p) < 40 || p[0]>>4 != 4 || p[9] != unix.IPPROTO_UDP {
		return "other"
	}
	p = p[4*(p[0]&15):]
	switch port := int(p[2])<<8 | int(p[3]); {
	case port == 4789:
		return fmt.Sprintf("VXLAN %d", int(p[12])<<16|int(p[13])<<8|int(p[14]))
	case port >= 61000 && p[8] >= 1 && p[8] <= 4 && p[9]|p[10]|p[11] == 0:
		return "WireGuard"
	}
	return "other UDP"
}

// sawNothing fails the test if anything of the network was readable. Only the gateway network's VXLAN may be there, which has the number 1.
func (w *tap) sawNothing(t *testing.T, h *lab.Host, when string) {
	t.Helper()
	time.Sleep(100 * time.Millisecond) // what is missed here is found by the next look
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind, n := range w.seen {
		if kind == "in the clear" || strings.HasPrefix(kind, "VXLAN ") && kind != "VXLAN 1" {
			t.Errorf("%s: on the link of %s were %d frames %s", when, h.Name, n, kind)
		}
	}
	if w.seen["WireGuard"] == 0 {
		t.Errorf("%s: on the link of %s was nothing encrypted: %v", when, h.Name, w.seen)
	}
}

// wiresOn are the processes of encrypted networks on a host.
func wiresOn(t *testing.T, h *lab.Host) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if bytes.Contains(line, []byte("swarm-wire\x00")) && bytes.Contains(line, []byte(h.Root+"/")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// flow sends numbered datagrams from one task to another. What it returns ends it, and tells how many were sent and which were lost.
func flow(t *testing.T, from, to inside) func() (sent int, lost []int) {
	t.Helper()
	const port = 7000
	var server net.PacketConn
	err := to.Do(func() (err error) {
		server, err = net.ListenPacket("udp4", fmt.Sprintf("%s:%d", to.address(0), port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[string]bool{}
	go func() {
		b := make([]byte, 1500)
		for {
			n, _, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			number, _, _ := strings.Cut(string(b[:n]), " ")
			mu.Lock()
			got[number] = true
			mu.Unlock()
		}
	}()
	client, err := from.DialContext(t.Context(), "udp4", fmt.Sprintf("%s:%d", to.address(0), port))
	if err != nil {
		t.Fatal(err)
	}
	stop, done, sent := make(chan struct{}), make(chan struct{}), 0
	go func() {
		defer close(done)
		for tick := time.NewTicker(2 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				fmt.Fprintf(client, "%d %s", sent, openWord) // one that is refused is lost
				sent++
			}
		}
	}()
	return func() (int, []int) {
		close(stop)
		<-done
		client.Close()
		time.Sleep(500 * time.Millisecond) // for what is on the way
		server.Close()
		mu.Lock()
		defer mu.Unlock()
		var lost []int
		for i := range sent {
			if !got[strconv.Itoa(i)] {
				lost = append(lost, i)
			}
		}
		return sent, lost
	}
}

// TestEncrypted: services on an encrypted network over three hosts. By address, by name and by virtual address they reach each other, and no
// link between hosts carries anything of it that can be read: also while the process that encrypts is dead, and over restarts of the
// daemon, which lose nothing. What is removed leaves nothing.
func TestEncrypted(t *testing.T) {
	s := form(t, 1, 2)
	first := s.Hosts[0]
	first.Must("swarm", "update", "--dispatcher-heartbeat", "20s") // a daemon that is killed may take a while to be back: this is about others
	s.network(first, "vault", "--opt", "encrypted", "--subnet", "10.30.0.0/24")
	if out := first.Must("network", "inspect", "vault"); !strings.Contains(out, `"encrypted"`) {
		t.Errorf("network inspect prints\n%s", out)
	}
	var taps []*tap
	for _, h := range s.Hosts {
		taps = append(taps, listenOn(t, h))
	}
	nothing := func(when string) {
		t.Helper()
		for i, w := range taps {
			w.sawNothing(t, s.Hosts[i], when)
		}
	}
	s.serve(first, "web", 3, "--network", "vault", "--replicas-max-per-node", "1")
	webs := s.tasksOf(first, "web", 3)
	everybody := func() {
		t.Helper()
		for _, from := range webs {
			for _, name := range []string{"web", "web.1", "web.2", "web.3"} {
				if body, err := from.get(name, 8080, "/?"+openWord); err != nil || !strings.Contains(body, "Hello from web.") {
					t.Errorf("%s on %s asks %s: %q, %v", from.name, from.host.Name, name, body, err)
				}
			}
		}
	}
	everybody()
	for _, from := range webs {
		s.spreads(from, "web", webs)
	}
	nothing("when all is well")

	// Daemons that are stopped and killed lose nothing, the manager's as well.
	there, back := flow(t, webs[0], webs[1]), flow(t, webs[1], webs[2])
	before := map[string][]int{}
	for _, h := range s.Hosts {
		before[h.Name] = wiresOn(t, h)
		if n := len(before[h.Name]); n != 1 {
			t.Errorf("%s has %d processes of encrypted networks", h.Name, n)
		}
	}
	for i, h := range s.Hosts {
		if i%2 == 0 {
			h.Kill()
		} else {
			h.Stop()
		}
		h.Start()
		s.Eventually(generous, h.Name+" is ready again", func() error {
			if out := first.Must("node", "ls", "--format", "{{.Hostname}} {{.Status}}"); !strings.Contains(out, h.Name+" Ready") {
				return fmt.Errorf("node ls prints\n%s", out)
			}
			return nil
		})
		if now := wiresOn(t, h); len(now) != 1 || now[0] != before[h.Name][0] {
			t.Errorf("%s has the processes %v, had %v", h.Name, now, before[h.Name])
		}
	}
	for _, end := range []func() (int, []int){there, back} {
		sent, lost := end()
		if len(lost) > 0 || sent == 0 {
			t.Errorf("over restarts of all daemons %d of %d datagrams were lost: %v", len(lost), sent, lost[:min(len(lost), 20)])
		}
		t.Logf("over restarts of all daemons %d datagrams came", sent)
	}
	everybody()
	nothing("over restarts of the daemons")

	s.wireDies(webs, everybody)
	nothing("while a process was dead")

	first.Must("service", "rm", "web")
	s.Eventually(generous, "the network is nobody's", func() error {
		if r := first.Ctl("network", "rm", "vault"); r.Code != 0 {
			return fmt.Errorf("network rm: %s", r.Stderr)
		}
		return nil
	})
	for _, h := range s.Hosts {
		s.Eventually(generous, "nothing is left on "+h.Name, func() error {
			left, err := filepath.Glob(filepath.Join(h.Root, "network", "wire", "*.*"))
			if pids := wiresOn(t, h); len(pids)+len(left) != 1 || err != nil { // the keys stay
				return fmt.Errorf("there are the processes %v and the files %v, %v", pids, left, err)
			}
			return nil
		})
	}
}

// wireDies kills a host's process that encrypts: the daemon makes another, tells of it, and everybody goes on.
func (s *swarm) wireDies(webs []inside, everybody func()) {
	s.t.Helper()
	h := webs[0].host
	repairs := func() (all float64) {
		for line := range strings.Lines(metricsOf(s.t, h, "swarm_network_repairs_total")) {
			fields := strings.Fields(line)
			n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				s.t.Fatal(err)
			}
			all += n
		}
		return all
	}
	had, pid := repairs(), wiresOn(s.t, h)[0]
	end := flow(s.t, webs[0], webs[1])
	killed := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	s.Eventually(generous, "there is another process on "+h.Name, func() error {
		if now := wiresOn(s.t, h); len(now) != 1 || now[0] == pid {
			return fmt.Errorf("there are %v", now)
		}
		return nil
	})
	s.t.Logf("another process was there after %s", time.Since(killed).Round(time.Millisecond))
	everybody()
	s.Eventually(generous, "the repair is told", func() error {
		if now := repairs(); now <= had {
			return fmt.Errorf("swarm_network_repairs_total is %v", now)
		}
		return nil
	})
	sent, lost := end()
	s.t.Logf("of %d datagrams of 2 ms each %d were lost to the death of a process", sent, len(lost))
	if len(lost) == sent {
		s.t.Error("nothing came any more")
	}
}
