package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// TestRoom: a member whose space is used up by history makes room by itself; where the state itself is too large, it says so, and
// takes removals.
func TestRoom(t *testing.T) {
	var log bytes.Buffer
	s := open(t, Config{Dir: t.TempDir(), quota: 112 << 20, maintain: time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil))})
	value := strings.Repeat("x", 100_000)
	try := func(id string) error {
		_, err := s.Commit(t.Context(), store.Commit{Ops: []store.Op{secret(id, value, store.Always())}})
		return err
	}
	fill := func(id func(int) string) int {
		for i := range 2000 {
			if err := try(id(i)); err != nil {
				if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, errTight) {
					t.Fatalf("full: %v", err)
				}
				return i
			}
		}
		t.Fatal("it does not become full")
		return 0
	}
	var m maintenance
	room := func() {
		t.Helper()
		at, err := s.Sync(t.Context())
		if err == nil {
			_, err = s.Snapshot(t.Context(), at)
		}
		if err != nil {
			t.Fatal(err)
		}
		s.makeRoom(&m)
	}
	for range 2 {
		fill(func(int) string { return "same" })
		if room(); s.tight() || m.full {
			t.Fatal("there is no room after history was removed")
		}
		if err := try("after"); err != nil {
			t.Errorf("after there was room: %v", err)
		}
	}
	// Past our own bound, to etcd's: its alarm is taken back.
	for i := 0; !s.full(); i++ {
		if _, err := s.client.Put(t.Context(), nothing, value); err != nil && i > 2000 {
			t.Fatalf("no alarm, and %v", err)
		}
	}
	if err := try("alarm"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("while there is an alarm: %v", err)
	}
	if room(); s.full() || m.full {
		t.Fatal("the alarm is still there")
	}
	n := 0
	for !m.full { // some of what fills it is history
		from := n
		n += fill(func(i int) string { return fmt.Sprint("other", from+i) })
		room()
	}
	if !s.tight() || !strings.Contains(log.String(), "fills etcd") {
		t.Errorf("the state is too large, and nobody was told: %s", log.String())
	}
	for i := range n / 2 {
		commit(t, s, store.Op{Kind: v1.KindSecret, ID: fmt.Sprint("other", i), Section: v1.SectionSpec, If: store.Always()},
			secret("claim", "", store.Always()))
	}
	for until := time.Now().Add(10 * time.Second); ; { // as the store goes on to, where etcd took too long or had not counted yet
		if room(); !m.full {
			break
		} else if time.Now().After(until) {
			t.Fatal("there is no room after removals")
		}
	}
	if err := try("again"); err != nil {
		t.Errorf("after removals: %v", err)
	}
}

// TestRoomInTime: history is cut by its size, whatever its age.
func TestRoomInTime(t *testing.T) {
	s := open(t, Config{Dir: t.TempDir()})
	before := s.counters.seenBytes.Load()
	last := commit(t, s, secret("a", strings.Repeat("x", 300_000), store.Absent()))
	if _, err := s.Snapshot(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if n := s.counters.seenBytes.Load() - before; n < 300_000 || n > 500_000 {
		t.Errorf("300,000 bytes count as %d", n)
	}
	var m maintenance
	m.turn(mark{time.Unix(0, 0), last, 1, 0}, time.Hour)
	last = commit(t, s, secret("b", "", store.Absent()))
	if upTo := m.turn(mark{time.Unix(1, 0), last, 2, keepBytes + 1}, time.Hour); upTo != last-1 {
		t.Fatalf("compacts to %d", upTo)
	}
	s.compact(last - 1)
	if _, err := s.client.Get(t.Context(), ours, clientv3.WithRev(last-2)); err == nil {
		t.Error("the history is there")
	}
}
