package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/archive"
)

type copyFlags struct{ archive, follow, quiet bool }

func (a *app) copyCommand() *cobra.Command {
	var f copyFlags
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] TASK|SERVICE:SRC_PATH DEST_PATH|- | cp [OPTIONS] SRC_PATH|- TASK|SERVICE:DEST_PATH",
		Short: "Copy files and folders between a running task and the local filesystem",
		Long: `Copy files and folders between the container of a running task, on whichever node it runs, and this machine. Of a service it is the first
task that runs. Nothing is needed in the image.

A file is copied to the name that is given, or into a folder that is there. A folder is copied into a folder that is there, or, where there is
none, to that name; of one whose path ends with /. it is what is in it. The folder that is to hold it must be there. Links are copied as links.
With - a tar stream is read from standard input and unpacked into a folder of the task, or written to standard output.

Without --archive files belong to whoever makes them, and no program is run as its owner; with it they keep the numbers of their owners.`,
		Example: `  swarmctl cp web.1:/etc/nginx/nginx.conf .
  swarmctl cp site/. web.2:/srv
  swarmctl cp db.1:/var/lib/dumps - | tar x`,
		Args:                  exactArgs(2),
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.copy(cmd.Context(), &f, args[0], args[1]) },
	}
	s := cmd.Flags()
	s.BoolVarP(&f.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	s.BoolVarP(&f.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress what is said of the copy at its end")
	return cmd
}

// splitCopy parts TASK:PATH. What begins with a dot or is absolute is a path of this machine, also with a colon in it.
func splitCopy(arg string) (task, path string) {
	if filepath.IsAbs(arg) || filepath.VolumeName(arg) != "" {
		return "", arg
	}
	task, path, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(task, ".") {
		return "", arg
	}
	return task, path
}

func (a *app) copy(ctx context.Context, f *copyFlags, from, to string) error {
	source, sourcePath := splitCopy(from)
	target, targetPath := splitCopy(to)
	switch {
	case source != "" && target != "":
		return errors.New("copying between tasks is not supported")
	case source == "" && target == "":
		return errors.New("must specify at least one task")
	case sourcePath == "" || targetPath == "":
		return fmt.Errorf("the path of the task is missing: want %s:PATH", source+target)
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	task, err := runningTask(ctx, c, source+target)
	if err != nil {
		return err
	}
	start := v1.CopyStart{Path: sourcePath, Follow: f.follow}
	if target != "" {
		start = v1.CopyStart{Path: targetPath, To: true, Owners: f.archive, Plain: sourcePath == "-", Contents: wantsContents(sourcePath)}
	}
	var local *archive.Source
	if target != "" && !start.Plain {
		if local, err = openSource(sourcePath, f.follow); err != nil {
			return err
		}
		defer func() { _ = local.Close() }()
	}
	tunnel, err := c.Tunnel(ctx, task.Meta.ID, v1.TunnelStart{Copy: &start})
	if err != nil {
		return daemonError(err)
	}
	defer tunnel.Close()
	through := &copyStream{app: a, tunnel: tunnel, answer: &v1.FrameReader{From: tunnel, Errors: a.Err}}
	if target != "" {
		err = through.up(ctx, sourcePath, local)
	} else {
		err = through.down(ctx, f, sourcePath, targetPath)
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return &exitError{code: 130}
	case err != nil:
		return err
	case !f.quiet && targetPath != "-":
		fmt.Fprintf(a.Err, "Successfully copied %s to %s\n", units.HumanSizeWithPrecision(float64(through.n), 3), to)
	}
	return nil
}

// wantsContents tells whether a path means what is in the folder.
func wantsContents(path string) bool {
	return path == "." || strings.HasSuffix(path, "/.") || runtime.GOOS == "windows" && strings.HasSuffix(path, `\.`)
}

// copyStream is the tar stream in a tunnel.
type copyStream struct {
	*app
	tunnel v1.Tunnel
	answer *v1.FrameReader
	n      int64 // bytes that went through
	cut    bool  // what the node was sent does not reach it
}

// Read implements io.Reader: what the node sends, until its end, which is io.EOF only if nothing went wrong.
func (s *copyStream) Read(p []byte) (int, error) {
	n, err := s.answer.Read(p)
	s.n += int64(n)
	return n, s.lost(err)
}

// lost says of an error that is not the node's what it means.
func (s *copyStream) lost(err error) error {
	if err == nil || s.answer.Ended {
		return err
	}
	return fmt.Errorf("the connection to the task was lost: %w", err)
}

// Write implements io.Writer: what the node is sent.
func (s *copyStream) Write(p []byte) (int, error) {
	n, err := v1.FrameWriter{To: s.tunnel, Kind: v1.FrameInput}.Write(p)
	s.n += int64(n)
	s.cut = s.cut || err != nil
	return n, err
}

// up copies into the task.
func (s *copyStream) up(ctx context.Context, path string, source *archive.Source) error {
	sent := make(chan error, 1)
	go func() {
		var err error
		if source == nil {
			_, err = io.Copy(s, s.In)
		} else {
			err = archive.Pack(ctx, s, packedName(path), *source, &archive.Notes{To: s.Err})
		}
		switch {
		case err == nil:
			_ = v1.WriteFrame(s.tunnel, v1.FrameInput, nil) // who is gone needs no end
		case !s.cut:
			_ = s.tunnel.Close() // half a stream is none
		}
		sent <- err // where the node takes no more, its answer says why
	}()
	_, err := io.Copy(io.Discard, s.answer)
	if s.answer.Ended && err != nil {
		return err // of the node, which reads no more
	}
	_ = s.tunnel.Close()
	if failed := <-sent; failed != nil && !s.cut {
		return failed // of this machine
	}
	if s.answer.Ended {
		return nil
	}
	return s.lost(err)
}

// packedName is what a path of this machine is called.
func packedName(path string) string {
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	if base := filepath.Base(path); base != string(filepath.Separator) {
		return filepath.ToSlash(base)
	}
	return "."
}

// openSource opens what is to be copied.
func openSource(path string, follow bool) (*archive.Source, error) {
	stat := os.Lstat
	if follow || strings.HasSuffix(path, "/") || wantsContents(path) {
		stat = os.Stat
	}
	info, err := stat(path)
	if err != nil {
		return nil, err
	}
	s := &archive.Source{Info: info}
	switch mode := info.Mode(); {
	case mode.IsDir():
		s.Root, err = os.OpenRoot(path)
	case mode.IsRegular():
		s.File, err = os.Open(path)
	case mode&fs.ModeSymlink != 0:
		s.Link, err = os.Readlink(path)
	default:
		err = fmt.Errorf("%s is %s", path, archive.Kind(mode))
	}
	return s, err
}

// down copies out of the task.
func (s *copyStream) down(ctx context.Context, f *copyFlags, from, to string) error {
	if to == "-" {
		_, err := io.Copy(s.Out, s)
		return err
	}
	target, err := openTarget(to)
	if err != nil {
		return err
	}
	defer func() { _ = target.Root.Close() }()
	return archive.Unpack(ctx, s, target, archive.Options{Contents: wantsContents(from), Owners: f.archive}, &archive.Notes{To: s.Err})
}

// openTarget opens the folder that is written to.
func openTarget(path string) (t archive.Target, err error) {
	t.Slash = strings.HasSuffix(path, "/") || wantsContents(path)
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		t.Root, err = os.OpenRoot(path)
		return t, err
	}
	if err == nil {
		t.Exists = true
		if path, err = filepath.EvalSymlinks(path); err != nil { // what a link leads to is overwritten, not the link
			return t, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	path = filepath.Clean(path)
	t.Name = filepath.Base(path)
	t.Root, err = os.OpenRoot(filepath.Dir(path))
	return t, err
}
