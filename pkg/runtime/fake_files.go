package runtime

import (
	"context"
	"slices"
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
