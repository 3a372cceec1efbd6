package apiserver

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// session is one node's connection. Others only leave marks on it and wake it; what was sent, and writing, is its own
// goroutine's. A second one reads what the node says. Both rest while there is nothing to say.
type session struct {
	node   string
	id     string        // random, so that others can tell it from the node's other sessions
	wake   chan struct{} // there is something to look at
	beats  chan struct{} // there is a heartbeat to be answered; both channels hold one
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // on its lease

	// certificate is the one that the node opened the session with, and those that signed it; none over a socket.
	certificate []*x509.Certificate
	// startup is how long the node's daemon took to be there when it was started last, by its own word.
	startup time.Duration

	mu      sync.Mutex
	marks   marks
	streams []v1.StreamRequest
	lease   lease
	// released are tasks of the node that nobody sends to any more, to be told.
	released []string
	follow   following

	// The session's goroutine alone uses these.
	sent      map[string]sentTask
	revisions map[string]*sentRevision // service revisions that tasks which were sent run
	files     map[file]int             // secrets and configs that the node has, and how many of its tasks need each
	logins    logins                   // for the registries of its tasks' images
	nodeAt    int64                    // the revision of the node's spec and desired section
	pool      string                   // the gateway pool
	prefix6   string                   // and what its addresses of IPv6 begin with
	news      *news                    // what the node was told of the swarm
	peers     peersSent                // what it was told of others
}

