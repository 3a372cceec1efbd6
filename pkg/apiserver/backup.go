package apiserver

import (
	"net/http"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// backup streams the state of the swarm. Whoever reads it may take long, but not stand still; a backup that breaks off ends the
// connection, so that it cannot be taken for a whole one.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	if b.backing.Members == nil {
		return errOwnEtcd
	}
	leave, err := s.backups.enter()
	if err != nil {
		return err
	}
	defer leave()
	rec := w.(*recorder) // of guard
	rec.streamed = true
	out := &movingWriter{w: w, control: http.NewResponseController(w), within: s.limits.WriteTimeout}
	if err := b.backing.Members.Backup(r.Context(), out); err != nil {
		if !out.begun {
			return memberProblem(err)
		}
		s.log.Error("a backup broke off", "error", err)
		rec.broken = true
		return err
	}
	return out.finish()
}

// maxBackups is how many backups may be made at a time: each reads all of the state.
const maxBackups = 2

// movingWriter writes an answer of any length, each part of which has to be read within a time.
type movingWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	within  time.Duration
	begun   bool
}

// Write implements io.Writer.
func (m *movingWriter) Write(b []byte) (int, error) {
	m.begin()
	_ = m.control.SetWriteDeadline(time.Now().Add(m.within)) // not possible in a test without a connection
	return m.w.Write(b)
}

func (m *movingWriter) begin() {
	if m.begun {
		return
	}
	m.begun = true
	h := m.w.Header()
	h.Set("Content-Type", "application/x-tar")
	h.Set("Cache-Control", "no-store")
	m.w.WriteHeader(http.StatusOK)
}

func (m *movingWriter) finish() error {
	m.begin()
	return m.control.Flush()
}

// restore makes this daemon the first manager of the swarm of a backup.
func (s *Server) restore(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	request := v1.InitRequest{
		ListenAddr: query.Get("listenAddr"), AdvertiseAddr: query.Get("advertiseAddr"), DataPathAddr: query.Get("dataPathAddr"),
		Availability: v1.NodeAvailability(query.Get("availability")),
	}
	archive := &movingReader{r: r, control: http.NewResponseController(w), within: s.limits.BodyTimeout}
	node, err := s.host.Restore(r.Context(), request, archive)
	if err != nil {
		w.Header().Set("Connection", "close") // the rest of the archive is not wanted
		return err
	}
	noteWrite(r.Context(), v1.KindNode, node, "", 0)
	return writeJSON(w, http.StatusOK, v1.InitResult{NodeID: node})
}
