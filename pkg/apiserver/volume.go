package apiserver

import (
	"maps"
	"net/http"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// A Volume says what volumes of its name are like, on whichever nodes they come to be. What it says is written into the mounts of
// services, as if their users had said it: a node needs to know of no Volume.

// pinVolumes writes what volumes are like into the mounts that name them and say nothing else.
func pinVolumes(s *store.Snapshot, c *v1.ContainerSpec) {
	for i := range c.Mounts {
		m := &c.Mounts[i]
		if m.Type != v1.MountVolume || m.Source == "" || m.Volume != nil && m.Volume.Driver != nil {
			continue
		}
		id, ok := s.ByName(v1.KindVolume, m.Source)
		if !ok {
			continue
		}
		v, ok := store.Get(s, v1.Volumes, id)
		if !ok || len(v.Spec.Options)+len(v.Meta.Labels) == 0 {
			continue
		}
		options := new(v1.VolumeOptions)
		if m.Volume != nil {
			*options = *m.Volume
		}
		options.Driver = &v1.Driver{Name: v.Spec.Driver, Options: maps.Clone(v.Spec.Options)}
		if len(options.Labels) == 0 {
			options.Labels = maps.Clone(v.Meta.Labels)
		}
		m.Volume = options
	}
}

// volumeUnused refuses to let go of a volume that a service's tasks mount, or may when they come back, in Docker's words.
func volumeUnused(s *store.Snapshot, name string) error {
	if user := volumeUser(s, name); user != "" {
		return problemf(http.StatusConflict, "remove %s: volume is in use by service %s", clip(name), user)
	}
	return nil
}

// volumeUser is a service that mounts a volume: as its spec says, or as its tasks run, which an update that was paused leaves as they were.
func volumeUser(s *store.Snapshot, volume string) string {
	mounts := func(c *v1.ContainerSpec, service, name string) bool {
		return slices.ContainsFunc(v1.VolumesMounted(c, service, name), func(p v1.VolumePattern) bool { return p.Match(volume) })
	}
	for service := range store.All(s, v1.Services) {
		asked, runs := &service.Spec.Task.Container, &v1.Effective(service).Spec.Task.Container
		if id, name := service.Meta.ID, service.Meta.Name; there(service) && (mounts(asked, id, name) || mounts(runs, id, name)) {
			return name
		}
	}
	seen := make(map[string]bool)
	for t := range store.All(s, v1.Tasks) {
		if !v1.Wanted(t.Desired) || seen[t.Desired.Revision] {
			continue
		}
		seen[t.Desired.Revision] = true
		r, ok := store.Get(s, v1.ServiceRevisions, t.Desired.Revision)
		if ok && mounts(&r.Spec.Task.Container, t.Desired.Service, t.Desired.ServiceName) {
			return t.Desired.ServiceName
		}
	}
	return ""
}
