package runtime

import (
	"context"
	"fmt"
	"path"
)

// Files are kept in the machine's memory for containers, such as secrets: never on a disk, never where others than root can
// read them, for as long as the machine runs.
type Files interface {
	// KeepFiles has these files, and no others, kept for a container that Create makes later on, which then has them at their targets,
	// read-only. Those that are kept already, of the same version, stay as they are. A container that is there already sees what becomes
	// of files that were Live when it was made, all at once for each file; of the others it keeps what it has.
	KeepFiles(ctx context.Context, id string, files []File) error
	// KeptFiles are those that are kept for a container, without Data.
	KeptFiles(ctx context.Context, id string) ([]File, error)
	// DropFiles forgets all files of a container that is removed, or was never made. Without any it does nothing.
	DropFiles(ctx context.Context, id string) error
}

// File is one of a container's files.
type File struct {
	// Target is the absolute path in the container.
	Target string `json:"target"`
	// Version tells contents apart.
	Version string `json:"version"`
	Data    []byte `json:"-"`
	UID     uint32 `json:"uid,omitempty"`
	GID     uint32 `json:"gid,omitempty"`
	Mode    uint32 `json:"mode"`
	// Live has a running container see another version of the file from the moment that it is kept.
	Live bool `json:"live,omitempty"`
}

// Same tells whether two files are the same, but for their Data, which their Version stands for.
func (f File) Same(g File) bool {
	return f.Target == g.Target && f.Version == g.Version && f.Live == g.Live && f.UID == g.UID && f.GID == g.GID && f.Mode == g.Mode
}

// MaxFiles is how many files a container may have, those of Spec aside.
const MaxFiles = 1000

// CheckFiles refuses files that no container can have together, with ErrInvalid.
func CheckFiles(files []File) error {
	if len(files) > MaxFiles {
		return fmt.Errorf("%d files are too many: want at most %d: %w", len(files), MaxFiles, ErrInvalid)
	}
	seen := make(map[string]bool, len(files))
	for _, f := range files {
		target := path.Clean(f.Target)
		if !path.IsAbs(f.Target) || target == "/" {
			return fmt.Errorf("invalid target %q of a file: want an absolute path other than /: %w", f.Target, ErrInvalid)
		}
		if seen[target] {
			return fmt.Errorf("duplicate mount point %s: %w", f.Target, ErrInvalid)
		}
		seen[target] = true
	}
	return nil
}
