package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/schedule"
	"github.com/swarmd/swarmd/pkg/store"
)

// manifest reads a body that is a manifest of the kind.
func (s *Server) manifest(w http.ResponseWriter, r *http.Request, d v1.Descriptor) (v1.Object, error) {
	body, err := s.readBody(w, r, v1.MaxManifestSize)
	if err != nil {
		return nil, err
	}
	m, err := v1.DecodeManifest(body)
	if err != nil {
		return nil, err
	}
	if m.Kind != d.Kind() {
		return nil, v1.FieldErrors{{Field: "kind", Message: fmt.Sprintf("want %s at /v1/%s, found %s", d.Kind(), d.Plural(), m.Kind)}}
	}
	return m.Object, nil
}

// check fills in defaults, and refuses what is wrong or not supported yet.
func check(obj v1.Object) error {
	v1.Default(obj)
	if errs := v1.Validate(obj); len(errs) > 0 {
		return errs
	}
	if errs := v1.Unsupported(obj); len(errs) > 0 {
		return errs
	}
	return checkSchedule(obj)
}

// checkSchedule refuses a schedule that never falls due, and a time zone that is none.
func checkSchedule(obj v1.Object) error {
	service, ok := obj.(*v1.Service)
	if !ok || service.Spec.Schedule == nil {
		return nil
	}
	for field, expr := range map[string]string{"timeZone": "@daily", "cron": service.Spec.Schedule.Cron} {
		zone := ""
		if field == "timeZone" {
			zone = service.Spec.Schedule.TimeZone
		}
		if _, err := schedule.Parse(expr, zone); err != nil {
			return v1.FieldErrors{{Field: "spec.schedule." + field, Message: err.Error()}}
		}
	}
	return nil
}

// create makes a new object.
func (s *Server) create(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	obj, err := s.manifest(w, r, d)
	if err != nil {
		return err
	}
	dry, err := boolQuery(r, "dryRun")
	if err != nil {
		return err
	}
	if err := check(obj); err != nil {
		return err
	}
	warnings, err := s.askRegistry(r, b, obj, nil)
	if err != nil {
		return err
	}
	id := v1.NewID()
	made, _, err := b.write(r.Context(), d.Kind(), dry, func(snapshot *store.Snapshot) (change, error) {
		return s.creation(snapshot, d, obj, id)
	})
	if err != nil {
		return err
	}
	return created(w, d, made, dry, warnings)
}

func created(w http.ResponseWriter, d v1.Descriptor, made v1.Object, dry bool, warnings []string) error {
	if made == nil {
		return problemf(http.StatusConflict, "the %s was deleted as soon as it was made", strings.ToLower(string(d.Kind())))
	}
	code := http.StatusOK
	if !dry {
		code = http.StatusCreated
		w.Header().Set("Location", "/v1/"+d.Plural()+"/"+made.GetMeta().ID)
	}
	return writeObject(w, code, d.Kind(), made, warnings)
}

// creation decides what it takes to create an object.
func (s *Server) creation(snapshot *store.Snapshot, d v1.Descriptor, obj v1.Object, id string) (change, error) {
	name := obj.GetMeta().Name
	claim := v1.NameClaim(d.Kind(), name)
	var ops []store.Op
	claims := store.Absent()
	if held, taken := store.Get(snapshot, v1.Claims, claim); taken {
		if ops = succession(snapshot, d.Kind(), held); ops == nil {
			return change{}, nameTaken(snapshot, d.Kind(), name, held.Spec.Holder)
		}
		claims = store.AtRevision(held.Meta.Revisions[v1.SectionSpec])
	}
	if err := checkReferences(snapshot, obj, id); err != nil {
		return change{}, err
	}
	now := s.now().UTC()
	meta := &v1.Meta{ID: id, Name: name, Labels: obj.GetMeta().Labels, CreatedAt: now, UpdatedAt: now, Generation: 1}
	claiming := claimOp(claim, id, now)
	claiming.If = claims
	ops = append(ops, store.Op{Kind: d.Kind(), ID: id, Value: d.Section(obj, v1.SectionSpec), Meta: meta, If: store.Absent()}, claiming)
	if service, ok := obj.(*v1.Service); ok {
		ops = append(ops, revisionOp(snapshot, service.Spec, meta))
		ops = append(ops, holdVersions(snapshot, service.Spec, nil)...)
	}
	return change{id: id, ops: ops}, nil
}

