package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// attach assigns an attachment of a namespace to the node.
func (s *swarm) attach(id, namespace string) {
	s.peers = v1.Peers{Networks: []v1.PeerNetwork{peerNetwork("n1", 4096)}}
	s.change(id, func(*v1.Task) *v1.Task {
		return &v1.Task{Meta: v1.Meta{ID: id}, Desired: &v1.TaskDesired{Service: "attachment", ServiceName: "blue", Slot: 1, Attempt: 1, State: v1.TaskRunning,
			Placement: &v1.TaskPlacement{Node: nodeID}, Networks: []v1.NetworkAddress{{Network: "n1", Addresses: []string{"10.0.1.9/24"}}},
			Attachment: &v1.TaskAttachment{Node: nodeID, Namespace: namespace, Networks: []string{"n1"}, Aliases: []string{"Azure"}}}}
	})
}

// namespaceFile is the file of a namespace, as far as a test without a kernel's needs one.
func namespaceFile(t *testing.T, l *lab) string {
	t.Helper()
	l.net.spaces = t.TempDir()
	path := filepath.Join(t.TempDir(), "blue")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// linked tells whether the network has a link to the namespace, as it should be.
func (l *lab) linked(path string) bool {
	for _, t := range l.net.config().Tasks {
		if t.Guest == path && t.Internal && len(t.Networks) == 1 {
			return true
		}
	}
	return false
}

// TestAttachment: an attachment is linked without a container, found by its names, taken over by the next process, and ends with its namespace,
// also where another has come in its place, and not before.
func TestAttachment(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		path := namespaceFile(t, l)
		l.swarm.attach("t1", path)
		l.start(nil)
		settle(10 * time.Second)
		l.want("t1", v1.TaskRunning)
		shown := l.names.shown(t)
		if !l.linked(path) || !strings.Contains(shown, "blue") || !strings.Contains(shown, "azure") {
			t.Fatalf("config %+v, names %s", l.net.config(), shown)
		}
		l.stop()
		l.start(nil)
		settle(10 * time.Second)
		l.want("t1", v1.TaskRunning)
		if !l.linked(path) {
			t.Errorf("after a restart: %+v", l.net.config())
		}
		if err := os.Rename(path, path+"-old"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		settle(5 * time.Second)
		if status := l.want("t1", v1.TaskComplete); !strings.Contains(status.Message, path+" is gone") {
			t.Errorf("its end is told as %q", status.Message)
		}
		if l.linked(path) || strings.Contains(l.names.shown(t), "azure") {
			t.Errorf("it has ended: config %+v, names %s", l.net.config(), l.names.shown(t))
		}
		l.wantHistory("t1", v1.TaskRunning, v1.TaskComplete)
	})
}

// TestAttachmentThatLostALink: what keeps a link of an attachment that runs from being made again is said of it, and no longer than it does.
func TestAttachmentThatLostALink(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		l.swarm.attach("t1", namespaceFile(t, l))
		l.start(nil)
		settle(10 * time.Second)
		l.want("t1", v1.TaskRunning)
		fail := func(err error) {
			l.net.mu.Lock()
			defer l.net.mu.Unlock()
			l.net.fail = err
		}
		fail(&netplugin.TaskError{Task: "t1", Err: errors.New("there is another link swarm1")})
		l.net.disturbed <- struct{}{}
		settle(time.Minute)
		if status := l.want("t1", v1.TaskRunning); status.Err != "setting up the network: there is another link swarm1; trying again" {
			t.Errorf("status is %+v", status)
		}
		tried := func() int {
			l.net.mu.Lock()
			defer l.net.mu.Unlock()
			return l.net.applies
		}
		before := tried()
		settle(time.Minute)
		if n, want := tried()-before, int(time.Minute/aloneMost)-1; n < want {
			t.Errorf("tried %d times within a minute, want %d", n, want)
		}
		fail(nil) // which nobody tells
		settle(aloneMost + 100*time.Millisecond)
		if status := l.want("t1", v1.TaskRunning); status.Err != "" {
			t.Errorf("status is %+v", status)
		}
	})
}

// TestAttachmentDetached: its end is told once the links are gone.
func TestAttachmentDetached(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		path := namespaceFile(t, l)
		l.net.delay = 300 * time.Millisecond
		l.swarm.attach("t1", path)
		l.start(nil)
		settle(10 * time.Second)
		l.want("t1", v1.TaskRunning)
		l.swarm.reject = func(r v1.StatusReport) error {
			for _, told := range r.Tasks {
				if told.Status.State.Terminal() && l.linked(path) {
					t.Errorf("it is told to have ended while it is linked")
				}
			}
			return nil
		}
		l.swarm.desire("t1", v1.TaskRemove)
		settle(10 * time.Second)
		l.want("t1", v1.TaskShutdown)
		l.swarm.remove("t1")
		settle(5 * time.Second)
		l.wantClean()
	})
}

// TestAttachmentRefusedByItsNode: what cannot be attached is rejected at once, and is not tried again.
func TestAttachmentRefusedByItsNode(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		namespaceFile(t, l)
		l.swarm.attach("t1", "/nonexistent/blue")
		l.start(nil)
		settle(5 * time.Second)
		if status := l.want("t1", v1.TaskRejected); !strings.Contains(status.Err, "/nonexistent/blue cannot be attached") {
			t.Errorf("it is rejected with %q", status.Err)
		}
	})
}

// TestAttachmentOfEarlierBoot: a restart of the machine ends it, whatever is at its path by then.
func TestAttachmentOfEarlierBoot(t *testing.T) {
	bubble(t, engine.FakeOptions{}, func(t *testing.T, l *lab) {
		path := namespaceFile(t, l)
		l.swarm.attach("t1", path)
		l.start(nil)
		settle(10 * time.Second)
		l.want("t1", v1.TaskRunning)
		l.stop()
		l.boot = "second"
		l.start(nil)
		settle(10 * time.Second)
		l.want("t1", v1.TaskComplete)
	})
}
