package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Limits on one log stream of a node.
const (
	maxRecord     = 1 << 20  // bytes of one line of JSON
	bytesASecond  = 10 << 20 // Docker Swarm's
	maxRequests   = 1024     // streams that one session is asked for and has not opened yet
	longestStall  = time.Second
	streamBufSize = 32 << 10
)

// streams are the log streams that someone waits for, by their ID.
type streams struct {
	mu     sync.Mutex
	wanted map[string]*logStream
}

func newStreams() *streams { return &streams{wanted: make(map[string]*logStream)} }

// logStream is the output of one task on its way from its node to whoever reads it.
type logStream struct {
	id   string
	from v1.TaskLogRecord // whose it is
	ctx  context.Context  // of the reader
	to   chan<- logEvent

	claimed bool        // under the lock of streams
	waiting *time.Timer // until the node opens it
}

// logEvent is a record of a stream, or its end.
type logEvent struct {
	stream *logStream
	record v1.LogRecord
	end    bool
	why    string // at the end, "" where there simply is no more

	unanswered bool // it ends before it began
}

// send gives an event to the reader, and tells whether there still is one.
func (l *logStream) send(e logEvent) bool {
	e.stream = l
	select {
	case l.to <- e:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// open waits for a node to open a stream, and ends it where that does not happen in time.
func (s *streams) open(l *logStream, within time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted[l.id] = l
	l.waiting = time.AfterFunc(within, func() {
		if s.claim(l.id, l.from.Node) != nil {
			l.send(logEvent{end: true, unanswered: true, why: "node " + l.from.Node + " did not answer within " + within.String()})
		}
	})
}

// claim takes a stream for the node that it was asked of, once.
func (s *streams) claim(id, node string) *logStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.wanted[id]
	if l == nil || l.from.Node != node || l.claimed {
		return nil
	}
	l.claimed = true
	l.waiting.Stop()
	delete(s.wanted, id)
	return l
}

// drop forgets a stream that is read no more.
func (s *streams) drop(l *logStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.waiting != nil { // else another manager has it
		l.waiting.Stop()
	}
	delete(s.wanted, l.id)
}

// uploadLine is one line of a stream: a record, or why there are no more.
type uploadLine struct {
	v1.LogRecord
	Error string `json:"error,omitempty"`
}

// upload takes the records of a stream from a node's agent.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	if rec, ok := w.(*recorder); ok {
		rec.streamed = true
	}
	// The deadline below ends a read, and with it the connection: what came after on the same one would be cancelled
	// before it began.
	closeAfter(w, r)
	l := b.streams.claim(r.PathValue("stream"), r.PathValue("ref"))
	if l == nil {
		return problemf(http.StatusNotFound, "nobody waits for this stream of this node")
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // a stream may be silent for as long as somebody listens
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	defer context.AfterFunc(r.Context(), func() { cancel(context.Cause(r.Context())) })() // the node may have lost the right to it
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = control.SetReadDeadline(longAgo)
	})
	defer func() {
		if !stop() {
			<-woken // the connection is not this request's any more once it is answered
		}
	}()
	why, err := s.receive(l, r.Body)
	if p, ok := errors.AsType[*v1.Problem](context.Cause(r.Context())); ok {
		why, err = p.Detail, p
	}
	l.send(logEvent{end: true, why: why})
	if l.ctx.Err() != nil {
		return problemf(http.StatusGone, "nobody reads this stream any more")
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// closeAfter has the connection closed after this answer, where it carries one request at a time.
func closeAfter(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 2 {
		w.Header().Set("Connection", "close")
	}
}

// receive passes records on until there are no more, and says why where that is not as it should be.
func (s *Server) receive(l *logStream, body io.Reader) (why string, err error) {
	lines := bufio.NewReaderSize(body, streamBufSize)
	pace := newPace()
	var long []byte
	for {
		part, err := lines.ReadSlice('\n')
		if len(long)+len(part) > maxRecord {
			return "node " + l.from.Node + " sent a record that is too long", &http.MaxBytesError{Limit: maxRecord}
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long, part...)
			continue
		}
		line := part
		if len(long) > 0 {
			long = append(long, part...)
			line = long
		}
		if text := bytes.TrimSpace(line); len(text) > 0 {
			var u uploadLine
			if json.Unmarshal(text, &u) != nil {
				return "node " + l.from.Node + " sent what is no record", problemf(http.StatusBadRequest, "a line is not a LogRecord: %s", clip(string(text)))
			}
			if u.Error != "" {
				return cut(u.Error), nil
			}
			if !l.send(logEvent{record: u.LogRecord}) {
				return "", nil
			}
		}
		switch {
		case err == io.EOF:
			return "", nil
		case err != nil:
			return "the connection to node " + l.from.Node + " was lost", err
		}
		pace.spend(l.ctx, len(line))
		long = long[:0]
	}
}

// pace holds a stream to bytesASecond.
type pace struct {
	began time.Time
	bytes int
}

func newPace() *pace { return &pace{began: time.Now()} }

// spend waits where the stream is ahead of its time.
func (p *pace) spend(ctx context.Context, n int) {
	p.bytes += n
	if p.bytes < bytesASecond/10 {
		return
	}
	ahead := time.Duration(p.bytes)*time.Second/bytesASecond - time.Since(p.began)
	*p = *newPace()
	if ahead <= 0 {
		return
	}
	timer := time.NewTimer(min(ahead, longestStall))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	p.began = time.Now()
}
