package runtime

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// KeepFiles implements Runtime.
func (f *Fake) KeepFiles(ctx context.Context, id string, files []File) error {
	if err := CheckFiles(files); err != nil {
		return err
	}
	if err := f.enter(ctx, FakeKeep, id); err != nil {
		return err
	}
	defer f.mu.Unlock()
	kept := make([]File, len(files))
	for i, file := range files {
		file.Data = slices.Clone(file.Data)
		if at := slices.IndexFunc(f.files[id], file.Same); at >= 0 {
			file = f.files[id][at]
		}
		kept[i] = file
	}
	if f.files[id] = kept; len(kept) == 0 {
		delete(f.files, id)
	}
	return nil
}

// KeptFiles implements Runtime.
func (f *Fake) KeptFiles(ctx context.Context, id string) ([]File, error) {
	if err := f.enter(ctx, FakeList, id); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	files := slices.Clone(f.files[id])
	for i := range files {
		files[i].Data = nil
	}
	return files, nil
}

// DropFiles implements Runtime.
func (f *Fake) DropFiles(ctx context.Context, id string) error {
	if err := f.enter(ctx, FakeDrop, id); err != nil {
		return err
	}
	defer f.mu.Unlock()
	delete(f.files, id)
	return nil
}

// FilesOf are the files that are kept for a container, with their Data.
func (f *Fake) FilesOf(id string) []File {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.files[id])
}

// Volumes implements Runtime.
func (f *Fake) Volumes(ctx context.Context) ([]Volume, error) {
	if err := f.enter(ctx, FakeList, ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	all := slices.Collect(maps.Values(f.volumes))
	slices.SortFunc(all, func(a, b Volume) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// CheckVolume implements Runtime.
func (f *Fake) CheckVolume(ctx context.Context, name string) error {
	if err := f.enter(ctx, FakeList, ""); err != nil {
		return err
	}
	defer f.mu.Unlock()
	return f.volumeFree(name)
}

// volumeFree is an error for a volume that a container has. The caller holds the lock.
func (f *Fake) volumeFree(name string) error {
	for id, c := range f.containers {
		if slices.ContainsFunc(c.container.Spec.Mounts, func(m v1.Mount) bool { return m.Type == v1.MountVolume && m.Source == name }) {
			return fmt.Errorf("remove %s: volume is in use - [%s]", name, id)
		}
	}
	return nil
}

// RemoveVolume implements Runtime.
func (f *Fake) RemoveVolume(ctx context.Context, name string) error {
	if err := f.enter(ctx, FakeDrop, name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if err := f.volumeFree(name); err != nil {
		return err
	}
	delete(f.volumes, name)
	return nil
}

// makeVolumes makes the volumes that a container names. The caller holds the lock.
func (f *Fake) makeVolumes(c Container) {
	for _, m := range c.Spec.Mounts {
		if _, there := f.volumes[m.Source]; there || m.Type != v1.MountVolume || m.Source == "" {
			continue
		}
		v := Volume{Name: m.Source, Created: f.o.Now(), Mountpoint: "/volumes/" + m.Source}
		if o := m.Volume; o != nil {
			if v.Labels = o.Labels; o.Driver != nil {
				v.Options = o.Driver.Options
			}
		}
		f.volumes[v.Name] = v
	}
}
