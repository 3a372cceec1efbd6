package apiserver

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Secrets and configs are the files of a service's tasks. A node is sent those that its own tasks need which are to run, and no
// others.

// file is a secret or a config.
type file struct {
	kind v1.Kind
	id   string
}

// filesOf are the files that a task needs of its revision; none once it is to stop.
func filesOf(t *v1.Task, r *v1.ServiceRevision) []file {
	if r == nil || !v1.Wanted(t.Desired) {
		return nil
	}
	c := &r.Spec.Task.Container
	if len(c.Secrets)+len(c.Configs) == 0 {
		return nil
	}
	files := make([]file, 0, len(c.Secrets)+len(c.Configs))
	for _, ref := range c.Secrets {
		files = append(files, file{v1.KindSecret, ref.ID})
	}
	for _, ref := range c.Configs {
		files = append(files, file{v1.KindConfig, ref.ID})
	}
	return files
}

// requireFiles counts a task in with those that need the files, and sends those that none needed before. One that is not there
// is left out: its node says so.
func (se *session) requireFiles(s *store.Snapshot, files []file, a *assignment) {
	for _, f := range files {
		if se.files[f]++; se.files[f] > 1 {
			continue
		}
		switch f.kind {
		case v1.KindSecret:
			if secret, ok := store.Get(s, v1.Secrets, f.id); ok {
				a.Secrets = append(a.Secrets, secret)
			}
		default:
			if config, ok := store.Get(s, v1.Configs, f.id); ok {
				a.Configs = append(a.Configs, config)
			}
		}
	}
}

// releaseFiles counts a task out. The agent forgets what no task needs.
func (se *session) releaseFiles(files []file) {
	for _, f := range files {
		if se.files[f]--; se.files[f] == 0 {
			delete(se.files, f)
		}
	}
}

// pinFiles refuses a service whose secrets or configs are not there, in Docker's words, or are too large together, and notes the
// others' IDs.
func pinFiles(s *store.Snapshot, c *v1.ContainerSpec) error {
	size := 0
	for _, list := range []struct {
		kind v1.Kind
		refs []v1.FileReference
	}{{v1.KindSecret, c.Secrets}, {v1.KindConfig, c.Configs}} {
		var missing []string
		for i := range list.refs {
			obj, err := exact(s, list.kind, list.refs[i].Source)
			if err != nil {
				missing = append(missing, clip(list.refs[i].Source))
				continue
			}
			list.refs[i].ID = obj.GetMeta().ID
			size += dataSize(obj)
		}
		kind := strings.ToLower(string(list.kind))
		switch len(missing) {
		case 0:
		case 1:
			return problemf(http.StatusBadRequest, "%s not found: %s", kind, missing[0])
		default:
			return problemf(http.StatusBadRequest, "%ss not found: %s", kind, strings.Join(missing, ", "))
		}
	}
	if size > v1.MaxFilesSize {
		return v1.FieldErrors{{Field: "spec.task.container", Message: fmt.Sprintf("its secrets and configs are %d bytes together: want at most %d, "+
			"because each task has them in memory", size, v1.MaxFilesSize)}}
	}
	return nil
}

// maxHeld bounds how many versions one write holds: etcd takes so many operations at once.
const maxHeld = 40

// holdVersions writes the claims of the versions again that a service begins to refer to, as they are, so that their collection, which
// removes the claims too, and this write cannot both happen.
func holdVersions(s *store.Snapshot, spec, before *v1.ServiceSpec) (ops []store.Op) {
	had := make(map[string]bool)
	if before != nil {
		for _, ref := range slices.Concat(before.Task.Container.Secrets, before.Task.Container.Configs) {
			had[ref.ID] = true
		}
	}
	for kind, refs := range map[v1.Kind][]v1.FileReference{v1.KindSecret: spec.Task.Container.Secrets, v1.KindConfig: spec.Task.Container.Configs} {
		for _, ref := range refs {
			o, ok := s.Lookup(kind, ref.ID)
			if !ok || had[ref.ID] || len(ops) >= maxHeld {
				continue
			}
			had[ref.ID] = true // a container may have it twice
			if stack, _ := v1.StackVersion(o.GetMeta()); stack == "" {
				continue
			}
			if claim, ok := store.Get(s, v1.Claims, v1.NameClaim(kind, o.GetMeta().Name)); ok {
				ops = append(ops, store.Op{Kind: v1.KindClaim, ID: claim.Meta.ID, Value: claim.Spec, Meta: &claim.Meta,
					If: store.AtRevision(claim.Meta.Revisions[v1.SectionSpec])})
			}
		}
	}
	return ops
}

