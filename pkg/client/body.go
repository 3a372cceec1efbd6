package client

import (
	"io"
	"sync/atomic"
)

// once is a body that can be sent as long as nothing of it was read.
func once(from io.Reader) func() io.Reader {
	begun := new(atomic.Bool)
	return func() io.Reader {
		if begun.Load() {
			return nil
		}
		return &onceBody{from: from, begun: begun}
	}
}

// onceBody is such a body for one try.
type onceBody struct {
	from   io.Reader
	begun  *atomic.Bool
	closed atomic.Bool
}

// Read implements io.Reader.
func (b *onceBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, io.ErrClosedPipe
	}
	b.begun.Store(true)
	return b.from.Read(p)
}

// Close implements io.Closer, and ends a Read that blocks where it can.
func (b *onceBody) Close() error {
	b.closed.Store(true)
	if c, ok := b.from.(io.Closer); ok && b.begun.Load() {
		return c.Close()
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
