package logfile

import (
	"bytes"
	"time"
)

// Splitter cuts one stream into records. Its buffer never grows.
type Splitter struct {
	stream string
	buf    []byte
	n      int
}

// NewSplitter is a Splitter for stdout or stderr.
func NewSplitter(stream string) *Splitter {
	return &Splitter{stream: stream, buf: make([]byte, 2*MaxLine)}
}

// Space is where to read the stream into; it is never empty.
func (s *Splitter) Space() []byte { return s.buf[s.n:] }

// Pending tells whether a line has begun that has not ended.
func (s *Splitter) Pending() bool { return s.n > 0 }

// Advance takes n bytes that were read into Space and appends to out the records that they complete.
func (s *Splitter) Advance(n int, now time.Time, out []byte) []byte {
	fresh := s.n // what lies before holds no newline
	s.n += n
	rest := s.buf[:s.n]
	for {
		end := bytes.IndexByte(rest[fresh:], '\n')
		length := end + fresh
		if end < 0 {
			length = len(rest)
		}
		for length > MaxLine {
			out = s.record(out, now, rest[:MaxLine], true)
			rest, length = rest[MaxLine:], length-MaxLine
		}
		if end < 0 {
			break
		}
		out = s.record(out, now, rest[:length], false)
		rest, fresh = rest[length+1:], 0
	}
	s.n = copy(s.buf, rest)
	return out
}

// Flush appends what is pending to out as a part of a line.
func (s *Splitter) Flush(now time.Time, out []byte) []byte {
	if s.n == 0 {
		return out
	}
	out = s.record(out, now, s.buf[:s.n], true)
	s.n = 0
	return out
}

func (s *Splitter) record(out []byte, now time.Time, line []byte, partial bool) []byte {
	return Record{Time: now, Stream: s.stream, Partial: partial, Line: line}.Append(out)
}
