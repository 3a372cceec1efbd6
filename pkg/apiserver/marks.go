package apiserver

import (
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// marks say what to look at again.
type marks struct {
	revision int64   // at which
	tasks    []touch // these tasks
	all      bool    // or everything
	node     bool    // the node itself, or the cluster's settings
	logins   bool    // logins to registries

	peers    []peerMark // these of others
	allPeers bool       // or all of them
	own      bool       // which networks the node has tasks on
}

// touch is a task as it is since the revision of its mark: nil where it is gone.
type touch struct {
	id   string
	task *v1.Task
}

// maxMarks is how many tasks are noted before it is cheaper to compare all.
const maxMarks = 2048

// touch marks a task.
func (se *session) touch(id string, task *v1.Task, revision int64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.marks.revision = max(se.marks.revision, revision)
	if se.marks.all {
		return
	}
	if len(se.marks.tasks) == maxMarks {
		se.marks.all, se.marks.tasks = true, nil
		return
	}
	se.marks.tasks = append(se.marks.tasks, touch{id, task})
}

func (se *session) touchNode(revision int64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.marks.revision = max(se.marks.revision, revision)
	se.marks.node = true
}

func (se *session) touchLogins(revision int64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.marks.revision = max(se.marks.revision, revision)
	se.marks.logins = true
}

func (se *session) touchAll(revision int64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.marks.revision = max(se.marks.revision, revision)
	se.marks.all, se.marks.node, se.marks.tasks = true, true, nil
	se.marks.peers = nil
}

// ask wants a stream of the node, unless it is asked for too many already.
func (se *session) ask(r v1.StreamRequest) bool {
	se.mu.Lock()
	room := len(se.streams) < maxRequests
	if room {
		se.streams = append(se.streams, r)
	}
	se.mu.Unlock()
	se.rouse()
	return room
}

func (se *session) rouse() {
	select {
	case se.wake <- struct{}{}:
	default:
	}
}

// pending is what there is to look at, and what else there is to send.
type pending struct {
	marks
	streams  []v1.StreamRequest
	released []string
}

// take takes what is pending. A message is being made until told.
func (d *sessions) take(se *session) pending {
	d.mu.Lock()
	defer d.mu.Unlock()
	se.mu.Lock()
	defer se.mu.Unlock()
	p := pending{se.marks, se.streams, se.released}
	se.marks, se.streams, se.released = marks{}, nil, nil
	se.follow.making, se.follow.taken = true, d.audience.seen
	return p
}

// compare notes in the assignment what of the marked is new, changed or gone.
func (se *session) compare(s *store.Snapshot, m marks, a *assignment) {
	if m.node || m.all {
		se.compareNode(s, a)
	}
	if !m.all {
		for _, t := range latest(m.tasks) {
			if t.task != nil && v1.TaskNode(t.task) == se.node {
				se.compareTask(s, t.task, a)
			} else if _, was := se.sent[t.id]; was {
				se.removeTask(t.id, a)
			}
		}
		return
	}
	n := 0
	for t := range s.TasksOfNode(se.node) {
		n++
		se.compareTask(s, t, a)
	}
	if len(se.sent) == n {
		return
	}
	for id := range se.sent {
		if t, ok := store.Get(s, v1.Tasks, id); !ok || v1.TaskNode(t) != se.node {
			se.removeTask(id, a)
		}
	}
}

// latest leaves the last mark of each task.
func latest(marks []touch) []touch {
	if len(marks) < 2 {
		return marks
	}
	last := make(map[string]int, len(marks))
	for i, t := range marks {
		last[t.id] = i
	}
	if len(last) == len(marks) {
		return marks
	}
	kept := marks[:0]
	for i, t := range marks {
		if last[t.id] == i {
			kept = append(kept, t)
		}
	}
	return kept
}

// sentTask is a task as it was sent: at which revision of its desired section, what it runs, and with which files.
type sentTask struct {
	desired  int64
	revision string
	files    []file
	// repository is where its image comes from.
	repository string
}

// sentRevision is a service revision as it was sent, at which revision of the store, for its labels may change. It is remembered for as
// long as the agent has it for certain: while a task runs it that was sent and not removed.
type sentRevision struct {
	at    int64
	tasks int
}

func (se *session) compareTask(s *store.Snapshot, t *v1.Task, a *assignment) {
	desired, id := t.Meta.Revisions[v1.SectionDesired], t.Desired.Revision
	before, was := se.sent[t.Meta.ID]
	if was && before.desired == desired {
		return
	}
	r, ok := store.Get(s, v1.ServiceRevisions, id)
	files, repository := filesOf(t, r), repositoryOf(t, r)
	se.requireFiles(s, files, a)
	se.releaseFiles(before.files)
	se.logins.require(repository)
	se.logins.release(before.repository)
	se.sent[t.Meta.ID] = sentTask{desired, id, files, repository}
	a.Tasks = append(a.Tasks, t)
	sent := se.revisions[id]
	if sent == nil {
		sent = new(sentRevision)
		se.revisions[id] = sent
	}
	if !was {
		sent.tasks++
	}
	if !ok {
		return
	}
	if at := r.Meta.Revisions.Max(); sent.at != at {
		sent.at = at
		a.Services = append(a.Services, r)
	}
}

// removeTask has the agent forget a task, and with the last of its revision that.
func (se *session) removeTask(id string, a *assignment) {
	revision := se.sent[id].revision
	se.releaseFiles(se.sent[id].files)
	se.logins.release(se.sent[id].repository)
	delete(se.sent, id)
	a.Removed = append(a.Removed, id)
	if sent := se.revisions[revision]; sent != nil {
		if sent.tasks--; sent.tasks == 0 {
			delete(se.revisions, revision)
		}
	}
}

func (se *session) compareNode(s *store.Snapshot, a *assignment) {
	if n, ok := store.Get(s, v1.Nodes, se.node); ok {
		at := max(n.Meta.Revisions[v1.SectionSpec], n.Meta.Revisions[v1.SectionDesired])
		if at != se.nodeAt {
			se.nodeAt = at
			a.Node = n
		}
	}
	if pool := gatewayPool(s); pool != se.pool {
		se.pool = pool
		a.GatewayPool = pool
	}
	if prefix := gatewayPrefix6(s); prefix != se.prefix6 {
		se.prefix6 = prefix
		a.GatewayPrefix6 = prefix
	}
}

// gatewayPrefix6 is the swarm's.
func gatewayPrefix6(s *store.Snapshot) string {
	a, err := authorityOf(s)
	if err != nil {
		return ""
	}
	return v1.GatewayPrefix6(a.Spec.ClusterID).String()
}

// gatewayPool is the cluster's.
func gatewayPool(s *store.Snapshot) string {
	if c, ok := store.Get(s, v1.Clusters, v1.ClusterName); ok && c.Spec.GatewayPool != "" {
		return c.Spec.GatewayPool
	}
	return v1.DefaultGatewayPool
}