func dataSize(obj v1.Object) int {
	switch obj := obj.(type) {
	case *v1.Secret:
		return len(obj.Spec.Data)
	case *v1.Config:
		return len(obj.Spec.Data)
	}
	return 0
}

// unreferenced refuses to let go of a secret or config that a service's spec refers to, in Docker's words, or that it may still need of what
// was before: that of its tasks, and of a rollback for as long as an update is not completed.
func unreferenced(s *store.Snapshot, kind string, m v1.Meta, refs func(*v1.ContainerSpec) []v1.FileReference) error {
	names := func(spec *v1.TaskSpec) bool {
		return slices.ContainsFunc(refs(&spec.Container), func(r v1.FileReference) bool {
			return r.Source == m.Name || r.Source == m.ID || r.ID == m.ID
		})
	}
	var users, former []string
	for service := range store.All(s, v1.Services) {
		switch {
		case !there(service): // its tasks are to stop, and none will follow them
		case names(&service.Spec.Task) || names(&v1.Effective(service).Spec.Task):
			users = append(users, service.Meta.Name)
		default:
			if why := formerUse(s, service, names); why != "" {
				former = append(former, "service "+service.Meta.Name+": "+why)
			}
		}
	}
	slices.Sort(users)
	slices.Sort(former)
	switch {
	case len(users) == 1:
		return problemf(http.StatusBadRequest, "%s '%s' is in use by the following service: %s", kind, m.Name, users[0])
	case len(users) > 1:
		return problemf(http.StatusBadRequest, "%s '%s' is in use by the following services: %s", kind, m.Name, strings.Join(users, ", "))
	case len(former) > 0:
		return problemf(http.StatusBadRequest, "%s '%s' is in use by %s", kind, m.Name, strings.Join(former, "; by "))
	}
	return nil
}

// formerUse says how a service still needs an earlier revision that names something; "" where it does not.
func formerUse(s *store.Snapshot, service *v1.Service, names func(*v1.TaskSpec) bool) (why string) {
	having := make(map[string]uint64)
	var all []*v1.ServiceRevision
	for r := range s.RevisionsOfService(service.Meta.ID) {
		if all = append(all, r); names(&r.Spec.Task) {
			having[r.Meta.ID] = r.Spec.Number
		}
	}
	if len(having) == 0 {
		return ""
	}
	for t := range s.TasksOfService(service.Meta.ID) {
		number, has := having[t.Desired.Revision]
		done := v1.Job(service) && v1.Observed(t).Terminal() // which is not done again
		if has && v1.Wanted(t.Desired) && !done {
			return "task " + v1.TaskName(t.Desired) + " runs revision " + strconv.FormatUint(number, 10) + ", which has it"
		}
	}
	if !updating(service) {
		return "" // as with Docker: a rotation ends with the removal of what was before
	}
	if r := v1.PreviousRevision(service, all); r != nil && having[r.Meta.ID] != 0 {
		return "it would roll back to revision " + strconv.FormatUint(r.Spec.Number, 10) + ", which has it"
	}
	return ""
}

// updating tells whether a service's latest update, or rollback, is not completed. One that the rules have not seen yet leaves tasks of before.
func updating(s *v1.Service) bool {
	if s.Desired == nil || s.Desired.Update == nil {
		return false
	}
	state := s.Desired.Update.State
	return state != v1.UpdateCompleted && state != v1.UpdateRollbackCompleted
}
