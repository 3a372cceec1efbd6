//go:build unix

package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// plant makes files: a name with a slash at its end is a folder, "name -> target" a link, and others hold their name.
func plant(t *testing.T, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		link, to, isLink := strings.Cut(name, " -> ")
		at := filepath.Join(dir, link)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		switch {
		case err != nil:
		case isLink:
			err = os.Symlink(to, at)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o755)
		default:
			err = os.WriteFile(at, []byte(name), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// grown is what is in a folder, as plant takes it.
func grown(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, at)
		switch {
		case err != nil || name == ".":
			return err
		case e.IsDir():
			name += "/"
		case e.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(at)
			name += " -> " + to
		default:
			text, err := os.ReadFile(at)
			if err != nil {
				return err
			}
			if string(text) != name {
				name += " = " + string(text)
			}
		}
		all = append(all, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func open(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// pack is a tree as a stream.
func pack(t *testing.T, dir, name string) (stream []byte, notes string) {
	t.Helper()
	var out, said bytes.Buffer
	if err := Pack(t.Context(), &out, name, Source{Root: open(t, dir)}, &Notes{To: &said}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), said.String()
}

// TestPlaces copies folders and files to targets that are there and that are not, as docker cp does.
func TestPlaces(t *testing.T) {
	for _, test := range []struct {
		what   string
		source string // what of site/ and file is packed
		target Target // in a folder that has old/ and old.txt
		o      Options
		want   string // what is new, or the error
	}{
		{"folder into a folder", "site", Target{Name: ""}, Options{}, "site/ site/a.txt site/deep/ site/deep/b site/l -> a.txt"},
		{"what is in it", "site", Target{}, Options{Contents: true}, "a.txt deep/ deep/b l -> a.txt"},
		{"folder to a new name", "site", Target{Name: "new"}, Options{}, "new/ new/a.txt new/deep/ new/deep/b new/l -> a.txt"},
		{"folder to a new name with a slash", "site", Target{Name: "new", Slash: true}, Options{}, "new/ new/a.txt new/deep/ new/deep/b new/l -> a.txt"},
		{"folder to a file", "site", Target{Name: "old.txt", Exists: true}, Options{}, "cannot copy a folder to a file"},
		{"file into a folder", "file", Target{}, Options{}, "file"},
		{"file to a new name", "file", Target{Name: "new"}, Options{}, "new"},
		{"file to a new name with a slash", "file", Target{Name: "new", Slash: true}, Options{}, "the destination folder must exist"},
		{"file over a file", "file", Target{Name: "old.txt", Exists: true}, Options{}, "old.txt = file"},
		{"file over a folder", "file", Target{Name: "old"}, Options{}, `cannot overwrite the folder "old" with a file`},
		{"nothing", "", Target{}, Options{}, "there is nothing to unpack"},
	} {
		from := plant(t, "site/a.txt", "site/deep/b", "site/l -> a.txt", "file")
		to := plant(t, "old/", "old.txt")
		var stream bytes.Buffer
		notes := &Notes{To: io.Discard}
		var err error
		switch test.source {
		case "site":
			err = Pack(t.Context(), &stream, "site", Source{Root: open(t, filepath.Join(from, "site"))}, notes)
		case "file":
			f, operr := os.Open(filepath.Join(from, "file"))
			if operr != nil {
				t.Fatal(operr)
			}
			defer f.Close()
			err = Pack(t.Context(), &stream, "file", Source{File: f}, notes)
		}
		if err != nil {
			t.Fatal(err)
		}
		test.target.Root = open(t, to)
		if err := Unpack(t.Context(), &stream, test.target, test.o, notes); err != nil {
			if err.Error() != test.want {
				t.Errorf("%s: %v, want %s", test.what, err, test.want)
			}
			continue
		}
		var got []string
		for _, name := range grown(t, to) {
			base, _, renamed := strings.Cut(name, " = ")
			if base != "old/" && (base != "old.txt" || renamed) {
				if base != "old.txt" {
					name = base
				}
				got = append(got, name)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %q, want %q", test.what, got, test.want)
		}
	}
}

// stream is a tar stream of entries.
func stream(t *testing.T, all ...tar.Header) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range all {
		text := ""
		if h.Typeflag == tar.TypeReg {
			text = "evil"
		}
		h.Size, h.ModTime = int64(len(text)), time.Unix(1, 0)
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

// TestHostileStreams: nothing is written outside of the target, and not by links that were there or that the stream makes.
func TestHostileStreams(t *testing.T) {
	folder := tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}
	for what, test := range map[string]struct {
		entries []tar.Header
		plain   bool
		says    string
	}{
		"up":                     {entries: []tar.Header{folder, {Name: "d/../../x", Typeflag: tar.TypeReg}}, says: "not in"},
		"another folder":         {entries: []tar.Header{folder, {Name: "e/x", Typeflag: tar.TypeReg}}, says: "not in"},
		"up, plain":              {entries: []tar.Header{{Name: "../x", Typeflag: tar.TypeReg}}, plain: true, says: "leads out"},
		"by its own link":        {entries: []tar.Header{folder, {Name: "d/l", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "d/l/x", Typeflag: tar.TypeReg}}, says: "no folder"},
		"by a link that is here": {entries: []tar.Header{{Name: "out/x", Typeflag: tar.TypeReg}}, plain: true, says: "no folder"},
		"a second file":          {entries: []tar.Header{{Name: "f", Typeflag: tar.TypeReg}, {Name: "g", Typeflag: tar.TypeReg}}, says: "not in"},
		"a name of elsewhere":    {entries: []tar.Header{folder, {Name: "d/h", Typeflag: tar.TypeLink, Linkname: "../../secret"}}, says: "secret"},
		"its root as a file":     {entries: []tar.Header{{Name: "..", Typeflag: tar.TypeReg}}, says: ""},
		"too deep":               {entries: []tar.Header{{Name: strings.Repeat("d/", MaxDepth+1) + "f", Typeflag: tar.TypeReg}}, plain: true, says: "inside each other"},
		"no tar":                 {says: "read the tar stream"},
	} {
		outer := plant(t, "secret", "in/", "in/out -> ..")
		var from io.Reader = strings.NewReader(strings.Repeat("no tar ", 1000))
		if test.entries != nil {
			from = stream(t, test.entries...)
		}
		err := Unpack(t.Context(), from, Target{Root: open(t, filepath.Join(outer, "in"))}, Options{Plain: test.plain}, &Notes{To: io.Discard})
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", what, err, test.says)
		}
		for _, name := range grown(t, outer) {
			if !strings.HasPrefix(name, "in/") && name != "secret" {
				t.Errorf("%s: wrote %s", what, name)
			}
		}
	}
}

// TestModes: owners' bits only with owners, times and modes of folders at the end, and what is no file is told.
func TestModes(t *testing.T) {
	from := plant(t, "closed/x", "tool", "empty/")
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	err := errors.Join(os.Chmod(filepath.Join(from, "tool"), 0o755|fs.ModeSetuid), os.Chtimes(filepath.Join(from, "closed"), old, old),
		os.Chmod(filepath.Join(from, "closed"), 0o555), syscall.Mkfifo(filepath.Join(from, "pipe"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	packed, notes := pack(t, from, ".")
	if notes != "not copied: \"pipe\": a pipe\n" {
		t.Errorf("notes: %q", notes)
	}
	for _, owners := range []bool{false, true} {
		to := t.TempDir()
		if owners && os.Getuid() != 0 {
			continue
		}
		if err := Unpack(t.Context(), bytes.NewReader(packed), Target{Root: open(t, to)}, Options{Owners: owners}, &Notes{To: io.Discard}); err != nil {
			t.Fatal(err)
		}
		tool, err := os.Stat(filepath.Join(to, "tool"))
		if err != nil || tool.Mode().Perm() != 0o755 || tool.Mode()&fs.ModeSetuid != 0 != owners {
			t.Errorf("owners %t: tool is %v, %v", owners, tool.Mode(), err)
		}
		closed, err := os.Stat(filepath.Join(to, "closed"))
		if err != nil || closed.Mode().Perm() != 0o555 || !closed.ModTime().Equal(old) {
			t.Errorf("closed is %v of %v, %v", closed.Mode(), closed.ModTime(), err)
		}
	}
	deep := strings.Repeat("d/", MaxDepth+1)
	if err := Pack(t.Context(), io.Discard, "x", Source{Root: open(t, plant(t, deep+"f"))}, &Notes{To: io.Discard}); err == nil || !strings.Contains(err.Error(), "inside each other") {
		t.Errorf("a deep tree: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := Pack(ctx, io.Discard, "x", Source{Root: open(t, from)}, &Notes{To: io.Discard}); err == nil || err.Error() != "enough" {
		t.Errorf("cut off: %v", err)
	}
	var said bytes.Buffer
	many := &Notes{To: &said}
	for i := range 1000 {
		many.leave(fmt.Sprint(i), "a pipe")
	}
	if n := strings.Count(said.String(), "\n"); n != maxNotes+1 {
		t.Errorf("%d notes", n)
	}
}
