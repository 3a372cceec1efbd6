package client

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// TestOnceBody: a body goes from try to try until one reads, and whoever writes into it is let go once the try that was answered is done
// with it, also where that never read.
func TestOnceBody(t *testing.T) {
	r, w := io.Pipe()
	body := &onceBody{from: r}
	first, second := body.next().(*onceTry), body.next().(*onceTry)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil { // by the transport, which had its answer before it read anything
		t.Fatal(err)
	}
	body.answered()
	if body.next() != nil {
		t.Error("it goes to one more try after the answer")
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a write: %v", err)
	}

	read := &onceBody{from: strings.NewReader("abc")}
	stale, now := read.next(), read.next()
	if got, err := io.ReadAll(now); string(got) != "abc" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if read.next() != nil {
		t.Error("it goes to one more try though it was read")
	}
	if err := stale.(*onceTry).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := stale.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a try that is over reads: %v", err)
	}
}
