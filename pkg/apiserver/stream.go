package apiserver

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// flushAt is how much a stream gathers before it writes, in bytes.
const flushAt = 64 << 10

// buffers are those that streams gather in; one is held only while something is being written.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// keepBuffer is the largest buffer that is kept for the next, in bytes.
const keepBuffer = 1 << 20

func takeBuffer() *[]byte {
	b := buffers.Get().(*[]byte)
	*b = (*b)[:0]
	return b
}

func giveBuffer(b *[]byte) {
	if cap(*b) <= keepBuffer {
		buffers.Put(b)
	}
}

// lineStream writes lines of JSON, or server-sent events, to one client.
type lineStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	sse     bool
	raw     bool // batches of the store, not events
	begun   bool
}

func (s *Server) newStream(w http.ResponseWriter, r *http.Request) *lineStream {
	if rec, ok := w.(*recorder); ok {
		rec.streamed = true
	}
	return &lineStream{
		w: w, control: http.NewResponseController(w), timeout: s.limits.WriteTimeout,
		sse: strings.Contains(r.Header.Get("Accept"), "text/event-stream"),
	}
}

// begin sends the headers.
func (l *lineStream) begin() {
	if l.begun {
		return
	}
	l.begun = true
	h := l.w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	if l.sse {
		h.Set("Content-Type", "text/event-stream")
	} else {
		h.Set("Content-Type", "application/x-ndjson")
	}
	l.w.WriteHeader(http.StatusOK)
}

// write sends what was gathered, at once.
func (l *lineStream) write(data []byte) error {
	l.begin()
	_ = l.control.SetWriteDeadline(time.Now().Add(l.timeout)) // not possible in a test without a connection
	if len(data) > 0 {
		if _, err := l.w.Write(data); err != nil {
			return err
		}
	}
	return l.control.Flush()
}

// appendEvent appends one event of a watch. An empty object is left out.
func (l *lineStream) appendEvent(buf []byte, typ string, revision int64, object []byte) []byte {
	if l.sse {
		buf = append(append(append(buf, "event: "...), typ...), "\ndata: "...)
	}
	buf = append(append(append(buf, `{"type":"`...), typ...), `","revision":`...)
	buf = strconv.AppendInt(buf, revision, 10)
	if len(object) > 0 {
		buf = append(append(buf, `,"object":`...), object...)
	}
	buf = append(buf, "}\n"...)
	if l.sse {
		buf = append(buf, '\n')
	}
	return buf
}

// appendMark appends the point from which a browser goes on: everything up to the revision was sent.
func (l *lineStream) appendMark(buf []byte, revision int64) []byte {
	if l.sse {
		buf = strconv.AppendInt(append(buf, "id: "...), revision, 10)
		buf = append(buf, "\n\n"...)
	}
	return buf
}

// appendBookmark appends that everything up to the revision was sent.
func (l *lineStream) appendBookmark(buf []byte, revision int64) []byte {
	if l.raw {
		return append(strconv.AppendInt(append(buf, `{"revision":`...), revision, 10), "}\n"...)
	}
	return l.appendMark(l.appendEvent(buf, typeBookmark, revision, nil), revision)
}

// fail ends the stream with a problem: as the answer where nothing was sent yet, else as its last event.
func (l *lineStream) fail(revision int64, err error) error {
	if !l.begun {
		return err
	}
	if l.raw {
		p := unsent(err)
		var line []byte
		if appendRaw(&line, rawBatch{Revision: revision, Problem: p}) == nil {
			_ = l.write(line) // it ends either way
		}
		return p
	}
	p := problemOf(err)
	body, _ := json.Marshal(p)
	_ = l.write(l.appendEvent(nil, "error", revision, body)) // it ends either way
	return p
}
