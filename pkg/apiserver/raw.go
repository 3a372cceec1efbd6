package apiserver

import (
	"encoding/json"
	"errors"
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// maxCommit bounds the body of a raw commit, in bytes.
const maxCommit = 32 << 20

// rawCommit is a store.Commit as it travels.
type rawCommit struct {
	Ops   []store.Op   `json:"ops"`
	Fence *store.Fence `json:"fence,omitempty"`
}

// rawRevision answers with a revision of the store.
type rawRevision struct {
	Revision int64 `json:"revision"`
}

// rawBatch is a store.Batch as it travels; a bookmark has no operations.
type rawBatch struct {
	Revision int64      `json:"revision"`
	Ops      []store.Op `json:"ops,omitempty"`
	// Problem ends a watch.
	Problem *v1.Problem `json:"problem,omitempty"`
}

// rawObject is one line of a snapshot: an object, or at the end the revision and how many there were.
type rawObject struct {
	Kind   v1.Kind         `json:"kind,omitempty"`
	Object json.RawMessage `json:"object,omitempty"`
	End    bool            `json:"end,omitempty"`
	Count  int             `json:"count,omitempty"`
	rawRevision
}

// storeRoutes are the doors of the store itself, for the client's Store. They show everything: they are for the swarm's own
// parts.
func (s *Server) storeRoutes() []route {
	tell := func(handle func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
		return func(w http.ResponseWriter, r *http.Request) error {
			if err := handle(w, r); err != nil {
				return storeProblemOf(err)
			}
			return nil
		}
	}
	return []route{
		{method: http.MethodPost, path: "/v1/commit", resource: "store", may: rightsRoot, summary: "Commit operations to the store.",
			in: anyObject{}, out: rawRevision{}, handle: tell(s.commit)},
		{method: http.MethodGet, path: "/v1/watch", resource: "store", stream: true, may: rightsRoot, query: []string{"after"},
			summary: "Watch the store, one batch a line.", out: anyObject{}, handle: tell(s.watchStore)},
		{method: http.MethodGet, path: "/v1/snapshot", resource: "store", stream: true, may: rightsRoot, query: []string{"revision"},
			summary: "Read everything at one revision, one object a line.", out: anyObject{}, handle: tell(s.dump)},
		{method: http.MethodGet, path: "/v1/revision", resource: "store", may: rightsRoot, summary: "Read the store's current revision.",
			out: rawRevision{}, handle: tell(s.revision)},
	}
}

func (s *Server) commit(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	body, err := s.readBody(w, r, maxCommit)
	if err != nil {
		return err
	}
	var c rawCommit
	if err := json.Unmarshal(body, &c); err != nil {
		return problemf(http.StatusBadRequest, "the body is not a commit: %s", err)
	}
	if err := store.CheckOps(c.Ops); err != nil {
		return err
	}
	revision, err := b.store.Commit(r.Context(), store.Commit{Ops: c.Ops, Fence: c.Fence})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, rawRevision{revision})
}

func (s *Server) revision(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	revision, err := b.store.Sync(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, rawRevision{revision})
}

// watchStore streams every batch after a revision.
func (s *Server) watchStore(w http.ResponseWriter, r *http.Request) error {
	return s.watching(w, r, func(f *feed, _ *store.Snapshot) error {
		if f.after < 0 {
			return problemf(http.StatusBadRequest, "query parameter after is missing")
		}
		f.stream.sse, f.stream.raw = false, true
		return nil
	})
}

// dump streams a snapshot.
func (s *Server) dump(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	of, who := s.placesOf(r)
	leave, err := of.watches.enterAs(who)
	if err != nil {
		return err
	}
	defer leave()
	atLeast, err := intQuery(r, "revision", 0, 0, 1<<62)
	if err != nil {
		return err
	}
	snapshot, err := b.store.Snapshot(r.Context(), atLeast)
	if err != nil {
		return err
	}
	out := s.newStream(w, r)
	out.sse = false
	buf := takeBuffer()
	defer giveBuffer(buf)
	count := 0
	for _, d := range v1.Kinds {
		for obj := range snapshot.Objects(d.Kind()) {
			body, err := json.Marshal(obj)
			if err != nil {
				return err
			}
			if err := appendRaw(buf, rawObject{Kind: d.Kind(), Object: body}); err != nil {
				return err
			}
			count++
			if len(*buf) < flushAt {
				continue
			}
			if err := out.write(*buf); err != nil {
				return err
			}
			*buf = (*buf)[:0]
		}
	}
	if err := appendRaw(buf, rawObject{End: true, Count: count, rawRevision: rawRevision{snapshot.Revision()}}); err != nil {
		return err
	}
	return out.write(*buf)
}

func appendRaw(buf *[]byte, v any) error {
	line, err := json.Marshal(v)
	*buf = append(append(*buf, line...), '\n')
	return err
}

// unsent is why a raw watch ends, for its last line.
func unsent(err error) *v1.Problem {
	if p, ok := errors.AsType[*v1.Problem](err); ok {
		return p
	}
	return storeProblemOf(err)
}
