package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// refusing is a tunnel to a node that takes nothing and answers a second later, or not at all where its user has closed it by then.
type refusing struct {
	answer  bytes.Buffer
	refused chan struct{}
	once    sync.Once
	closed  chan struct{}
}

func newRefusing(t *testing.T, answer *v1.TunnelEnd) *refusing {
	r := &refusing{refused: make(chan struct{}), closed: make(chan struct{})}
	if answer != nil {
		if err := v1.WriteFrameJSON(&r.answer, v1.FrameEnd, answer); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// Write implements io.Writer.
func (r *refusing) Write([]byte) (int, error) {
	r.once.Do(func() { close(r.refused) })
	return 0, io.ErrClosedPipe
}

// Read implements io.Reader.
func (r *refusing) Read(p []byte) (int, error) {
	select {
	case <-r.refused:
	case <-r.closed:
	}
	select {
	case <-r.closed:
		return 0, net.ErrClosed
	case <-time.After(time.Second):
		return r.answer.Read(p)
	}
}

// Close implements io.Closer.
func (r *refusing) Close() error {
	select {
	case <-r.closed:
	default:
		close(r.closed)
	}
	return nil
}

// CloseWrite implements v1.Tunnel.
func (r *refusing) CloseWrite() error { return nil }

// broken is a file that cannot be read.
type broken struct{}

// Read implements io.Reader.
func (broken) Read([]byte) (int, error) { return 0, errors.New("the disk is broken") }

// TestCopyUpSaysWhy: what the node says counts, also where it takes nothing of what it is sent; of what fails here, here is told; and a
// connection that is lost is called so once.
func TestCopyUpSaysWhy(t *testing.T) {
	for name, test := range map[string]struct {
		answer *v1.TunnelEnd
		in     io.Reader
		want   string
	}{
		"refused": {&v1.TunnelEnd{Error: "/nodir: no such file or directory"}, strings.NewReader("x"), "/nodir: no such file or directory"},
		"lost":    {nil, strings.NewReader("x"), "the connection to the task was lost: unexpected EOF"},
		"broken":  {nil, broken{}, "the disk is broken"},
		"taken":   {&v1.TunnelEnd{}, strings.NewReader("x"), ""}, // it has all that it needs
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				to := newRefusing(t, test.answer)
				s := &copyStream{app: &app{Options: withDefaults(Options{In: test.in, Out: io.Discard, Err: io.Discard})}, tunnel: to, answer: &v1.FrameReader{From: to}}
				got := ""
				if err := s.up(context.Background(), "-", nil); err != nil {
					got = err.Error()
				}
				if got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			})
		})
	}
}
