package agent

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// The state file holds the last assignment and what became of it. It is written whole and put in place at once, so it is
// either the old one or the new. It never holds a secret's data: assignments have none.

// stateFile is the loop's part of it.
type stateFile struct {
	number, written uint64 // of what there is to write, and of what was written or could not be
	soft            bool   // something changed that can wait
	writing         bool
	rebooted        bool // the file is of an earlier boot of the machine
	waiting         map[*task]bool
	next            time.Time // no write before: see saveRest
	softAt          time.Time
	failures        int
}

const (
	stateFormat = 1
	stateName   = "agent.json"
	// softDelay is how long what is not needed on disk may wait to get there.
	softDelay = time.Second
	// saveRest bounds how long nothing is written after a write, so that writing takes a tenth of the time, or half where it takes long.
	saveRest = 100 * time.Millisecond
	// maxState bounds the state file that is read; one task takes about a kilobyte.
	maxState = 1 << 30
)

// saved is the state file.
type saved struct {
	Format    int                   `json:"format"`
	Boot      string                `json:"boot,omitempty"`
	NodeID    string                `json:"nodeID"`
	Revision  int64                 `json:"revision"`
	Node      *v1.Node              `json:"node,omitempty"`
	Pool      string                `json:"pool,omitempty"`
	Prefix6   string                `json:"prefix6,omitempty"`
	Revisions []*v1.ServiceRevision `json:"revisions,omitempty"`
	// Networks are those of this node: no link can be repaired without.
	Networks []*v1.PeerNetwork `json:"networks,omitempty"`
	Tasks    []savedTask       `json:"tasks,omitempty"`
}

// savedTask is one task's part.
type savedTask struct {
	Task   *v1.Task      `json:"task"`
	Status v1.TaskStatus `json:"status"`
	Told   bool          `json:"told,omitempty"`
	Gone   bool          `json:"gone,omitempty"`
	StopAt time.Time     `json:"stopAt,omitzero"`
}

// dirty has the state file written, and is the number to wait for.
func (a *Agent) dirty() uint64 {
	if a.o.Dir == "" {
		return 0
	}
	if a.state.number == a.state.written || a.state.writing {
		a.state.number++ // what is being written now does not have it
	}
	return a.state.number
}

// onDisk tells whether the state file has what must be there before the task goes on, which whoever writes the file then
// sees to.
func (a *Agent) onDisk(t *task) bool {
	if a.state.written >= t.saved {
		return true
	}
	a.state.waiting = addTo(a.state.waiting, t)
	return false
}

// pumpSave writes the state file if it must, and says when to do so later.
func (a *Agent) pumpSave(now time.Time) time.Time {
	s := &a.state
	if a.o.Dir == "" || s.writing {
		return time.Time{}
	}
	if s.number == s.written {
		if !s.soft {
			return time.Time{}
		}
		if now.Before(s.softAt) {
			return s.softAt
		}
		a.dirty()
	}
	if now.Before(s.next) {
		return s.next
	}
	number, contents := s.number, a.contents()
	s.writing, s.soft = true, false
	began := time.Now()
	a.workers.Go(func() {
		if a.at("before save") {
			return
		}
		err := write(a.o.Dir, stateName, contents)
		if a.at("after save") {
			return
		}
		took := time.Since(began)
		a.post(func() { a.wrote(number, took, err) })
	})
	return time.Time{}
}

// wrote goes on with the tasks that waited for the state file. If it cannot be written they go on all the same: what runs
// matters more than what is remembered of it.
func (a *Agent) wrote(number uint64, took time.Duration, err error) {
	s := &a.state
	s.writing, s.written = false, number
	now := a.o.Now()
	s.next = now.Add(max(took, min(9*took, saveRest)))
	if err != nil {
		s.failures++
		a.log.Error("cannot write the state file; after a restart tasks may be lost track of", "dir", a.o.Dir, "err", err)
		a.later(now.Add(min(softDelay<<min(s.failures, 5), retryMost)))
	} else {
		s.failures = 0
	}
	if len(a.reports.pending) > 0 {
		a.reports.at = earliest(a.reports.at, now.Add(soonDelay)) // how a task ended is told once it is on disk
	}
	waiting := s.waiting
	s.waiting = nil
	for _, t := range sorted(waiting) {
		a.advance(t)
	}
}

// later has the state file written by then.
func (a *Agent) later(at time.Time) {
	if !a.state.soft {
		a.state.soft, a.state.softAt = true, at
	}
}

