package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// What a connection of the load is for: its first byte says it.
const (
	toBeCounted  = 't' // all that comes is counted
	toBeAnswered = 'r' // each request is sent back
	requestSize  = 64
)

// sink is a server in a namespace. Its sockets stay there, whatever thread works on them.
type sink struct {
	listener net.Listener
	received atomic.Int64
}

func listenIn(t *testing.T, n *lab.Namespace, port int) *sink {
	t.Helper()
	s := new(sink)
	if err := n.Do(func() (err error) {
		quiet := net.ListenConfig{KeepAlive: -1} // nothing is sent but what is asked for
		s.listener, err = quiet.Listen(t.Context(), "tcp4", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.listener.Close() })
	go func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *sink) serve(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 256<<10)
	if _, err := io.ReadFull(conn, buffer[:1]); err != nil {
		return
	}
	if buffer[0] == toBeAnswered {
		for {
			if _, err := io.ReadFull(conn, buffer[:requestSize]); err != nil {
				return
			}
			if _, err := conn.Write(buffer[:requestSize]); err != nil {
				return
			}
		}
	}
	for {
		n, err := conn.Read(buffer)
		s.received.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// road is a way from a namespace to a sink.
type road struct {
	from *lab.Namespace
	to   string
	sink *sink
}

func (r road) dial(kind byte) (net.Conn, error) {
	conn, err := r.from.DialContext(context.Background(), "tcp", r.to)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{kind}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// each has so many connections used at a time, until the time is over, which begins once all are there.
func (r road) each(streams int, kind byte, length time.Duration, use func(i int, conn net.Conn, end time.Time) error) (took time.Duration, err error) {
	conns := make([]net.Conn, streams)
	for i := range conns {
		if conns[i], err = r.dial(kind); err != nil {
			return 0, err
		}
		defer conns[i].Close()
		if err := conns[i].SetDeadline(time.Now().Add(length + 10*time.Second)); err != nil {
			return 0, err
		}
	}
	errs := make([]error, streams)
	var working sync.WaitGroup
	began := time.Now()
	for i, conn := range conns {
		working.Go(func() { errs[i] = use(i, conn, began.Add(length)) })
	}
	working.Wait()
	return time.Since(began), errors.Join(errs...)
}

// throughput is how many bytes a second come through, in so many streams.
func (r road) throughput(streams int, length time.Duration) (float64, error) {
	before := r.sink.received.Load()
	chunk := make([]byte, 128<<10)
	took, err := r.each(streams, toBeCounted, length, func(_ int, conn net.Conn, end time.Time) error {
		for time.Now().Before(end) {
			if _, err := conn.Write(chunk); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return float64(r.sink.received.Load()-before) / took.Seconds(), nil
}

// requests is how many small requests a second are answered on so many connections, and how long half of them take at most, in seconds.
func (r road) requests(streams int, length time.Duration) (rate, median float64, err error) {
	answers := make([][]time.Duration, streams)
	took, err := r.each(streams, toBeAnswered, length, func(i int, conn net.Conn, end time.Time) error {
		request := make([]byte, requestSize)
		for at := time.Now(); at.Before(end); {
			if _, err := conn.Write(request); err != nil {
				return err
			}
			if _, err := io.ReadFull(conn, request); err != nil {
				return err
			}
			now := time.Now()
			answers[i] = append(answers[i], now.Sub(at))
			at = now
		}
		return nil
	})
	all := slices.Concat(answers...)
	if err != nil || len(all) == 0 {
		return 0, 0, errors.Join(err, fmt.Errorf("%d requests were answered", len(all)))
	}
	slices.Sort(all)
	return float64(len(all)) / took.Seconds(), all[len(all)/2].Seconds(), nil
}
