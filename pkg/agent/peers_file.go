package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// What managers told of others is kept in a file of its own: it can be large and changes all the time, and it is no harm when the
// last moment of it is lost. A manager may be away for hours, and answers and ports have to stay right after a restart. What changes is
// added to a second file, see peers_changes.go.

const (
	peersName = "peers.json"
	// peersDelay is how long a change waits to get there, peersShare how many times longer than a write takes: writing costs less
	// than a twentieth of a core.
	peersDelay = time.Second
	peersShare = 20
)

// peersFile is the loop's part of it.
type peersFile struct {
	stale   bool
	writing bool
	at      time.Time   // no write before
	changes []*v1.Peers // that are in no file yet
	log     *changeLog  // that goes on from the file; nil where the next write is of all
	ended   bool        // the log that is being written goes on no more
}

// savedPeers is the file.
type savedPeers struct {
	Format   int      `json:"format"`
	NodeID   string   `json:"nodeID"`
	Revision int64    `json:"revision"`
	Peers    v1.Peers `json:"peers"`
}

// takePeers takes what a manager says of others.
func (a *Agent) takePeers(m v1.Assignment) {
	told := m.Peers
	if a.o.Network == nil { // nobody here reaches anybody
		if told != nil && told.Number != 0 {
			a.o.Manager.Followed(told.Number)
		}
		return
	}
	if m.Complete && told == nil {
		told = new(v1.Peers)
	}
	if emptyPeers(told) && !m.Complete {
		return
	}
	a.peers.take(told, m.Complete, a.used())
	a.links.told.add([]time.Time{a.o.Now()}, told.Stamps)
	a.links.told.number = cmp.Or(told.Number, a.links.told.number)
	kept := *told
	kept.Stamps, kept.Number = nil, 0
	a.peersChanged(&kept, m.Complete)
	if !m.Complete {
		a.links.othersAt = a.o.Now()
	}
	a.links.touch()
}

// onlyPeers tells whether a message has nothing but others.
func onlyPeers(m v1.Assignment) bool {
	return !m.Complete && m.Node == nil && m.GatewayPool == "" && m.GatewayPrefix6 == "" && len(m.Tasks)+len(m.Removed)+len(m.Services) == 0 &&
		(m.Peers == nil || len(m.Peers.Networks) == 0)
}

func (a *Agent) peersChanged(by *v1.Peers, complete bool) {
	f := &a.peersFile
	if f.changes = append(f.changes, by); complete || len(f.changes) > maxChanges {
		f.endLog()
	}
	if !f.stale {
		f.stale, f.at = true, latest(f.at, a.o.Now().Add(peersDelay))
	}
}

// endLog has the next write be of all there is.
func (f *peersFile) endLog() {
	f.log.close()
	f.log, f.changes, f.ended = nil, nil, f.writing
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// pumpPeers writes the file if it must, and says when to do so later.
func (a *Agent) pumpPeers(now time.Time) time.Time {
	f := &a.peersFile
	if a.o.Dir == "" || !f.stale || f.writing {
		return time.Time{}
	}
	if now.Before(f.at) {
		return f.at
	}
	save := a.savePeers()
	f.stale, f.writing = false, true
	began := time.Now()
	a.workers.Go(func() {
		if a.at("before save peers") {
			return
		}
		log, err := save()
		if a.at("after save peers") {
			return
		}
		took := time.Since(began)
		a.post(func() { a.wrotePeers(log, took, err) })
	})
	return time.Time{}
}

// savePeers is how to write what is not written yet, by a worker, which returns where to add the next changes.
func (a *Agent) savePeers() func() (*changeLog, error) {
	f := &a.peersFile
	log, changes := f.log, f.changes
	f.log, f.changes = nil, nil // the worker's, until it is done
	if log != nil && !log.full() {
		return func() (*changeLog, error) { return log, log.add(changes) }
	}
	log.close()
	contents := a.peersContents()
	return func() (*changeLog, error) {
		if err := write(a.o.Dir, peersName, contents()); err != nil {
			return nil, err
		}
		return beginChanges(a.o.Dir)
	}
}

func (a *Agent) wrotePeers(log *changeLog, took time.Duration, err error) {
	f := &a.peersFile
	now := a.o.Now()
	f.writing, f.log, f.at = false, log, latest(f.at, now.Add(max(peersDelay, peersShare*took)))
	if f.ended || err != nil {
		f.endLog()
	}
	if err != nil {
		a.log.Error("cannot write what is known of other nodes; after a restart without a manager names may be wrong", "dir", a.o.Dir, "err", err)
		f.stale, f.at = true, now.Add(retryMost)
	}
}

// peersContents is how to make what to write, by a worker: what it is made of never changes.
func (a *Agent) peersContents() func() *savedPeers {
	p := a.peers
	s := &savedPeers{Format: stateFormat, NodeID: a.o.NodeID, Revision: a.revision}
	s.Peers.DataPort = p.dataPort
	nodes, networks, services, tasks := valuesOf(p.nodes), valuesOf(p.networks), valuesOf(p.services), valuesOf(p.tasks)
	if p.own != nil {
		nodes = append(nodes, p.own)
	}
	return func() *savedPeers {
		s.Peers.Nodes, s.Peers.Networks, s.Peers.Services, s.Peers.Tasks = derefs(nodes), derefs(networks), derefs(services), derefs(tasks)
		return s
	}
}

func valuesOf[V any](m map[string]*V) []*V {
	all := make([]*V, 0, len(m))
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

func derefs[V any](all []*V) []V {
	values := make([]V, len(all))
	for i, v := range all {
		values[i] = *v
	}
	return values
}

// loadPeers goes on from what was known of others. The networks are those of the state file, which may be newer.
func (a *Agent) loadPeers(networks []*v1.PeerNetwork) {
	s, changes, err := readPeers(a.o.Dir, a.o.NodeID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.log.Warn("cannot read what was known of other nodes; names and ports lead to this node's tasks alone until a manager can be reached",
			"err", err)
	}
	if err == nil {
		a.peers.take(&s.Peers, true, nil)
		for i := range changes {
			a.peers.take(&changes[i], false, nil)
		}
	}
	for _, n := range networks {
		if n != nil {
			a.peers.take(&v1.Peers{Networks: []v1.PeerNetwork{*n}}, false, nil)
		}
	}
}

func readPeers(dir, node string) (*savedPeers, []v1.Peers, error) {
	s := new(savedPeers)
	if err := readFile(dir, peersName, s); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(dir, peersName)
	switch {
	case s.Format != stateFormat:
		return nil, nil, fmt.Errorf("agent: %s has format %d, this agent reads %d", path, s.Format, stateFormat)
	case s.NodeID != node:
		return nil, nil, fmt.Errorf("agent: %s is of another node, %q", path, s.NodeID)
	}
	changes, err := readChanges(dir)
	return s, changes, err
}

// savePeersLast writes what there is still to write when the agent stops.
func (a *Agent) savePeersLast() {
	if a.o.Dir == "" || !a.peersFile.stale {
		a.peersFile.log.close()
		return
	}
	log, err := a.savePeers()()
	log.close()
	if err != nil {
		a.log.Error("cannot write what is known of other nodes", "err", err)
	}
}
