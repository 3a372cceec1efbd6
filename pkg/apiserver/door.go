package apiserver

import "net/http"

// asRoot is the handler for whoever can open the socket.
func (s *Server) asRoot(next http.Handler) http.Handler {
	root := &caller{kind: callerRoot}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(withCaller(r.Context(), root)))
	})
}

// asCaller is the handler for whoever comes over TLS.
func (s *Server) asCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := s.identify(r)
		if c.kind == callerNobody {
			limitBody(w, r, min(s.limits.StrangerTimeout, s.limits.BodyTimeout))
		}
		next.ServeHTTP(w, r.WithContext(withCaller(r.Context(), c)))
	})
}
