package client

import (
	"io"
	"sync"
)

// once is a body that can be sent as long as nothing of it was read.
func once(from io.Reader) func() io.Reader { return (&onceBody{from: from}).next }

// onceBody is what such a body is read from, by one try after the other.
type onceBody struct {
	from io.Reader
	mu   sync.Mutex
	last *onceTry
	// spent: the last try has it for good, since something was read or the try was answered.
	spent bool
}

// next is the body for one more try, nil where there must be none.
func (b *onceBody) next() io.Reader {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spent {
		return nil
	}
	b.last = &onceTry{of: b}
	return b.last
}

// answered gives it to the last try for good. One that was done with it before it read anything is done with it now: who writes into it
// would wait for ever.
func (b *onceBody) answered() {
	b.mu.Lock()
	b.spent = true
	closed := b.last != nil && b.last.closed
	b.mu.Unlock()
	if closed {
		_ = b.end()
	}
}

func (b *onceBody) end() error {
	if c, ok := b.from.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// onceTry is such a body for one try.
type onceTry struct {
	of     *onceBody
	closed bool
}

// Read implements io.Reader.
func (t *onceTry) Read(p []byte) (int, error) {
	t.of.mu.Lock()
	if t.closed {
		t.of.mu.Unlock()
		return 0, io.ErrClosedPipe
	}
	t.of.spent = true
	t.of.mu.Unlock()
	return t.of.from.Read(p)
}

// Close implements io.Closer, and ends a Read that blocks where it can.
func (t *onceTry) Close() error {
	t.of.mu.Lock()
	t.closed = true
	mine := t.of.spent && t.of.last == t
	t.of.mu.Unlock()
	if mine {
		return t.of.end()
	}
	return nil
}

// answerBody lets go of the request with the answer.
type answerBody struct {
	io.ReadCloser
	release func()
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

// drain reads what little may be left, so that the connection can be used again, and closes.
func drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, 4096)
	body.Close()
}
