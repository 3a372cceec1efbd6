package apiserver

import (
	"math/rand/v2"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// following is how far a node's network and names follow the store, as far as others are concerned. A message that tells of others that are
// to be left alone has a number, which the node sends back once its kernel and its resolver have let go of them. The session's lock guards it.
type following struct {
	through int64 // what was written up to this revision is followed, whatever is to be sent or confirmed yet
	making  bool  // a message is being made,
	taken   int64 // of all that was written up to this revision
	asked   []asked
	number  uint64
}

// asked is a message that was not confirmed yet, and up to which revision all is followed once it is.
type asked struct {
	number  uint64
	through int64
}

// maxAsked is how many messages are told apart. Where more wait, the confirmation of a later one is waited for instead.
const maxAsked = 64

// newFollowing is that of a session that has told nothing yet. Its numbers are no other session's, so that what comes late of an earlier one
// is not taken for this one's.
func newFollowing() following { return following{making: true, number: rand.Uint64()} }

// told is when a message was made. Where the node is to confirm it, it is the number to ask by.
func (se *session) told(confirm bool) uint64 {
	se.mu.Lock()
	defer se.mu.Unlock()
	f := &se.follow
	f.making = false
	last := len(f.asked) - 1
	switch {
	case !confirm && last < 0:
		f.through = f.taken
		return 0
	case !confirm:
		f.asked[last].through = f.taken // nothing in it has to be confirmed
		return 0
	}
	if f.number++; f.number == 0 {
		f.number++
	}
	if last == maxAsked-1 {
		f.asked = f.asked[:last]
	}
	f.asked = append(f.asked, asked{f.number, f.taken})
	return f.number
}

// confirm takes note that the node follows a message, and all before it. A number that was not asked for is of another session.
func (se *session) confirm(number uint64) {
	se.mu.Lock()
	defer se.mu.Unlock()
	f := &se.follow
	for i, a := range f.asked {
		if a.number == number {
			f.through, f.asked = a.through, append(f.asked[:0], f.asked[i+1:]...)
			return
		}
	}
}

// follows is up to which revision the node follows, where batches up to seen have left their marks.
func (se *session) follows(seen int64) int64 {
	se.mu.Lock()
	defer se.mu.Unlock()
	f, m := &se.follow, &se.marks
	if f.making || len(f.asked) > 0 || m.all || m.own || m.allPeers || len(m.peers) > 0 {
		return f.through
	}
	return seen
}

// stir has those look again that wait for nodes.
func (d *sessions) stir() {
	if d.waiting.Load() == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.stirred)
	d.stirred = make(chan struct{})
}

// followers divides nodes into those that follow the revision and those that are not known to, and tells when to look again.
func (d *sessions) followers(revision int64, nodes []string) (do, wait []string, again <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, node := range nodes {
		if se := d.open[node]; se != nil && se.follows(d.audience.seen) >= revision {
			do = append(do, node)
		} else {
			wait = append(wait, node)
		}
	}
	return do, wait, d.stirred
}

// release has the node told that nobody sends to its tasks any more.
func (se *session) release(tasks []string) {
	se.mu.Lock()
	room := maxMarks - len(se.released)
	se.released = append(se.released, tasks[:min(room, len(tasks))]...)
	se.mu.Unlock()
	se.rouse()
}

// leaves tells whether a task that may be sent to is to stop.
func leaves(t *v1.Task) bool {
	return t.Desired != nil && t.Desired.State > v1.TaskComplete && !v1.Observed(t).Terminal()
}
