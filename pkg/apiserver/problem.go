package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Docker's words for a node that cannot speak for the swarm, by why it cannot.
const (
	notManager = `This node is not a swarm manager. Use "swarmctl swarm init" or "swarmctl swarm join" to connect this node to swarm and try again.`
	onlyWorker = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a " +
		"manager node or promote the current node to a manager."
	locked     = `Swarm is encrypted and needs to be unlocked before it can be used. Please use "swarmctl swarm unlock" to unlock it.`
	leaderless = "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
)

// NotReadyYet are Docker's words, in a problem's detail, for a manager that will speak for the swarm in a while.
const NotReadyYet = "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."

// unattached is why there is no store, as the daemon knows it.
func (s *Server) unattached() *v1.Problem {
	words := notManager
	if s.host != nil {
		ctx, cancel := context.WithTimeout(context.Background(), confirmTime)
		defer cancel()
		info, err := s.host.Info(ctx)
		switch {
		case err != nil:
			s.log.Warn("the daemon does not say how it is with its swarm", "error", err)
		case info.Swarm.LocalNodeState == v1.LocalNodeLocked:
			words = locked
		case info.Swarm.LocalNodeState == v1.LocalNodeActive && !info.Swarm.ControlAvailable:
			words = onlyWorker
		case info.Swarm.LocalNodeState == v1.LocalNodeActive, info.Swarm.LocalNodeState == v1.LocalNodePending:
			words = NotReadyYet
		}
	}
	p := problemf(http.StatusServiceUnavailable, "%s", words)
	p.Type = v1.ProblemNotManager
	return p
}

// problemf is a problem with a detail for people.
func problemf(status int, format string, args ...any) *v1.Problem {
	return &v1.Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// invalid is a problem of fields.
func invalid(errs v1.FieldErrors) *v1.Problem {
	p := problemf(http.StatusBadRequest, "%s", errs.Error())
	p.Errors = errs
	return p
}

// problemOf is how an error is told to a client.
func problemOf(err error) *v1.Problem {
	var p *v1.Problem
	var fields v1.FieldErrors
	var missing *store.NotFoundError
	var ambiguous *store.AmbiguousError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &fields):
		return invalid(fields)
	case errors.As(err, &missing):
		return problemf(http.StatusNotFound, "%s", missing)
	case errors.As(err, &ambiguous):
		return problemf(http.StatusBadRequest, "%s", ambiguous)
	case errors.As(err, &large):
		return problemf(http.StatusRequestEntityTooLarge, "the request's body is larger than %d bytes, which is the limit here", large.Limit)
	case errors.Is(err, store.ErrInvalid):
		return problemf(http.StatusBadRequest, "%s", err)
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrFenced):
		return problemf(http.StatusConflict, "%s", err)
	case errors.Is(err, store.ErrCompacted):
		return problemf(http.StatusGone, "the history after that revision is gone: read the objects again and watch from there")
	case errors.Is(err, store.ErrTooLarge):
		return problemf(http.StatusRequestEntityTooLarge, "%s", err)
	case errors.Is(err, errDetached), errors.Is(err, store.ErrClosed):
		return problemf(http.StatusServiceUnavailable, "the daemon is stopping or has left the swarm: try again in a moment")
	case errors.Is(err, store.ErrUnavailable):
		return problemf(http.StatusServiceUnavailable, "%s What was asked may or may not have happened: %s", leaderless, err)
	case errors.Is(err, context.DeadlineExceeded):
		return problemf(http.StatusGatewayTimeout, "it took too long; what was asked may or may not have happened")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problemf(http.StatusRequestTimeout, "the request's body took too long to arrive")
	}
	return problemf(http.StatusInternalServerError, "%s", err)
}

// problemOfRead is problemOf where nothing was to be changed.
func problemOfRead(err error) *v1.Problem {
	var p *v1.Problem
	switch {
	case errors.As(err, &p), errors.Is(err, errDetached), errors.Is(err, store.ErrClosed):
		return problemOf(err)
	case errors.Is(err, store.ErrUnavailable):
		return problemf(http.StatusServiceUnavailable, "%s %s", leaderless, err)
	case errors.Is(err, context.DeadlineExceeded):
		return problemf(http.StatusGatewayTimeout, "no manager that leads answered in time. It's possible that too few managers are online. "+
			"Make sure more than half of the managers are online, and reach each other.")
	}
	return problemOf(err)
}

// storeProblemOf is problemOf with the name of a store's error as the problem's type, for the client's Store to know it by.
func storeProblemOf(err error) *v1.Problem {
	p := *problemOf(err)
	if name := store.ErrorName(err); name != "" {
		p.Type = store.ProblemType + name
		p.Detail = err.Error()
	}
	return &p
}

// writeProblem answers with a problem document.
func writeProblem(w http.ResponseWriter, p *v1.Problem) {
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte(`{"title":"Internal Server Error","status":500}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(p.Status)
	w.Write(append(body, '\n'))
}
