package apiserver

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// Logins to registries are the swarm's. A node is sent those for the images of its own tasks that are to run, and no others, anew
// whenever one is renewed: a task that comes to be a week later is pulled for with the login of that day.

// logins are what a session's node has been told of registries. The session's goroutine alone uses it.
type logins struct {
	// repositories are where the images of its tasks come from, and how many tasks need each.
	repositories map[string]int
	// changed tells that a repository came or went since the node was told.
	changed bool
	// sent are the IDs of the logins that the node has, and their revisions.
	sent map[string]int64
}

// repositoryOf is where a task's image comes from; "" once it is to stop.
func repositoryOf(t *v1.Task, r *v1.ServiceRevision) string {
	if r == nil || !v1.Wanted(t.Desired) {
		return ""
	}
	ref, err := v1.ParseImageReference(r.Spec.Task.Container.Image)
	if err != nil {
		return ""
	}
	return ref.Repository()
}

func (l *logins) require(repository string) {
	if repository == "" {
		return
	}
	if l.repositories[repository]++; l.repositories[repository] == 1 {
		l.changed = true
	}
}

func (l *logins) release(repository string) {
	if repository == "" {
		return
	}
	if l.repositories[repository]--; l.repositories[repository] == 0 {
		delete(l.repositories, repository)
		l.changed = true
	}
}

// compareLogins notes in the assignment all logins that the node is to have, where they are others than it was told.
func (se *session) compareLogins(s *store.Snapshot, look bool, a *assignment) {
	if !look && !se.logins.changed {
		return
	}
	se.logins.changed = false
	want := make(map[string]int64)
	all := []v1.RegistryLogin{}
	for repository := range se.logins.repositories {
		r := registryFor(s, repository)
		if r == nil || want[r.Meta.ID] != 0 {
			continue
		}
		want[r.Meta.ID] = r.Meta.Revisions[v1.SectionSpec]
		all = append(all, v1.LoginOf(r))
	}
	if maps.Equal(want, se.logins.sent) {
		return
	}
	slices.SortFunc(all, func(x, y v1.RegistryLogin) int { return strings.Compare(x.Server, y.Server) })
	se.logins.sent, a.Logins = want, all
}

// registryFor is the swarm's login for a repository, or nil.
func registryFor(s *store.Snapshot, repository string) *v1.Registry {
	var found *v1.Registry
	v1.MatchLogin(repository, func(name string) bool {
		id, ok := s.ByName(v1.KindRegistry, name)
		if ok {
			found, ok = store.Get(s, v1.Registries, id)
		}
		return ok
	})
	return found
}

// loginFor is the login for an image, as it is now.
func (b *backend) loginFor(ctx context.Context, ref v1.ImageReference) (v1.RegistryLogin, error) {
	revision, err := b.store.Sync(ctx) // another manager may have taken it a moment ago
	if err != nil {
		return v1.RegistryLogin{}, err
	}
	s, err := b.store.Snapshot(ctx, revision)
	if err != nil {
		return v1.RegistryLogin{}, err
	}
	return v1.LoginOf(registryFor(s, ref.Repository())), nil
}

// askRegistry has a registry say what it has to about an object that is about to be written, if anything.
func (s *Server) askRegistry(r *http.Request, b *backend, obj, old v1.Object) (warnings []string, err error) {
	switch obj := obj.(type) {
	case *v1.Service:
		return s.pin(r, b, obj, old)
	case *v1.Registry:
		return s.tryLogin(r.Context(), obj)
	}
	return nil, nil
}

// tryLogin refuses a login that its registry refuses. A registry that cannot be asked from here is a warning.
func (s *Server) tryLogin(ctx context.Context, registry *v1.Registry) ([]string, error) {
	if s.resolver == nil {
		return nil, nil
	}
	within, cancel := context.WithTimeout(ctx, s.limits.ResolveTimeout)
	defer cancel()
	login := v1.LoginOf(registry)
	accepted, err := s.resolver.TryLogin(within, login)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return []string{fmt.Sprintf("the login to %s is kept unchecked: %v", login.Server, err)}, nil
	case accepted:
		return nil, nil
	case login.IdentityToken != "":
		return nil, problemf(http.StatusBadRequest, "the registry %s refuses the identity token: get another one", login.Server)
	}
	return nil, problemf(http.StatusBadRequest, "the registry %s refuses the user %s: incorrect username or password", login.Server, strconv.Quote(login.Username))
}