func claimOp(claim, holder string, now time.Time) store.Op {
	return store.Op{Kind: v1.KindClaim, ID: claim, Value: &v1.ClaimSpec{Holder: holder},
		Meta: &v1.Meta{ID: claim, CreatedAt: now, UpdatedAt: now}, If: store.Absent()}
}

// nameTaken are Docker's words, but where a name is another's in other letters alone.
func nameTaken(s *store.Snapshot, k v1.Kind, name, holder string) error {
	kind := strings.ToLower(string(k))
	if obj, ok := s.Lookup(k, holder); ok && obj.GetMeta().Name != name {
		return problemf(http.StatusConflict, "name conflicts with an existing object: %s %s already exists, and DNS cannot tell %s from it: "+
			"want a name that differs by more than upper and lower case", kind, obj.GetMeta().Name, name)
	}
	switch k {
	case v1.KindService:
		return problemf(http.StatusConflict, "name conflicts with an existing object: service %s already exists", name)
	case v1.KindNetwork:
		return problemf(http.StatusConflict, "network with name %s already exists", name)
	}
	return problemf(http.StatusConflict, "%s %s already exists", kind, name)
}

// replacing is what a request to replace an object says.
type replacing struct {
	backend  *backend
	obj, old v1.Object
	dry      bool
}

// replacing reads a request to replace an object.
func (s *Server) replacing(w http.ResponseWriter, r *http.Request, d v1.Descriptor) (p replacing, err error) {
	if p.backend, err = s.attached(); err != nil {
		return p, err
	}
	if p.obj, err = s.manifest(w, r, d); err != nil {
		return p, err
	}
	if p.dry, err = boolQuery(r, "dryRun"); err != nil {
		return p, err
	}
	p.old, err = p.backend.resolve(r.Context(), d.Kind(), r.PathValue("ref"))
	return p, err
}

// commit writes what was decided, and answers with what came of it.
func (p replacing) commit(w http.ResponseWriter, r *http.Request, d v1.Descriptor, warnings []string, decide func(*store.Snapshot) (change, error)) error {
	made, _, err := p.backend.write(r.Context(), d.Kind(), p.dry, decide)
	if err != nil {
		return err
	}
	if made == nil {
		return &store.NotFoundError{Kind: d.Kind(), Ref: r.PathValue("ref")}
	}
	return writeObject(w, http.StatusOK, d.Kind(), made, warnings)
}

// update replaces an object's labels and spec.
func (s *Server) update(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	p, err := s.replacing(w, r, d)
	if err != nil {
		return err
	}
	if err := checkGuess(r, p.obj); err != nil {
		return err
	}
	inherit(p.obj, p.old)
	if err := check(p.obj); err != nil {
		return err
	}
	warnings, err := s.askRegistry(r, p.backend, p.obj, p.old)
	if err != nil {
		return err
	}
	id := p.old.GetMeta().ID
	return p.commit(w, r, d, warnings, func(snapshot *store.Snapshot) (change, error) { return s.replacement(snapshot, d, p.obj, id) })
}

// errLabelsOnly are Docker's words.
var errLabelsOnly = problemf(http.StatusBadRequest, "only updates to Labels are allowed")

// checkGuess refuses to compare a secret with what somebody says who may not know it: the answer would tell whether it is right.
func checkGuess(r *http.Request, obj v1.Object) error {
	secret, ok := obj.(*v1.Secret)
	if !ok || secret.Spec == nil || secret.Spec.Data == nil {
		return nil
	}
	if c := callerOf(r.Context()); c.kind == callerRoot || c.atLeast(v1.UserAdmin) {
		return nil
	}
	return errLabelsOnly
}

