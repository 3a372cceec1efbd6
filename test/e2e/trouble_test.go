package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestMainJobLostState: a manager whose state is gone must say so. Coming back with an empty swarm would end everything.
func TestMainJobLostState(t *testing.T) {
	l, h := oneHost(t)
	h.Must("apply", "-f", example(t))
	h.Stop()
	if err := os.RemoveAll(filepath.Join(h.Root, "etcd", "etcd")); err != nil {
		t.Fatal(err)
	}
	if err := h.Launch(); err != nil {
		t.Fatal(err)
	}
	l.Eventually(30*time.Second, "the daemon says that its state is gone", func() error {
		if log := h.Log(); !strings.Contains(log, "state is gone") {
			return fmt.Errorf("it logged\n%s", log)
		}
		return nil
	})
	if r := h.Ctl("service", "ls"); r.Code == 0 {
		t.Errorf("a swarm whose state is gone lists its services:\n%s", r.Stdout)
	}
	if n := len(shims(t, h)); n != 3 {
		t.Errorf("%d containers run, want the 3 that there were", n)
	}
}

// TestMainJobRestoredBackup puts an earlier etcd directory back. The node follows the restored state.
func TestMainJobRestoredBackup(t *testing.T) {
	l, h := oneHost(t)
	h.Must("apply", "-f", example(t))
	h.Stop()
	backup, live := filepath.Join(l.Dir, "backup"), filepath.Join(h.Root, "etcd")
	copyTree(t, live, backup)
	h.Start()
	for _, n := range []string{"5", "1", "4"} {
		h.Must("service", "scale", "hello="+n)
	}
	h.Stop()
	if err := os.RemoveAll(live); err != nil {
		t.Fatal(err)
	}
	copyTree(t, backup, live)
	h.Start()
	h.Must("service", "create", "--name", "later", "--timeout", "30s", "hello:1")
	l.Eventually(30*time.Second, "what runs is what the restored swarm wants", func() error {
		if wanted, got := len(running(t, h, "hello")), len(shims(t, h)); wanted != 3 || got != 4 {
			return fmt.Errorf("%d tasks of hello and %d containers run, want 3 and 4\n%s\n%s", wanted, got, h.Must("service", "ps", "--no-trunc", "hello"), h.Log())
		}
		return nil
	})
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// TestMainJobRepairsNetwork has somebody else flush all tables, delete the link and stop the machine from forwarding, as
// firewall services and people do.
func TestMainJobRepairsNetwork(t *testing.T) {
	l, h := oneHost(t)
	h.Must("apply", "-f", example(t))
	for name, damage := range map[string]func() error{
		"flush ruleset": func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			c.FlushRuleset()
			return c.Flush()
		},
		"delete gw0": func() error {
			link, err := netlink.LinkByName("gw0")
			if err != nil {
				return err
			}
			return netlink.LinkDel(link)
		},
		"stop forwarding": func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) },
	} {
		var took []time.Duration
		for range 5 {
			began := time.Now()
			if err := h.Do(damage); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			l.Eventually(10*time.Second, "the published port answers after "+name, func() error { return answers(l, h) })
			took = append(took, time.Since(began))
		}
		t.Logf("%s: the port answers again after %v", name, took)
	}
	repairs := metricsOf(t, h, "swarm_network_repairs_total")
	for _, kind := range []string{"table", "link", "setting"} {
		if !strings.Contains(repairs, `kind="`+kind+`"`) {
			t.Errorf("the metric of repairs has no %s:\n%s", kind, repairs)
		}
	}
}

// metricsOf are the lines of a metric that a daemon shows on its socket.
func metricsOf(t *testing.T, h *lab.Host, name string) string {
	t.Helper()
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Socket())
		}}}
	r, err := c.Get("http://swarmd/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, name) {
			lines.WriteString(line)
		}
	}
	return lines.String()
}

func answers(l *lab.Lab, h *lab.Host) error {
	_, err := l.Client.Get(fmt.Sprintf("http://%s:8080/", h.Addr))
	return err
}
