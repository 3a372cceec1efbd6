package client

import (
	"fmt"
	"io"
	"time"
)

// pulse calls dead when nothing was read for too long. Time that the caller takes between reads does not count.
type pulse struct {
	from  io.Reader
	limit time.Duration // may be changed between reads
	timer *time.Timer
}

func newPulse(from io.Reader, limit time.Duration, dead func()) *pulse {
	p := &pulse{from: from, limit: limit, timer: time.AfterFunc(limit, dead)}
	p.timer.Stop() // the first read starts it
	return p
}

// Read implements io.Reader.
func (p *pulse) Read(b []byte) (int, error) {
	p.timer.Reset(p.limit)
	n, err := p.from.Read(b)
	p.timer.Stop()
	return n, err
}

func (p *pulse) stop() { p.timer.Stop() }

func silentError(h *host, limit time.Duration) error {
	return fmt.Errorf("client: the swarmd daemon at %s has been silent for %s", h.name, limit)
}