// inherit takes from the old object what an update need not say, because it cannot change.
func inherit(obj, old v1.Object) {
	if m := obj.GetMeta(); m.Name == "" {
		m.Name = old.GetMeta().Name
	}
	switch obj := obj.(type) {
	case *v1.Secret:
		if was := *old.(*v1.Secret).Spec; obj.Spec == nil {
			obj.Spec = &was
		} else if obj.Spec.Data == nil {
			obj.Spec.Data = was.Data
		}
	case *v1.Config:
		if was := *old.(*v1.Config).Spec; obj.Spec == nil {
			obj.Spec = &was
		} else if obj.Spec.Data == nil {
			obj.Spec.Data = was.Data
		}
	case *v1.Registry:
		was := *old.(*v1.Registry).Spec
		if s := obj.Spec; s == nil || *s == (v1.RegistrySpec{Username: was.Username}) {
			obj.Spec = &was
		}
	case *v1.Cluster:
		if obj.Spec != nil && obj.Spec.GatewayPool == "" {
			obj.Spec.GatewayPool = old.(*v1.Cluster).Spec.GatewayPool
		}
	case *v1.Node:
		if was := old.(*v1.Node).Spec; obj.Spec != nil {
			if obj.Spec.Index == 0 {
				obj.Spec.Index = was.Index
			}
			if obj.Spec.Role == "" {
				obj.Spec.Role = was.Role
			}
		}
	}
}

// replacement decides what it takes to replace an object's labels and spec.
func (s *Server) replacement(snapshot *store.Snapshot, d v1.Descriptor, obj v1.Object, id string) (change, error) {
	old, ok := snapshot.Lookup(d.Kind(), id)
	if !ok || !there(old) {
		return change{}, &store.NotFoundError{Kind: d.Kind(), Ref: id}
	}
	was, is := old.GetMeta(), obj.GetMeta()
	kind := strings.ToLower(string(d.Kind()))
	if is.ID != "" && is.ID != id {
		return change{}, problemf(http.StatusConflict, "%s %s has the ID %s, not %s: the one with that ID is gone", kind, was.Name, id, clip(is.ID))
	}
	if want, have := is.Revisions[v1.SectionSpec], was.Revisions[v1.SectionSpec]; want != 0 && want != have {
		return change{}, problemf(http.StatusConflict, "update out of sequence: %s %s was changed at revision %d, after revision %d that "+
			"this change began with: get it again and repeat the change", kind, was.Name, have, want)
	}
	if a, ok := obj.(*v1.Attachment); ok {
		pinAttachment(snapshot, a.Spec)
	}
	if err := checkUnchanged(old, obj); err != nil {
		return change{}, err
	}
	if err := checkReferences(snapshot, obj, id); err != nil {
		return change{}, err
	}
	spec, oldSpec := d.Section(obj, v1.SectionSpec), d.Section(old, v1.SectionSpec)
	same, err := equalJSON(spec, oldSpec)
	if err != nil {
		return change{}, err
	}
	if _, login := obj.(*v1.Registry); login {
		same = false // or the answer would tell whether a password is that which is kept
	}
	resumes := same && paused(old)
	if same && !resumes && maps.Equal(was.Labels, is.Labels) {
		return change{id: id}, nil
	}
	meta := *was
	meta.Labels, meta.UpdatedAt, meta.Revisions = is.Labels, s.now().UTC(), v1.Revisions{}
	if !same || resumes {
		meta.Generation++
	}
	ops := []store.Op{{Kind: d.Kind(), ID: id, Value: spec, Meta: &meta, If: store.AtRevision(was.Revisions[v1.SectionSpec])}}
	if service, ok := obj.(*v1.Service); ok && !same {
		ops = append(ops, revisionOp(snapshot, service.Spec, &meta))
		ops = append(ops, holdVersions(snapshot, service.Spec, old.(*v1.Service).Spec)...)
	}
	return change{id: id, ops: ops}, nil
}

