package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// host is a machine of a test: a data directory, a port on loopback, and a daemon in this process with real stores, real TLS and
// containers that exist in memory only.
type host struct {
	t      *testing.T
	name   string
	root   string
	addr   string
	log    *os.File
	fake   *runtime.Fake
	client *client.Client
	daemon *Daemon
	cancel context.CancelFunc
	ended  chan error
	before func(change string)
	labels map[string]string
}

// newHost is a machine in no swarm, whose daemon runs.
func newHost(t *testing.T, name string) *host {
	t.Helper()
	root, err := os.MkdirTemp("", "swarmd-"+name+"-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(root, "log"))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, name: name, root: root, addr: freeAddr(t), log: log, fake: runtime.NewFake(runtime.FakeOptions{})}
	t.Cleanup(func() {
		h.stop()
		log.Close()
		if t.Failed() {
			h.showLog()
		}
		os.RemoveAll(root)
	})
	h.start()
	return h
}

// freeAddr is a port that nobody has, and that the kernel gives to no connection meanwhile: those get ports from 32768 on.
func freeAddr(t *testing.T) string {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("there is no free port")
	return ""
}

func (h *host) showLog() {
	data, _ := os.ReadFile(h.log.Name())
	if len(data) > 12_000 {
		data = append([]byte("…"), data[len(data)-12_000:]...)
	}
	h.t.Logf("the log of %s:\n%s", h.name, data)
}

// start starts the daemon.
func (h *host) start() {
	h.t.Helper()
	log := slog.New(slog.NewTextHandler(io.Writer(h.log), &slog.HandlerOptions{Level: slog.LevelDebug}))
	d := newDaemon(Options{Root: h.root, Socket: filepath.Join(h.root, "s.sock"), Labels: h.labels, Log: log})
	d.runtime, d.engine, d.before = h.fake, "fake", h.before
	ctx, cancel := context.WithCancel(context.Background())
	h.daemon, h.cancel, h.ended = d, cancel, make(chan error, 1)
	go func() {
		err := d.run(ctx)
		d.close()
		h.ended <- err
	}()
	c, err := client.New("unix://" + d.o.Socket)
	if err != nil {
		h.t.Fatal(err)
	}
	h.client = c
	eventually(h.t, h.name+" to answer", func() error {
		_, err := h.client.Info(h.t.Context())
		return err
	})
}

// stop ends the daemon in order.
func (h *host) stop() {
	if h.cancel == nil {
		return
	}
	h.cancel()
	h.cancel = nil
	h.client.Close()
	select {
	case err := <-h.ended:
		if err != nil {
			h.t.Errorf("the daemon of %s ended: %v", h.name, err)
		}
	case <-time.After(time.Minute):
		h.t.Fatalf("the daemon of %s does not end", h.name)
	}
}

func (h *host) restart() {
	h.t.Helper()
	h.stop()
	h.start()
}

// copyState leaves a copy of the state on the host's disk as its daemon does on a schedule.
func (h *host) copyState() (path string) {
	h.t.Helper()
	path = h.daemon.path(copiesName + "/swarm-20260102T150405.000Z-7.tar")
	var copied bytes.Buffer
	err := errors.Join(h.client.Backup(h.t.Context(), &copied), os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, copied.Bytes(), 0o600))
	if err != nil {
		h.t.Fatal(err)
	}
	return path
}

// gone tells whether a file is no more.
func gone(path string) error {
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		return errors.New(path + " is there")
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// eventually waits until there is no error any more.
func eventually(t *testing.T, what string, look func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = look(); err == nil {
			return
		}
	}
	t.Fatalf("waited a minute for %s: %v", what, err)
}

func (h *host) initRequest() v1.InitRequest {
	return v1.InitRequest{ListenAddr: h.addr, AdvertiseAddr: h.addr}
}

// init makes a swarm and returns the node's ID.
func (h *host) init() string {
	h.t.Helper()
	id, err := h.client.Init(h.t.Context(), h.initRequest())
	if err != nil {
		h.t.Fatalf("init on %s: %v", h.name, err)
	}
	return id
}

func (h *host) tokens() v1.JoinTokens {
	h.t.Helper()
	tokens, err := h.client.JoinTokens(h.t.Context())
	if err != nil {
		h.t.Fatalf("the join tokens on %s: %v", h.name, err)
	}
	return tokens
}

