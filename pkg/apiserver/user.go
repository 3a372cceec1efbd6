package apiserver

import (
	"net/http"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/store"
)

// maxTokens is how many tokens one user may have.
const maxTokens = 32

// userRoutes are the doors to what users prove themselves with.
func (s *Server) userRoutes() []route {
	return []route{
		{method: http.MethodPost, path: "/v1/users/{ref}/tokens", resource: "users", may: rightsAdmin, in: v1.UserTokenRequest{}, out: v1.NewUserToken{},
			summary: "Make a token of a user. It is told this once.", handle: s.createToken},
		{method: http.MethodDelete, path: "/v1/users/{ref}/tokens/{id}", resource: "users", may: rightsAdmin,
			summary: "End a token of a user.", handle: s.removeToken},
		{method: http.MethodPost, path: "/v1/users/{ref}/certificate", resource: "users", may: rightsAdmin, in: v1.CertificateRequest{}, out: v1.Certificate{},
			summary: "Make a certificate of a user.", handle: s.certifyUser},
	}
}

// errTokensGiven refuses tokens in a manifest.
var errTokensGiven = v1.FieldErrors{{Field: "spec.tokens", Message: "cannot be set: the swarm makes tokens, at /v1/users/{ref}/tokens"}}

// createUser makes a user, who has no token yet.
func (s *Server) createUser(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	obj, dry, err := s.userManifest(w, r, d)
	if err != nil {
		return err
	}
	if len(obj.Spec.Tokens) > 0 {
		return errTokensGiven
	}
	id := v1.NewID()
	made, _, err := b.write(r.Context(), d.Kind(), dry, func(snapshot *store.Snapshot) (change, error) {
		return s.creation(snapshot, d, obj, id)
	})
	if err != nil {
		return err
	}
	return created(w, d, made, dry, nil)
}

// updateUser replaces labels and role. Tokens may be left out, or be those that the user has.
func (s *Server) updateUser(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	obj, dry, err := s.userManifest(w, r, d)
	if err != nil {
		return err
	}
	return replacing{backend: b, dry: dry}.commit(w, r, d, nil, func(snapshot *store.Snapshot) (change, error) {
		old, err := resolveUser(snapshot, r)
		if err != nil {
			return change{}, err
		}
		next := &v1.User{Meta: obj.Meta, Spec: &v1.UserSpec{Role: obj.Spec.Role, Tokens: old.Spec.Tokens}}
		if !slices.EqualFunc(obj.Spec.Tokens, old.Spec.Tokens, func(given, has v1.UserToken) bool { return given.ID == has.ID }) && obj.Spec.Tokens != nil {
			return change{}, errTokensGiven
		}
		return s.replacement(snapshot, d, next, old.Meta.ID)
	})
}

// userManifest reads a user. Its name may be left out of an update.
func (s *Server) userManifest(w http.ResponseWriter, r *http.Request, d v1.Descriptor) (obj *v1.User, dry bool, err error) {
	manifest, err := s.manifest(w, r, d)
	if err != nil {
		return nil, false, err
	}
	obj = manifest.(*v1.User)
	if obj.Meta.Name == "" && r.PathValue("ref") != "" {
		b, err := s.attached()
		if err != nil {
			return nil, false, err
		}
		old, err := b.resolve(r.Context(), d.Kind(), r.PathValue("ref"))
		if err != nil {
			return nil, false, err
		}
		obj.Meta.Name = old.GetMeta().Name
	}
	if err := check(obj); err != nil {
		return nil, false, err
	}
	dry, err = boolQuery(r, "dryRun")
	return obj, dry, err
}

func resolveUser(s *store.Snapshot, r *http.Request) (*v1.User, error) {
	obj, err := s.Resolve(v1.KindUser, r.PathValue("ref"))
	if err != nil {
		return nil, err
	}
	return obj.(*v1.User), nil
}

// changeTokens writes the tokens that are decided for the user that the path means.
func (s *Server) changeTokens(r *http.Request, decide func(u *v1.User) ([]v1.UserToken, error)) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	_, _, err = b.write(r.Context(), v1.KindUser, false, func(snapshot *store.Snapshot) (change, error) {
		u, err := resolveUser(snapshot, r)
		if err != nil {
			return change{}, err
		}
		noteWrite(r.Context(), v1.KindUser, u.Meta.ID, u.Meta.Name, 0)
		spec, meta := *u.Spec, u.Meta
		if spec.Tokens, err = decide(u); err != nil {
			return change{}, err
		}
		meta.UpdatedAt, meta.Revisions = s.now().UTC(), v1.Revisions{}
		meta.Generation++
		return change{id: u.Meta.ID, alone: true, ops: []store.Op{
			{Kind: v1.KindUser, ID: u.Meta.ID, Value: &spec, Meta: &meta, If: store.AtRevision(u.Meta.Revisions[v1.SectionSpec])}}}, nil
	})
	return err
}

// createToken makes a token. Those that have ended make room for it.
func (s *Server) createToken(w http.ResponseWriter, r *http.Request) error {
	var request v1.UserTokenRequest
	if err := s.readInto(w, r, &request); err != nil {
		return err
	}
	now := s.now().UTC()
	if !request.Expires.IsZero() && !request.Expires.After(now) {
		return v1.FieldErrors{{Field: "expires", Message: "is over already: want a time to come, or leave it out"}}
	}
	id, hash, token := ca.NewUserToken()
	err := s.changeTokens(r, func(u *v1.User) ([]v1.UserToken, error) {
		live := liveTokens(u, now)
		if len(live) >= maxTokens {
			return nil, problemf(http.StatusConflict, "user %s has %d tokens already, which is the most: remove one first", u.Meta.Name, len(live))
		}
		return append(live, v1.UserToken{ID: id, Hash: hash, CreatedAt: now, Expires: request.Expires.UTC()}), nil
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, v1.NewUserToken{ID: id, Token: token})
}

func liveTokens(u *v1.User, now time.Time) []v1.UserToken {
	return slices.DeleteFunc(slices.Clone(u.Spec.Tokens), func(t v1.UserToken) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) })
}

func (s *Server) removeToken(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	err := s.changeTokens(r, func(u *v1.User) ([]v1.UserToken, error) {
		at := slices.IndexFunc(u.Spec.Tokens, func(t v1.UserToken) bool { return t.ID == id })
		if at < 0 {
			return nil, problemf(http.StatusNotFound, "user %s has no token %s", u.Meta.Name, clip(id))
		}
		return slices.Delete(slices.Clone(u.Spec.Tokens), at, at+1), nil
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// certifyUser signs a certificate whose holder is the user, by its ID. Its name and what it may do are looked up each time it is
// used.
func (s *Server) certifyUser(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	var request v1.CertificateRequest
	if err := s.readInto(w, r, &request); err != nil {
		return err
	}
	a, snapshot, err := b.authority(r.Context())
	if err != nil {
		return err
	}
	u, err := resolveUser(snapshot, r)
	if err != nil {
		return err
	}
	certificate, err := s.sign(r.Context(), b, a, snapshot, request.CSR, u.Meta.ID, ca.RoleUser)
	if err != nil {
		return err
	}
	noteWrite(r.Context(), v1.KindUser, u.Meta.ID, u.Meta.Name, 0)
	return writeJSON(w, http.StatusCreated, certificate)
}
