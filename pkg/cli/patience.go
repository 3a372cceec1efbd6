package cli

import (
	"errors"
	"net/http"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// enough is for how long in a row the swarm may be away from somebody who waits for something.
const enough = time.Minute

// patience bears that a manager restarts, or that the lead changes, while somebody waits. The zero value is ready.
type patience struct{ since time.Time }

// bears tells whether to go on after an error, or after none.
func (p *patience) bears(err error) bool {
	if err == nil {
		p.since = time.Time{}
		return true
	}
	problem, answered := errors.AsType[*v1.Problem](err)
	if notFound(err) || answered && problem.Status != http.StatusServiceUnavailable && problem.Status != http.StatusTooManyRequests {
		return false
	}
	if p.since.IsZero() {
		p.since = time.Now()
	}
	return time.Since(p.since) < enough
}