// tryJoin asks to join the swarm of others.
func (h *host) tryJoin(token string, others ...*host) (string, error) {
	var remotes []string
	for _, o := range others {
		remotes = append(remotes, o.addr)
	}
	r, err := h.client.Join(h.t.Context(), v1.JoinRequest{RemoteAddrs: remotes, Token: token, ListenAddr: h.addr, AdvertiseAddr: h.addr})
	return r.NodeID, err
}

func (h *host) join(token string, others ...*host) string {
	h.t.Helper()
	id, err := h.tryJoin(token, others...)
	if err != nil {
		h.t.Fatalf("%s joins: %v", h.name, err)
	}
	return id
}

func (h *host) info() v1.Info {
	h.t.Helper()
	info, err := h.client.Info(h.t.Context())
	if err != nil {
		h.t.Fatalf("info of %s: %v", h.name, err)
	}
	return info
}

// is waits until the daemon says that of itself.
func (h *host) is(state v1.LocalNodeState, manager bool) {
	h.t.Helper()
	eventually(h.t, fmt.Sprintf("%s to be %s", h.name, state), func() error {
		if i := h.info().Swarm; i.LocalNodeState != state || i.ControlAvailable != manager {
			return fmt.Errorf("it is %s, manager %t (%s)", i.LocalNodeState, i.ControlAvailable, i.Error)
		}
		return nil
	})
}

func (h *host) node(id string) *v1.Node {
	h.t.Helper()
	n, err := client.Get(h.t.Context(), h.client, v1.Nodes, id)
	if err != nil {
		h.t.Fatalf("node %s on %s: %v", id, h.name, err)
	}
	return n
}

// setRole promotes or demotes.
func (h *host) setRole(id string, role v1.NodeRole) error {
	h.t.Helper()
	return h.trySetRole(id, role)
}

func (h *host) trySetRole(id string, role v1.NodeRole) error {
	n, err := client.Get(h.t.Context(), h.client, v1.Nodes, id)
	if err != nil || n.Spec.Role == role {
		return err
	}
	n.Spec.Role = role
	_, _, err = client.Update(h.t.Context(), h.client, v1.Nodes, n)
	return err
}

// voters waits until these nodes, and no others, vote.
func (h *host) voters(want ...string) {
	h.t.Helper()
	slices.Sort(want)
	eventually(h.t, fmt.Sprintf("the voters to be %v", want), func() error {
		list, err := client.List(h.t.Context(), h.client, v1.Members, v1.Filter{})
		if err != nil {
			return err
		}
		var got []string
		for _, m := range list {
			if m.Status.Voter {
				got = append(got, m.Meta.ID)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) || len(list) != len(want) {
			return fmt.Errorf("%d members, of which %v vote", len(list), got)
		}
		return nil
	})
}

// ready waits until the nodes have a session.
func (h *host) ready(ids ...string) {
	h.t.Helper()
	for _, id := range ids {
		eventually(h.t, "node "+id+" to be there", func() error {
			n, err := client.Get(h.t.Context(), h.client, v1.Nodes, id)
			if err != nil {
				return err
			}
			if n.Status == nil || n.Status.State != v1.NodeReady || n.Desired != nil && !n.Desired.Down.IsZero() {
				return errors.New("it is not")
			}
			return nil
		})
	}
}

// writes tells whether the swarm takes a change through this host.
func (h *host) writes() {
	h.t.Helper()
	eventually(h.t, "the swarm to take a change", func() error {
		ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
		defer cancel()
		_, _, err := client.Create(ctx, h.client, v1.Configs, &v1.Config{
			Meta: v1.Meta{Name: "c" + v1.NewID()}, Spec: &v1.ConfigSpec{Data: []byte("x")},
		})
		return err
	})
}

// refused holds an error to what people are told.
func refused(t *testing.T, err error, status int, words ...string) {
	t.Helper()
	if client.Status(err) != status {
		t.Errorf("refused with %d (%v), want %d", client.Status(err), err, status)
	}
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%v, want an error with %q", err, w)
		}
	}
}

// files are all files of the host's data directory that say that it is in a swarm.
func (h *host) files() []string {
	var found []string
	for _, name := range []string{identityName, managersName, certFolder, storeName, leavingName, copiesName} {
		if h.daemon.disk().exists(name) {
			found = append(found, name)
		}
	}
	return found
}