// Reasons for which a session ends.
var (
	errReplaced    = problemf(http.StatusConflict, "a newer session of this node has taken this one's place")
	errNodeRemoved = problemf(http.StatusNotFound, "this node was removed from the swarm")
	errSilent      = problemf(http.StatusRequestTimeout, "the node's heartbeats did not come in time: it was taken for lost")
	errNoQuorum    = problemf(http.StatusServiceUnavailable, "this manager cannot write, it does not reach enough of the others: try another manager")
	errUntrusted   = problemf(http.StatusUnauthorized, "the certificate that this session was opened with does not count any more")
	errNoLeases    = problemf(http.StatusServiceUnavailable, "this API server holds no sessions, because its store gives no leases: try a manager")

	errGone    = errors.New("apiserver: the connection to the node broke")
	errMissed  = errors.New("apiserver: the node is silent")
	errStopped = errors.New("apiserver: the node's agent stopped in order")
	errLeaving = problemf(http.StatusGone, "the node leaves the swarm")
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// maxSessionLine bounds one line from an agent, in bytes.
const maxSessionLine = 256 << 10

// session serves one session from its beginning to its end.
func (s *Server) session(w http.ResponseWriter, r *http.Request) error {
	control := http.NewResponseController(w)
	if err := control.EnableFullDuplex(); err != nil { // first of all: else the answer waits for a body that has no end
		return fmt.Errorf("apiserver: a session is not possible over this connection: %w", err)
	}
	closeAfter(w, r)                                        // what was not read of the body would be in the way of another request,
	defer func() { _ = control.SetReadDeadline(longAgo) }() // and nobody waits for the rest of it
	lines := newLineReader(r.Body, maxSessionLine)
	first, err := s.begin(r, lines) // before anything else is refused: who still writes may not read the answer
	if err != nil {
		return err
	}
	description := first.Description
	b, err := s.attached()
	if err != nil {
		return err
	}
	if err := b.allowances.take(r.PathValue("ref"), openingCost+descriptionSize(description)); err != nil {
		return err
	}
	ctx, cancel := b.bind(r.Context())
	defer cancel(nil)
	se := newSession(r, cancel)
	se.startup = time.Duration(first.Startup)
	leave, err := b.sessions.enter(se)
	if err != nil {
		return err
	}
	defer leave()
	_ = control.SetReadDeadline(time.Time{}) // from now on heartbeats tell whether the node is there
	addr := nodeAddr(r, description)
	if err := b.open(ctx, se, addr, *description); err != nil {
		return err
	}
	var listening sync.WaitGroup
	listening.Go(func() { cancel(b.listen(ctx, se, lines, addr, description)) })
	cancel(s.speak(ctx, b, se, s.newStream(w, r)))
	_ = control.SetReadDeadline(longAgo) // wakes who listens
	listening.Wait()
	se.work.Wait()
	b.end(se, context.Cause(ctx))
	return context.Cause(ctx)
}

// begin reads the line that a session begins with. How many of one node are at that is bounded.
func (s *Server) begin(r *http.Request, lines *lineReader) (*v1.SessionLine, error) {
	of, who := s.placesOf(r)
	leave, err := of.openings.enterAs(cmp.Or(who, r.PathValue("ref")))
	if err != nil {
		return nil, err
	}
	defer leave()
	return firstLine(lines)
}

func newSession(r *http.Request, cancel context.CancelCauseFunc) *session {
	se := &session{
		node: r.PathValue("ref"), id: v1.NewID(), wake: make(chan struct{}, 1), beats: make(chan struct{}, 1), cancel: cancel,
		sent: make(map[string]sentTask), revisions: make(map[string]*sentRevision), files: make(map[file]int),
		logins: logins{repositories: make(map[string]int)},
		peers:  peersSent{sent: make(map[string]uint64)}, follow: newFollowing(),
	}
	if r.TLS != nil {
		se.certificate = r.TLS.PeerCertificates
	}
	return se
}

// speak sends what the node has to know whenever there is some of it, and answers its heartbeats.
func (s *Server) speak(ctx context.Context, b *backend, se *session, out *lineStream) error {
	gap := time.NewTimer(0)
	defer gap.Stop()
	<-gap.C
	missed := time.NewTimer(se.patience())
	defer missed.Stop()
	heard := time.Now()
	wake := se.wake
	complete := true
	for {
		select {
		case <-wake:
		case <-gap.C:
			wake = se.wake
			continue
		case <-missed.C:
			// The lease would run out by itself, but where the managers' leader is lost too, its successor lengthens all leases.
			left := se.patience() - time.Since(heard)
			if left <= 0 && len(se.beats) == 0 {
				_ = farewell(out, errSilent) // if there is anybody to hear it
				return errMissed
			}
			missed.Reset(max(left, retryRenewal))
			continue
		case <-se.beats:
			heard = time.Now()
			if complete {
				continue // the first message answers it
			}
			if err := out.write([]byte{'\n'}); err != nil {
				return fmt.Errorf("%w: %w", errGone, err)
			}
			continue
		case <-ctx.Done():
			return farewell(out, context.Cause(ctx))
		}
		wrote, err := s.assign(ctx, b, se, out, complete)
		if err != nil {
			return farewell(out, err)
		}
		if complete = false; wrote {
			wake = nil // what changes meanwhile goes together
			gap.Reset(b.sessions.gap())
		}
	}
}

// farewell tells the agent why its session ends, if it is still there to hear it.
func farewell(out *lineStream, cause error) error {
	if !out.begun || errors.Is(cause, context.Canceled) || errors.Is(cause, errGone) || errors.Is(cause, errStopped) {
		return cause
	}
	buf := takeBuffer()
	defer giveBuffer(buf)
	*buf = appendFarewell(*buf, problemOf(cause))
	_ = out.write(*buf) // it ends either way
	return cause
}

// assign sends the difference between what the node was told and what the snapshot says.
func (s *Server) assign(ctx context.Context, b *backend, se *session, out *lineStream, complete bool) (bool, error) {
	p := b.sessions.take(se)
	m := p.marks
	snapshot, err := b.store.Snapshot(ctx, m.revision)
	if err != nil {
		return false, err
	}
	others := false // the node's networks are others than before
	if m.own || m.all {
		if snapshot, others, err = b.settle(ctx, se, snapshot); err != nil {
			return false, err
		}
	}
	a := assignment{Revision: snapshot.Revision(), Complete: complete, Streams: p.streams, Released: p.released}
	se.compare(snapshot, m, &a)
	se.compareLogins(snapshot, m.logins || m.all, &a)
	var swarm []byte
	if m.node || m.all {
		n, err := b.tell(se)
		if err != nil {
			return false, err
		}
		if n != nil {
			a.Swarm, swarm = &n.swarm, n.body
		}
	}
	peers := se.comparePeers(snapshot, m, m.all || m.allPeers || others, &b.sessions.told)
	if complete {
		peers.complete, peers.dataPort = true, dataPort(snapshot)
	}
	peers.number = se.told(peers.leaves || complete)
	b.sessions.stir()
	if m.all {
		b.depart(snapshot.Revision(), a.Tasks) // whatever an earlier session of the node had been told
	}
	if a.empty() && peers.empty() {
		return false, nil
	}
	buf := takeBuffer()
	defer giveBuffer(buf)
	if *buf, err = b.sessions.encoder.append(*buf, &a, swarm, peers); err != nil {
		return false, err
	}
	if err := out.write(*buf); err != nil {
		return false, fmt.Errorf("%w: %w", errGone, err)
	}
	s.metrics.messages.Inc()
	s.metrics.bytes.Add(float64(len(*buf)))
	s.metrics.sent(m.revision)
	return true, nil
}
