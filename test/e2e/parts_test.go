package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// TestMainJobPartsAlone runs the API server, the rules and an agent as processes of their own, on an etcd of the user's.
func TestMainJobPartsAlone(t *testing.T) {
	l := lab.New(t, "manager1")
	h := l.Hosts[0]
	endpoint := "http://127.0.0.1:2379"
	keys := filepath.Join(h.Root, "keyring.json")
	h.Run("etcd", "--data-dir", filepath.Join(h.Root, "own-etcd"), "--log-level", "error", "--max-txn-ops", "4096",
		"--listen-client-urls", endpoint, "--advertise-client-urls", endpoint, "--listen-peer-urls", "http://127.0.0.1:2380")
	h.Run("apiserver", "--etcd-endpoints", endpoint, "--key-file", keys, "--socket", h.Socket())
	l.Eventually(30*time.Second, "the API server answers", func() error { return h.Ctl("get", "services").Err })
	h.Run("controller-manager", "--etcd-endpoints", endpoint, "--key-file", keys)
	h.Run("agent", "--host", "unix://"+h.Socket(), "--root", filepath.Join(h.Root, "agent"))
	l.Eventually(30*time.Second, "the node is ready", func() error {
		if out := h.Must("node", "ls", "--format", "{{.Status}}"); out != "Ready\n" {
			return fmt.Errorf("node ls: %q", out)
		}
		return nil
	})
	h.Must("service", "create", "--detach", "--name", "alone", "--replicas", "2", "127.0.0.1:1/nosuch:1")
	l.Eventually(30*time.Second, "the agent tried to pull", func() error {
		if out := h.Must("service", "ps", "alone", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}"); !containsAll(out, "Rejected", "nosuch") {
			return fmt.Errorf("service ps: %s", out)
		}
		return nil
	})
}
