package apiserver

import (
	"encoding/base64"
	"iter"
	"net/http"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// The number of objects on a page of a list: where none is asked for, and at most.
const (
	defaultPage = 500
	maxPage     = 5000
)

// list answers with the objects of a kind, a page at a time, in the order of their IDs.
func (s *Server) list(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	watch, err := boolQuery(r, "watch")
	if err != nil {
		return err
	}
	if watch {
		return s.watch(w, r, d)
	}
	snapshot, err := s.snapshot(r)
	if err != nil {
		return err
	}
	if r.URL.Query().Has("after") {
		return problemf(http.StatusBadRequest, "query parameter after goes with watch=true")
	}
	limit, err := intQuery(r, "limit", defaultPage, 1, maxPage)
	if err != nil {
		return err
	}
	after, err := base64.RawURLEncoding.DecodeString(r.URL.Query().Get("continue"))
	if err != nil {
		return problemf(http.StatusBadRequest, "query parameter continue is not one that a list gave")
	}
	filter, err := filterOf(r, d.Kind())
	if err != nil {
		return err
	}
	sel, err := selectionOf(filter, d.Kind(), snapshot)
	if err != nil {
		return err
	}
	return writePage(w, d, snapshot, sel, string(after), int(limit))
}

func writePage(w http.ResponseWriter, d v1.Descriptor, s *store.Snapshot, sel selection, after string, limit int) error {
	body := append([]byte(nil), `{"apiVersion":"`+v1.APIVersion+`","kind":"`+string(d.Kind())+`List","revision":`...)
	body = append(strconv.AppendInt(body, s.Revision(), 10), `,"items":[`...)
	last, n, more := "", 0, false
	for obj := range sel.objects(s, d) {
		id := obj.GetMeta().ID
		if id <= after || !sel.match(obj) {
			continue
		}
		if more = n == limit; more {
			break
		}
		if n > 0 {
			body = append(body, ',')
		}
		var err error
		if body, err = appendObject(body, d.Kind(), obj); err != nil {
			return err
		}
		last = id
		n++
	}
	body = append(body, ']')
	if more {
		body = append(body, `,"continue":"`...)
		body = append(base64.RawURLEncoding.AppendEncode(body, []byte(last)), '"')
	}
	writeBody(w, http.StatusOK, append(body, '}'))
	return nil
}

// objects are those that may match, in the order of their IDs.
func (sel selection) objects(s *store.Snapshot, d v1.Descriptor) iter.Seq[v1.Object] {
	switch {
	case d.Kind() == v1.KindTask && sel.service != "":
		return asObjects(s.TasksOfService(sel.service))
	case d.Kind() == v1.KindTask && sel.node != "":
		return asObjects(s.TasksOfNode(sel.node))
	}
	return s.Objects(d.Kind())
}

func asObjects(tasks iter.Seq[*v1.Task]) iter.Seq[v1.Object] {
	return func(yield func(v1.Object) bool) {
		for t := range tasks {
			if !yield(t) {
				return
			}
		}
	}
}

// get answers with the one object that is meant.
func (s *Server) get(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	snapshot, err := s.snapshot(r)
	if err != nil {
		return err
	}
	obj, err := snapshot.Resolve(d.Kind(), r.PathValue("ref"))
	if err != nil {
		return err
	}
	return writeObject(w, http.StatusOK, d.Kind(), obj, nil)
}

// attached is the backend, or in Docker's words why there is none.
func (s *Server) attached() (*backend, error) {
	if b := s.current.Load(); b != nil {
		return b, nil
	}
	return nil, s.unattached()
}

// snapshot is the newest for a request that reads.
func (s *Server) snapshot(r *http.Request) (*store.Snapshot, error) {
	b, err := s.attached()
	if err != nil {
		return nil, err
	}
	return b.store.Snapshot(r.Context(), 0)
}
