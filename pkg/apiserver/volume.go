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

// volumeUnused refuses to let go of a volume that a service's spec names, in Docker's words.
func volumeUnused(s *store.Snapshot, name string) error {
	for service := range store.All(s, v1.Services) {
		if there(service) && slices.ContainsFunc(service.Spec.Task.Container.Mounts, func(m v1.Mount) bool {
			return m.Type == v1.MountVolume && m.Source == name
		}) {
			return problemf(http.StatusConflict, "remove %s: volume is in use by service %s", name, service.Meta.Name)
		}
	}
	return nil
}