// paused tells whether a service's update waits for its user: giving the same spec again resumes it, as in Docker.
func paused(obj v1.Object) bool {
	service, ok := obj.(*v1.Service)
	if !ok || service.Desired == nil || service.Desired.Update == nil {
		return false
	}
	state := service.Desired.Update.State
	return state == v1.UpdatePaused || state == v1.UpdateRollbackPaused
}

func equalJSON(a, b any) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(b)
	return bytes.Equal(x, y), err
}

// revisionOp makes sure that the revision that a service asks for is there when the service is. One that is there already is
// written again as it is, so that its removal and this write cannot both happen. It has the service's labels, for templates.
func revisionOp(snapshot *store.Snapshot, spec *v1.ServiceSpec, meta *v1.Meta) store.Op {
	id := v1.RevisionID(&v1.Service{Meta: *meta, Spec: spec})
	op := store.Op{Kind: v1.KindServiceRevision, ID: id}
	if old, ok := store.Get(snapshot, v1.ServiceRevisions, id); ok {
		kept := old.Meta
		kept.Labels = meta.Labels
		op.Value, op.Meta, op.If = old.Spec, &kept, store.AtRevision(old.Meta.Revisions[v1.SectionSpec])
		return op
	}
	op.Value = &v1.ServiceRevisionSpec{Service: meta.ID, Task: spec.Task, Endpoint: spec.Endpoint, Number: meta.Generation}
	op.Meta = &v1.Meta{ID: id, Labels: meta.Labels, CreatedAt: meta.UpdatedAt, UpdatedAt: meta.UpdatedAt}
	op.If = store.Absent()
	return op
}

// remove deletes an object. A service is only marked: its tasks go first, but its name is free at once.
func (s *Server) remove(w http.ResponseWriter, r *http.Request, d v1.Descriptor) error {
	return s.removeWith(w, r, d, func(*backend, *store.Snapshot, v1.Object) []store.Op { return nil })
}

// removeWith deletes an object, and does what else its end asks for.
func (s *Server) removeWith(w http.ResponseWriter, r *http.Request, d v1.Descriptor, more func(*backend, *store.Snapshot, v1.Object) []store.Op) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	dry, err := boolQuery(r, "dryRun")
	if err != nil {
		return err
	}
	force, err := boolQuery(r, "force")
	if err != nil {
		return err
	}
	_, _, err = b.write(r.Context(), d.Kind(), dry, func(snapshot *store.Snapshot) (change, error) {
		obj, err := snapshot.Resolve(d.Kind(), r.PathValue("ref"))
		if err != nil {
			return change{}, err
		}
		if err := checkUnused(snapshot, obj, force); err != nil {
			return change{}, err
		}
		c := s.removal(snapshot, d, obj)
		c.ops = append(c.ops, more(b, snapshot, obj)...)
		return c, nil
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) removal(snapshot *store.Snapshot, d v1.Descriptor, obj v1.Object) change {
	meta := *obj.GetMeta()
	op := store.Op{Kind: d.Kind(), ID: meta.ID, If: store.AtRevision(meta.Revisions[v1.SectionSpec])}
	if d.Kind() == v1.KindService {
		meta.Deleting = s.now().UTC()
		meta.UpdatedAt = meta.Deleting
		op.Value, op.Meta = d.Section(obj, v1.SectionSpec), &meta
	}
	c := change{id: meta.ID, ops: []store.Op{op}}
	claim := v1.NameClaim(d.Kind(), meta.Name)
	if n, ok := obj.(*v1.Node); ok {
		claim = v1.NodeIndexClaim(n.Spec.Index)
	}
	if held, ok := store.Get(snapshot, v1.Claims, claim); ok && held.Spec.Holder == meta.ID {
		c.ops = append(c.ops, store.Op{Kind: v1.KindClaim, ID: claim, If: store.AtRevision(held.Meta.Revisions[v1.SectionSpec])})
	}
	return c
}
