package apiserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// route is one thing that can be asked. The table of routes is what is served and what the OpenAPI document says.
type route struct {
	method, path string
	// resource is the route's name in metrics.
	resource string
	summary  string
	// may says who may use it.
	may rights
	// query are the names of the query's parameters; others are refused.
	query []string
	// in and out are samples of the bodies, for the document; nil for none.
	in, out any
	// stream tells that the answer may go on for long; it has a gate of its own and no time.
	stream bool
	// free tells that it costs nothing and takes no place.
	free bool
	// unlocked tells that a locked manager answers it too.
	unlocked bool
	// audit says whether the audit log tells of it, where its method does not say so.
	audit  auditing
	handle func(w http.ResponseWriter, r *http.Request) error
}

// routes builds the handlers, for root of this machine and for everybody else.
func (s *Server) routes() (root, door http.Handler) {
	table := s.table()
	byPath := make(map[string]map[string]*route)
	for i := range table {
		rt := &table[i]
		if byPath[rt.path] == nil {
			byPath[rt.path] = make(map[string]*route)
		}
		byPath[rt.path][rt.method] = rt
	}
	mux := http.NewServeMux()
	for path, methods := range byPath {
		mux.Handle(path, s.dispatch(methods))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if c := callerOf(r.Context()); c.kind != callerRoot && c.kind != callerUser {
			refuse(w, c, c.refusal(rightsView))
			return
		}
		writeProblem(w, unknownPath(r.URL.Path))
	})
	s.openapi = documentOf(table)
	return s.guard(s.asRoot(mux)), s.guard(s.asCaller(mux))
}

func (s *Server) table() []route {
	var table []route
	for _, d := range v1.Kinds {
		table = append(table, s.resourceRoutes(d)...)
	}
	table = append(table, s.nodeRoutes()...)
	table = append(table, s.logRoutes()...)
	table = append(table, s.tunnelRoutes()...)
	table = append(table, s.hostRoutes()...)
	table = append(table, s.admissionRoutes()...)
	table = append(table, s.swarmRoutes()...)
	table = append(table, s.userRoutes()...)
	table = append(table, s.storeRoutes()...)
	return append(table, s.ownRoutes()...)
}

// dispatch chooses by method among the routes of one path.
func (s *Server) dispatch(methods map[string]*route) http.Handler {
	allowed := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
	var any rights
	for _, rt := range methods {
		any |= rt.may
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		rt, ok := methods[method]
		may := any
		if ok {
			may = rt.may
		}
		if c := callerOf(r.Context()); !may.allow(c, r.PathValue("ref")) {
			p := c.refusal(may)
			refuse(w, c, p)
			if ok {
				s.metrics.observe(rt, p.Status, 0)
				s.auditRefused(r, rt, p)
			}
			return
		}
		if !ok || r.Method == http.MethodHead && (rt.stream || watches(r, rt)) {
			w.Header().Set("Allow", allowed)
			writeProblem(w, problemf(http.StatusMethodNotAllowed, "%s is not possible here, only %s", clip(r.Method), allowed))
			return
		}
		s.serve(w, r, rt)
	})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, rt *route) {
	began := time.Now()
	rec := w.(*recorder) // of guard
	r, told := s.noting(r, rt)
	var err error
	defer func() { told(rec.code, err) }()
	err = s.enter(rec, r, rt)
	if err != nil {
		if rec.code == 0 {
			tell := problemOf
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				tell = problemOfRead
			}
			writeProblem(rec, tell(err))
		} else if rec.broken {
			panic(http.ErrAbortHandler)
		} else {
			s.log.Debug("request ended early", "path", r.URL.Path, "error", err)
		}
	}
	if rec.code >= http.StatusInternalServerError && rec.code != http.StatusServiceUnavailable && !gone(r, err) {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if !rec.streamed {
		s.metrics.observe(rt, rec.code, time.Since(began))
	}
}

// gone tells whether a request failed because its client went away, which is no error of this side.
func gone(r *http.Request, err error) bool {
	return errors.Is(err, context.Canceled) && r.Context().Err() != nil
}

// enter checks what is common to all routes.
func (s *Server) enter(w *recorder, r *http.Request, rt *route) error {
	if !rt.stream && !rt.free && !watches(r, rt) {
		of, who := s.placesOf(r)
		leave, err := of.requests.enterAs(who)
		if err != nil {
			return err
		}
		defer leave()
	}
	if !rt.unlocked && s.host != nil && s.current.Load() == nil {
		if p := s.unattached(); p.Detail == locked {
			return p
		}
	}
	if rt.lasts(r) {
		guest, leave, err := s.guest(r, rt)
		if err != nil {
			return err
		}
		defer leave()
		r = guest
	}
	if err := checkQuery(r.URL.RawQuery, rt.query); err != nil {
		return err
	}
	return rt.handle(w, r)
}

// watches tells whether a list is asked to go on as a watch, which has a gate of its own.
func watches(r *http.Request, rt *route) bool {
	if r.URL.RawQuery == "" || !slices.Contains(rt.query, "watch") {
		return false
	}
	watch, err := boolQuery(r, "watch")
	return err == nil && watch
}

// checkQuery refuses what cannot be read, and parameters that the route does not have.
func checkQuery(raw string, known []string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return problemf(http.StatusBadRequest, "the query cannot be read: %s", err)
	}
	for name := range query {
		if slices.Contains(known, name) {
			continue
		}
		if len(known) == 0 {
			return problemf(http.StatusBadRequest, "unknown query parameter %q: there are none here", clip(name))
		}
		return problemf(http.StatusBadRequest, "unknown query parameter %q: want %s", clip(name), strings.Join(known, ", "))
	}
	return nil
}

// guard is around everything: a panic is answered, and told in the log with its place.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if cause == http.ErrAbortHandler {
				panic(cause)
			}
			s.log.Error("request panicked", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
			writeProblem(w, problemf(http.StatusInternalServerError, "an internal error; the daemon's log has more"))
		}()
		w.Header().Set("X-Content-Type-Options", "nosniff")
		limitBody(w, r, s.limits.BodyTimeout)
		next.ServeHTTP(&recorder{ResponseWriter: w, timeout: s.limits.WriteTimeout}, r)
	})
}

// unknownPath says what there is instead.
func unknownPath(path string) *v1.Problem {
	first, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/"), "v1/"), "/")
	hint := "the paths are listed at /openapi.json"
	for _, d := range v1.Kinds {
		if v1.Internal(d.Kind()) {
			continue
		}
		if strings.EqualFold(first, d.Plural()) || strings.EqualFold(first, string(d.Kind())) {
			hint = "did you mean /v1/" + d.Plural() + "?"
		}
	}
	return problemf(http.StatusNotFound, "there is no %q here: %s", clip(path), hint)
}

// clip bounds what is quoted of a request.
func clip(text string) string {
	const most = 100
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}

// recorder remembers the status of an answer, and gives the client only so long to read it. Streams give themselves time
// with each write.
type recorder struct {
	http.ResponseWriter
	timeout  time.Duration
	code     int
	streamed bool
	broken   bool // what was answered so far must not be taken for a whole answer
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	if r.code == 0 {
		r.code = code
		_ = http.NewResponseController(r.ResponseWriter).SetWriteDeadline(time.Now().Add(r.timeout)) // not possible without a connection
	}
	r.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	if r.code == 0 {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
