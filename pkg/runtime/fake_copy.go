package runtime

import (
	"context"
	"fmt"
	"io"
	"path"

	"github.com/swarmd/swarmd/pkg/archive"
)

// fakeCopied bounds what a Fake keeps of what is copied into a container, in bytes.
const fakeCopied = 1 << 20

// CopyTo implements Runtime: the stream is kept as it is, for CopyFrom of the same path.
func (f *Fake) CopyTo(ctx context.Context, id, name string, _ archive.Options, from io.Reader, _ io.Writer) error {
	data, err := io.ReadAll(io.LimitReader(from, fakeCopied))
	if err != nil {
		return err
	}
	if err := f.enter(ctx, FakeCopy, id); err != nil {
		return err
	}
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if !ok || c.state.Status != Running {
		return fmt.Errorf("%w: running container %q", ErrNotFound, id)
	}
	if c.copied == nil {
		c.copied = make(map[string][]byte)
	}
	c.copied[path.Clean(name)] = data
	return nil
}

// CopyFrom implements Runtime.
func (f *Fake) CopyFrom(ctx context.Context, id, name string, _ bool, to, _ io.Writer) error {
	if err := f.enter(ctx, FakeCopy, id); err != nil {
		return err
	}
	c, ok := f.containers[id]
	running := ok && c.state.Status == Running
	var data []byte
	if running {
		data, ok = c.copied[path.Clean(name)]
	}
	f.mu.Unlock()
	switch {
	case !running:
		return fmt.Errorf("%w: running container %q", ErrNotFound, id)
	case !ok:
		return fmt.Errorf("%w: %s: no such file or directory", ErrInvalid, name)
	}
	_, err := to.Write(data)
	return err
}
