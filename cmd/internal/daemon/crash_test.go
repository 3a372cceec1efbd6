package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/store"
)

// Environment of a daemon that is a process of its own, and kills itself.
const (
	envRoot  = "SWARMD_TEST_ROOT"
	envCrash = "SWARMD_TEST_CRASH" // before which change of its disk; 0 for never
)

// TestAsDaemon is no test: it is the daemon of the tests below, when they start this program again.
func TestAsDaemon(t *testing.T) {
	root := os.Getenv(envRoot)
	if root == "" {
		return
	}
	crash, err := strconv.ParseInt(os.Getenv(envCrash), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(root, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(Options{
		Root: root, Socket: filepath.Join(root, "s.sock"),
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	d.runtime, d.engine = runtime.NewFake(runtime.FakeOptions{}), "fake"
	var changes atomic.Int64
	d.before = func(change string) {
		if n := changes.Add(1); n == crash {
			fmt.Fprintf(log, "killed before %q\n", change)
			noteKey(d)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := d.run(ctx); err != nil {
		t.Fatal(err)
	}
	d.close()
}

// keyAtDeath is a file with the unlock key that the swarm had when a victim died: whoever asked for it might not have got the answer.
const keyAtDeath = "key-at-death"

func noteKey(d *Daemon) {
	n := d.inside.Load()
	if n == nil || !n.mu.TryLock() { // held by whom the change is of, and then it is not one of keys
		return
	}
	m := n.manager
	n.mu.Unlock()
	if m == nil || m.opened() == nil {
		return
	}
	s, err := m.opened().Snapshot(context.Background(), 0)
	if err != nil {
		return
	}
	if a, ok := store.Get(s, v1.Authorities, v1.AuthorityName); ok {
		_ = os.WriteFile(d.path(keyAtDeath), []byte(a.Spec.UnlockKey), 0o600) // without it, the test says what is wrong
	}
}

// victim is a host whose daemon is a process of its own, and is started again when it dies, as an init system does it.
type victim struct {
	*host
	died  atomic.Bool
	stop  context.CancelFunc
	ended chan struct{}
}

// newVictim is a machine in no swarm. Its daemon does not run yet.
func newVictim(t *testing.T) *victim {
	t.Helper()
	root, err := os.MkdirTemp("", "swarmd-v-")
	if err != nil {
		t.Fatal(err)
	}
	v := &victim{host: &host{t: t, name: "victim", root: root, addr: freeAddr(t)}}
	v.daemon = newDaemon(Options{Root: root}) // for its disk
	if v.client, err = client.New("unix://" + filepath.Join(root, "s.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		v.halt()
		if t.Failed() {
			data, _ := os.ReadFile(filepath.Join(root, "log"))
			t.Logf("the log of the victim:\n%s", data[max(0, len(data)-8000):])
		}
		os.RemoveAll(root)
	})
	return v
}

// run starts the daemon, which kills itself before a change of its disk, once; 0 for never.
func (v *victim) run(crash int) {
	v.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	v.stop, v.ended = stop, make(chan struct{})
	go func() {
		defer close(v.ended)
		for ; ctx.Err() == nil; crash = 0 {
			p := exec.CommandContext(ctx, os.Args[0], "-test.run", "^TestAsDaemon$")
			p.Env = append(os.Environ(), envRoot+"="+v.root, envCrash+"="+strconv.Itoa(crash))
			err := p.Run()
			if ctx.Err() == nil {
				v.died.Store(true)
				if crash == 0 {
					v.t.Errorf("the daemon of the victim ended: %v", err)
				}
			}
		}
	}()
	v.answers()
}

func (v *victim) answers() {
	v.t.Helper()
	eventually(v.t, "the victim to answer", func() error {
		_, err := v.client.Info(v.t.Context())
		return err
	})
}

// halt kills the daemon for good.
func (v *victim) halt() {
	if v.stop != nil {
		v.stop()
		<-v.ended
		v.stop = nil
	}
}

// again is halt and run.
func (v *victim) again(crash int) {
	v.t.Helper()
	v.halt()
	v.run(crash)
}

// persists does something until it works, over deaths of the victim: what it says the first time may be of one.
func (v *victim) persists(what string, do func() error) {
	v.t.Helper()
	eventually(v.t, what, func() error {
		v.answers()
		return do()
	})
}

// joined has the victim in the swarm of a, whatever it died of before.
func (v *victim) joined(token string, a *host) {
	v.t.Helper()
	v.persists("the victim to join", func() error {
		info, err := v.client.Info(v.t.Context())
		if err != nil || info.Swarm.LocalNodeState != v1.LocalNodeInactive {
			return err
		}
		_, err = v.tryJoin(token, a)
		return err
	})
}

// left has the victim in no swarm.
func (v *victim) left() {
	v.t.Helper()
	v.persists("the victim to leave", func() error {
		info, err := v.client.Info(v.t.Context())
		if err != nil || info.Swarm.LocalNodeState == v1.LocalNodeInactive {
			return err
		}
		return v.client.Leave(v.t.Context(), true)
	})
	if left := v.files(); len(left) > 0 {
		v.t.Errorf("it left %v", left)
	}
}

// is waits over deaths of the victim.
func (v *victim) is(state v1.LocalNodeState, manager bool) {
	v.t.Helper()
	v.persists(fmt.Sprintf("the victim to be %s", state), func() error {
		info, err := v.client.Info(v.t.Context())
		if err == nil && (info.Swarm.LocalNodeState != state || info.Swarm.ControlAvailable != manager) {
			err = fmt.Errorf("it is %s, manager %t (%s)", info.Swarm.LocalNodeState, info.Swarm.ControlAvailable, info.Swarm.Error)
		}
		return err
	})
}

func (v *victim) id() (id string) {
	v.t.Helper()
	v.persists("the victim's ID", func() error {
		info, err := v.client.Info(v.t.Context())
		id = info.ID
		return err
	})
	return id
}

// crashes does something with a victim over and over, which dies one change of its disk later each time, until it lives through it.
func crashes(t *testing.T, round func(t *testing.T, crash int) (died bool)) {
	if testing.Short() {
		t.Skip("it kills many daemons")
	}
	for crash := 1; ; crash++ {
		died := false
		t.Run(strconv.Itoa(crash), func(t *testing.T) { died = round(t, crash) })
		if !died || t.Failed() {
			if crash < 2 && !t.Failed() {
				t.Error("it never died")
			}
			return
		}
	}
}

func TestCrashInInit(t *testing.T) {
	crashes(t, func(t *testing.T, crash int) bool {
		v := newVictim(t)
		v.run(crash)
		v.persists("the victim to make a swarm", func() error {
			info, err := v.client.Info(t.Context())
			if err != nil || info.Swarm.LocalNodeState != v1.LocalNodeInactive {
				return err
			}
			_, err = v.client.Init(t.Context(), v.initRequest())
			return err
		})
		v.is(v1.LocalNodeActive, true)
		v.ready(v.id())
		v.writes()
		return v.died.Load()
	})
}

func TestCrashInJoinAsWorker(t *testing.T)  { testCrashInJoin(t, v1.RoleWorker) }
func TestCrashInJoinAsManager(t *testing.T) { testCrashInJoin(t, v1.RoleManager) }

// testCrashInJoin joins, and leaves again.
func testCrashInJoin(t *testing.T, role v1.NodeRole) {
	a := newHost(t, "a")
	ia := a.init()
	token := a.tokens().Worker
	if role == v1.RoleManager {
		token = a.tokens().Manager
	}
	crashes(t, func(t *testing.T, crash int) bool {
		v := newVictim(t)
		v.run(crash)
		v.joined(token, a)
		v.is(v1.LocalNodeActive, role == v1.RoleManager)
		id := v.id()
		a.ready(id)
		if role == v1.RoleManager {
			a.voters(ia, id)
			v.writes()
		}
		v.left()
		a.voters(ia)
		return v.died.Load()
	})
}

// TestCrashInRestore restores a backup of a swarm that locks itself.
func TestCrashInRestore(t *testing.T) {
	a := newHost(t, "a")
	r := a.initRequest()
	r.AutoLock = true
	if _, err := a.client.Init(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	key, err := a.client.UnlockKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := a.client.Backup(t.Context(), &archive); err != nil {
		t.Fatal(err)
	}
	crashes(t, func(t *testing.T, crash int) bool {
		v := newVictim(t)
		v.run(crash)
		v.persists("the backup to be restored", func() error {
			info, err := v.client.Info(t.Context())
			switch {
			case err != nil:
				return err
			case info.Swarm.LocalNodeState == v1.LocalNodeInactive:
				_, err = v.client.Restore(t.Context(), v.initRequest(), bytes.NewReader(archive.Bytes()))
				return errors.Join(err, errors.New("it was restored just now"))
			case info.Swarm.LocalNodeState == v1.LocalNodeLocked:
				return errors.Join(v.client.Unlock(t.Context(), key), errors.New("it was unlocked just now"))
			case !info.Swarm.ControlAvailable:
				return errors.New("it is " + string(info.Swarm.LocalNodeState))
			}
			return nil
		})
		v.ready(v.id())
		sealed(t, v.host, true)
		return v.died.Load()
	})
}

// TestCrashInForceNewCluster loses its other manager first.
func TestCrashInForceNewCluster(t *testing.T) {
	crashes(t, func(t *testing.T, crash int) bool {
		v := newVictim(t)
		v.run(0)
		v.init()
		b := newHost(t, "b")
		v.voters(v.id(), b.join(v.tokens().Manager, v.host))
		b.stop()
		v.again(0)
		v.is(v1.LocalNodePending, false)
		v.again(crash)
		v.persists("a new cluster", func() error {
			info, err := v.client.Info(t.Context())
			if err != nil || info.Swarm.ControlAvailable {
				return err
			}
			_, err = v.client.Init(t.Context(), v1.InitRequest{ForceNewCluster: true})
			return err
		})
		v.is(v1.LocalNodeActive, true)
		v.voters(v.id())
		v.writes()
		return v.died.Load()
	})
}

// TestCrashInRoles has a worker made a manager, and a worker again.
func TestCrashInRoles(t *testing.T) {
	a := newHost(t, "a")
	ia := a.init()
	crashes(t, func(t *testing.T, crash int) bool {
		v := newVictim(t)
		v.run(0)
		id := v.host.join(a.tokens().Worker, a)
		v.again(crash)
		change := func(role v1.NodeRole) {
			eventually(t, "the role to change", func() error { return a.trySetRole(id, role) })
			v.is(v1.LocalNodeActive, role == v1.RoleManager)
		}
		change(v1.RoleManager)
		a.voters(ia, id)
		change(v1.RoleWorker)
		a.voters(ia)
		a.ready(id)
		eventually(t, "the certificate to be a worker's", func() error {
			if role := (certificates{v.daemon.disk()}).role(); role != v1.RoleWorker || v.daemon.disk().exists(storeName) {
				return fmt.Errorf("it is a %s's", role)
			}
			return nil
		})
		v.left()
		return v.died.Load()
	})
}

// TestCrashInLocking turns autolock on, changes the key, and turns it off.
func TestCrashInLocking(t *testing.T) {
	crashes(t, func(t *testing.T, crash int) bool {
		v := newVictim(t)
		v.run(0)
		v.init()
		before := v.copyState()
		v.again(crash)
		keys := []string{""}
		for _, do := range []func() (string, error){
			func() (string, error) { return v.setAutolock(true) },
			func() (string, error) { return v.client.RotateUnlockKey(t.Context()) },
			func() (string, error) { return v.setAutolock(false) },
		} {
			v.persists("autolock to change", func() error {
				v.unlockAny(keys)
				key, err := do()
				if err == nil {
					keys = append(keys, key)
				}
				return err
			})
			v.persists("the disk to follow", func() error {
				v.unlockAny(keys)
				return opens(v.daemon.disk(), keys[len(keys)-1])
			})
			if err := gone(before); err != nil { // and with it what opened it before
				t.Error(err)
			}
		}
		v.persists("the victim to be open", func() error {
			v.unlockAny(keys)
			info, err := v.client.Info(t.Context())
			if err == nil && !info.Swarm.ControlAvailable {
				err = errors.New("it is " + string(info.Swarm.LocalNodeState))
			}
			return err
		})
		v.again(0)
		v.is(v1.LocalNodeActive, true)
		return v.died.Load()
	})
}

// opens tells whether the node's key is sealed with the unlock key, or with none. It is the last thing that a manager writes then.
func opens(d disk, unlock string) error {
	key, err := d.read(keyName)
	if err != nil {
		return err
	}
	if unlock == "" && ca.Sealed(key) {
		return errors.New("it is sealed")
	}
	if unlock == "" {
		return nil
	}
	kek, err := ca.ParseUnlockKey(unlock)
	if err == nil {
		_, err = ca.OpenKey(key, kek)
	}
	return err
}

// setAutolock turns locking on or off, and returns the key.
func (h *host) setAutolock(lock bool) (key string, err error) {
	c, err := client.Get(h.t.Context(), h.client, v1.Clusters, v1.ClusterName)
	if err != nil {
		return "", err
	}
	if c.Spec.AutoLock != lock {
		c.Spec.AutoLock = lock
		if _, _, err := client.Update(h.t.Context(), h.client, v1.Clusters, c); err != nil {
			return "", err
		}
	}
	return h.client.UnlockKey(h.t.Context())
}

// unlockAny brings the victim one of the keys, the newest first, if it is locked.
func (v *victim) unlockAny(keys []string) {
	info, err := v.client.Info(v.t.Context())
	if err != nil || info.Swarm.LocalNodeState != v1.LocalNodeLocked {
		return
	}
	if told, err := v.daemon.disk().read(keyAtDeath); err == nil {
		keys = append(slices.Clip(keys), string(told))
	}
	for _, key := range slices.Backward(keys) {
		if v.client.Unlock(v.t.Context(), key) == nil {
			return
		}
	}
}
