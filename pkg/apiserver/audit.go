package apiserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// auditing says which requests of a route the audit log tells of. The zero value leaves it to the method: all but reads.
type auditing uint8

const (
	auditByMethod auditing = iota
	auditAlways            // a read that tells a secret
	auditNever             // what a node's agent says all the time
)

// audited tells whether the audit log tells of the route.
func (rt *route) audited() bool {
	return rt.audit == auditAlways || rt.audit == auditByMethod && rt.method != http.MethodGet
}

// note is what a handler says of the object that it writes, for the audit log.
type note struct {
	mu       sync.Mutex
	kind     v1.Kind
	id, name string
	revision int64
}

type noteKey struct{}

// noteWrite notes, for the audit log, the object that a request wrote and the revision at which. Parts may be empty: what was noted
// before stays.
func noteWrite(ctx context.Context, k v1.Kind, id, name string, revision int64) {
	n, ok := ctx.Value(noteKey{}).(*note)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if k != "" {
		n.kind = k
	}
	if id != "" {
		n.id = id
	}
	if name != "" {
		n.name = name
	}
	n.revision = max(n.revision, revision)
}

// noting makes a request's context take notes. What it returns writes the line, once the request is answered.
func (s *Server) noting(r *http.Request, rt *route) (*http.Request, func(code int, err error)) {
	if s.audit == nil || !rt.audited() {
		return r, func(int, error) {}
	}
	n := new(note)
	return r.WithContext(context.WithValue(r.Context(), noteKey{}, n)), func(code int, err error) {
		if code == 0 {
			code = http.StatusInternalServerError // it panicked
		}
		line := s.auditRecord(r, code)
		switch {
		case code >= http.StatusBadRequest:
			line.Error = http.StatusText(code)
		case err != nil:
			line.Error = "Broken off"
		}
		if p, ok := errors.AsType[*v1.Problem](err); ok {
			line.Error = p.Title
		}
		if checkQuery(r.URL.RawQuery, rt.query) == nil {
			line.Query = clip(r.URL.RawQuery)
		}
		n.mu.Lock()
		line.Kind, line.ID, line.Name, line.Revision = n.kind, n.id, n.name, n.revision
		n.mu.Unlock()
		s.audit.write(line)
	}
}

// auditRefused writes that somebody with an identity tried what it may not do. Nobody is not told of: anyone could fill the log. Of
// each of the others only so many are, for the same reason.
func (s *Server) auditRefused(r *http.Request, rt *route, p *v1.Problem) {
	c := callerOf(r.Context())
	if s.audit == nil || !rt.audited() || c.kind == callerNobody {
		return
	}
	who := c.node + c.user
	if s.audit.refused.allow(who) != nil {
		s.audit.dropped.Inc()
		return
	}
	s.audit.refused.failed(who)
	line := s.auditRecord(r, p.Status)
	line.Error = p.Title
	s.audit.write(line)
}

func (s *Server) auditRecord(r *http.Request, code int) *v1.AuditRecord {
	c := callerOf(r.Context())
	who := v1.AuditWho{Kind: string(c.kind), Name: c.node + c.user, Role: string(c.rank)}
	if c.kind == callerNode {
		who.Role = string(c.role)
	}
	return &v1.AuditRecord{Time: s.now().UTC(), Who: who, From: remoteAddr(r), Method: r.Method, Path: clip(r.URL.Path), Status: code}
}

// maxRefused is how many refused requests of one caller the audit log tells of in a tryWindow.
const maxRefused = 60

// auditor is the audit log: one line of JSON for each record, in files of a bounded size and number.
type auditor struct {
	log     *slog.Logger
	file    *rotated
	refused *attempts
	failed  prometheus.Counter
	dropped prometheus.Counter
}

// newAuditor is the audit log in the file and those beside it; nil where there is none.
func newAuditor(path string, log *slog.Logger, registry *prometheus.Registry, now func() time.Time) *auditor {
	if path == "" {
		return nil
	}
	a := &auditor{log: log, file: &rotated{path: path, size: auditSize, keep: auditKeep}, refused: newAttempts(maxRefused, now),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_audit_errors_total", Help: "Requests that the audit log does not tell of because it could not be written."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_audit_refused_dropped_total", Help: "Refused requests that the audit log does not tell of because there were too many of one caller."}),
	}
	registry.MustRegister(a.failed, a.dropped)
	return a
}

// write writes a record. The request has been answered by then: where the log cannot be written, that is told in the daemon's own log
// and counted, and the swarm goes on. A full disk must not take away the means to mend it.
func (a *auditor) write(record *v1.AuditRecord) {
	if err := a.file.append(record); err != nil {
		a.failed.Inc()
		a.log.Error("the audit log could not be written", "error", err, "method", record.Method, "path", record.Path,
			"who", record.Who.Kind+" "+record.Who.Name, "status", record.Status)
	}
}

// showAudit answers with the newest records of this manager.
func (s *Server) showAudit(w http.ResponseWriter, r *http.Request) error {
	if s.audit == nil {
		return problemf(http.StatusNotFound, "this daemon keeps no audit log")
	}
	limit, err := intQuery(r, "limit", defaultAudit, 1, maxAudit)
	if err != nil {
		return err
	}
	since, err := sinceOf(r.URL.Query().Get("since"))
	if err != nil {
		return err
	}
	items, err := s.audit.file.newest(int(limit), since)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v1.AuditLog{Items: nonNil(items)})
}

// How many records are shown: where no number is asked for, and at most.
const (
	defaultAudit = 100
	maxAudit     = 10_000
)