// contents is what to write; the objects in it never change.
func (a *Agent) contents() *saved {
	s := &saved{Format: stateFormat, Boot: a.o.Boot, NodeID: a.o.NodeID, Revision: a.revision, Node: a.node, Pool: a.pool, Prefix6: a.prefix6}
	used := make(map[string]*v1.ServiceRevision)
	for _, t := range a.tasks {
		if t.assigned == nil {
			continue
		}
		s.Tasks = append(s.Tasks, savedTask{Task: t.assigned, Status: t.status, Told: t.told == t.version, Gone: t.gone, StopAt: t.stopAt})
		if t.revision != nil {
			used[t.revision.Meta.ID] = t.revision
		}
	}
	slices.SortFunc(s.Tasks, func(a, b savedTask) int { return cmp.Compare(a.Task.Meta.ID, b.Task.Meta.ID) })
	for _, r := range used {
		s.Revisions = append(s.Revisions, r)
	}
	slices.SortFunc(s.Revisions, func(a, b *v1.ServiceRevision) int { return cmp.Compare(a.Meta.ID, b.Meta.ID) })
	for _, n := range a.peers.networks {
		s.Networks = append(s.Networks, n)
	}
	slices.SortFunc(s.Networks, func(a, b *v1.PeerNetwork) int { return cmp.Compare(a.ID, b.ID) })
	return s
}

// write puts a file in place: a line with the SHA-256 of the rest, and the rest.
func write(dir, name string, s any) (err error) {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("agent: state file: %w", err)
	}
	sum := sha256.Sum256(body)
	f, err := os.CreateTemp(dir, name+".*")
	if err != nil {
		return fmt.Errorf("agent: state file: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	for _, part := range [][]byte{[]byte(hex.EncodeToString(sum[:])), {'\n'}, body} {
		if _, err = f.Write(part); err != nil {
			return fmt.Errorf("agent: state file: %w", err)
		}
	}
	if err = errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("agent: state file: %w", err)
	}
	if err = os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("agent: state file: %w", err)
	}
	return nil
}

// read reads the state file.
func read(dir string) (*saved, error) {
	s := new(saved)
	if err := readFile(dir, stateName, s); err != nil {
		return nil, err
	}
	if s.Format != stateFormat {
		return nil, fmt.Errorf("agent: %s has format %d, this agent reads %d", filepath.Join(dir, stateName), s.Format, stateFormat)
	}
	return s, nil
}

// readFile reads a file that write put in place.
func readFile(dir, name string, into any) error {
	path := filepath.Join(dir, name)
	if info, err := os.Stat(path); err != nil || info.Size() > maxState {
		return cmp.Or(err, fmt.Errorf("agent: %s is larger than %d bytes", path, maxState))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	sum, body, _ := bytes.Cut(data, []byte("\n"))
	if want := sha256.Sum256(body); hex.EncodeToString(want[:]) != string(sum) {
		return fmt.Errorf("agent: %s is damaged: its checksum does not match", path)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("agent: %s: %w", path, err)
	}
	return nil
}

// load goes on from the state file. Without one that can be read the agent waits for a manager's assignment, and touches
// nothing until then.
func (a *Agent) load() error {
	if a.o.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(a.o.Dir, 0o700); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	for _, name := range []string{stateName, peersName} {
		leftovers, _ := filepath.Glob(filepath.Join(a.o.Dir, name+".*")) // of a write that was cut short
		for _, path := range leftovers {
			os.Remove(path)
		}
	}
	s, err := read(a.o.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		path := filepath.Join(a.o.Dir, stateName)
		a.log.Error("cannot read the state file; starting from the manager's next assignment, what runs is left alone until then", "err", err,
			"kept", path+"-damaged")
		if err := os.Rename(path, path+"-damaged"); err != nil {
			a.log.Warn("cannot keep the damaged state file; the next one takes its place", "err", err)
		}
		return nil
	case s.NodeID != a.o.NodeID:
		a.log.Warn("the state file is of another node; starting from the manager's next assignment", "other", s.NodeID)
		return nil
	}
	a.restore(s)
	a.loadPeers(s.Networks)
	return nil
}

// restore takes over what a state file says.
func (a *Agent) restore(s *saved) {
	a.revision, a.node, a.pool, a.prefix6 = s.Revision, s.Node, s.Pool, s.Prefix6
	a.state.rebooted = s.Boot != "" && a.o.Boot != "" && s.Boot != a.o.Boot
	if a.node != nil && a.node.Spec == nil {
		a.node = nil
	}
	for _, r := range s.Revisions {
		if r != nil && r.Spec != nil {
			a.revisions[r.Meta.ID] = r
		}
	}
	for _, st := range s.Tasks {
		if st.Task == nil || st.Task.Desired == nil {
			continue
		}
		t := &task{id: st.Task.Meta.ID, assigned: st.Task, revision: a.revisions[st.Task.Desired.Revision],
			status: st.Status, gone: st.Gone, stopAt: st.StopAt}
		a.tasks[t.id] = t
		if t.status.State.Terminal() {
			t.phase = phaseEnded
		}
		if addr, err := netip.ParseAddr(t.status.Address); err == nil && t.phase < phaseEnded {
			t.addr = addr
			a.links.used[addr] = t.id
		}
		if !st.Told {
			a.tell(t)
		}
	}
	a.setBlock()
	a.log.Info("going on from the state file", "revision", a.revision, "tasks", len(a.tasks))
}

// saveLast writes what there is still to write when the agent stops.
func (a *Agent) saveLast() {
	a.savePeersLast()
	if a.o.Dir == "" || a.state.number == a.state.written && !a.state.soft {
		return
	}
	if err := write(a.o.Dir, stateName, a.contents()); err != nil {
		a.log.Error("cannot write the state file", "err", err)
	}
}
