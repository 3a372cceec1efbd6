package apiserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"reflect"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// describeEvery is the least time between two descriptions of a node that are written.
const describeEvery = time.Second

// firstLine reads the line that a session begins with.
func firstLine(lines *lineReader) (*v1.SessionLine, error) {
	text, err := lines.next()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, problemf(http.StatusBadRequest, "a session begins with a line that describes the node, and goes on with heartbeats: the body ended before")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, err
	case err != nil:
		return nil, brokenBody(err)
	}
	var line v1.SessionLine
	if err := v1.DecodeStrict(text, &line); err != nil {
		return nil, err
	}
	if line.Description == nil {
		return nil, problemf(http.StatusBadRequest, "the first line of a session has to describe the node")
	}
	return &line, checkDescription(line.Description)
}

// listen takes what the node says until it says no more, and tells why that is. Each line is a heartbeat, but for what
// only confirms.
func (b *backend) listen(ctx context.Context, se *session, lines *lineReader, addr string, known *v1.NodeDescription) error {
	var described time.Time
	for {
		text, err := lines.next()
		if err != nil {
			return lineError(err)
		}
		var line v1.SessionLine
		if len(text) > 0 {
			if err := v1.DecodeStrict(text, &line); err != nil {
				return err
			}
		}
		if line.Leaving {
			return errLeaving
		}
		if line.Followed != 0 {
			se.confirm(line.Followed)
			b.sessions.stir()
		}
		if line.Followed != 0 && line.Description == nil {
			continue // nothing that wants an answer
		}
		if err := b.heartbeat(ctx, se); err != nil {
			return err
		}
		if line.Description == nil {
			continue
		}
		if err := checkDescription(line.Description); err != nil {
			return err
		}
		if reflect.DeepEqual(line.Description, known) {
			continue
		}
		if !pause(ctx, describeEvery-time.Since(described)) {
			return context.Cause(ctx)
		}
		if err := b.allowances.take(se.node, descriptionSize(line.Description)); err != nil {
			return err
		}
		if err := b.describeNode(ctx, se.node, addr, *line.Description); err != nil {
			return err
		}
		known, described = line.Description, time.Now()
	}
}

// lineError is why a session ends whose body cannot be read on. An agent that stops in order ends its body in order; of one that
// was killed the connection breaks.
func lineError(err error) error {
	var large *http.MaxBytesError
	switch {
	case err == io.EOF:
		return errStopped
	case errors.Is(err, net.ErrClosed), errors.Is(err, http.ErrServerClosed):
		return errDetached // it was this side
	case errors.As(err, &large), errors.Is(err, os.ErrDeadlineExceeded):
		return err
	}
	return errGone
}

// pause waits, or tells that ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lineReader reads lines of bounded length. A session holds one for as long as it lives, so its buffer is small.
type lineReader struct {
	from *bufio.Reader
	long []byte
	most int
}

func newLineReader(r io.Reader, most int) *lineReader {
	return &lineReader{from: bufio.NewReaderSize(r, 256), most: most}
}

// next is the next line, which holds until the one after it is asked for. At the end it is io.EOF, and io.ErrUnexpectedEOF where
// the last line has no end.
func (l *lineReader) next() ([]byte, error) {
	l.long = nil
	for {
		part, err := l.from.ReadSlice('\n')
		if len(l.long)+len(part) > l.most {
			return nil, &http.MaxBytesError{Limit: int64(l.most)}
		}
		switch {
		case err == nil && l.long == nil:
			return trimEnd(part), nil
		case err == nil:
			return trimEnd(append(l.long, part...)), nil
		case errors.Is(err, bufio.ErrBufferFull):
			l.long = append(l.long, part...)
		case err == io.EOF && len(l.long)+len(part) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

func trimEnd(line []byte) []byte {
	for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
		line = line[:len(line)-1]
	}
	return line
}
