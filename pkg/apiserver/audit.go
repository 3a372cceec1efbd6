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
		s.tell(line)
	}
}

// tell writes a record, or counts it. On a machine that is in no swarm the log begins with what succeeds.
func (s *Server) tell(record *v1.AuditRecord) {
	if record.Status >= http.StatusBadRequest && s.current.Load() == nil && !s.audit.file.there() {
		return
	}
	s.audit.tell(record)
}

// auditRefused writes that somebody with an identity tried what it may not do. Nobody is not told of, but for tries to join.
func (s *Server) auditRefused(r *http.Request, rt *route, p *v1.Problem) {
	c := callerOf(r.Context())
	if s.audit == nil || !rt.audited() || c.kind == callerNobody {
		return
	}
	line := s.auditRecord(r, p.Status)
	line.Error = p.Title
	s.tell(line)
}

func (s *Server) auditRecord(r *http.Request, code int) *v1.AuditRecord {
	c := callerOf(r.Context())
	who := v1.AuditWho{Kind: string(c.kind), Name: c.node + c.user, Role: string(c.rank)}
	if c.kind == callerNode {
		who.Role = string(c.role)
	}
	return &v1.AuditRecord{Time: s.now().UTC(), Who: who, From: remoteAddr(r), Method: r.Method, Path: clip(r.URL.Path), Status: code}
}

// auditor is the audit log: one line of JSON for each record, in files of a bounded size and number.
type auditor struct {
	log     *slog.Logger
	file    *rotated
	lines   *tally
	failed  prometheus.Counter
	dropped prometheus.Counter
}

// newAuditor is the audit log in the file and those beside it; nil where there is none.
func newAuditor(path string, log *slog.Logger, registry *prometheus.Registry, now func() time.Time) *auditor {
	if path == "" {
		return nil
	}
	a := &auditor{log: log, file: &rotated{path: path, size: auditSize, keep: auditKeep}, lines: newTally(now),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_audit_errors_total", Help: "Requests that the audit log does not tell of because it could not be written."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "apiserver_audit_refused_dropped_total", Help: "Requests that the audit log only counts because there were too many of one caller."}),
	}
	registry.MustRegister(a.failed, a.dropped)
	return a
}

// tell writes a record, or where there are too many like it, counts it.
func (a *auditor) tell(record *v1.AuditRecord) {
	own, counted := a.lines.add(record, a.count)
	for _, line := range counted {
		a.write(line)
	}
	if own {
		a.write(record)
	} else {
		a.dropped.Inc()
	}
}

// count writes the lines that count others.
func (a *auditor) count() {
	for _, line := range a.lines.end() {
		a.write(line)
	}
}

// close writes what was only counted so far.
func (a *auditor) close() {
	a.count()
	a.file.close()
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
