package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/archive"
	"github.com/swarmd/swarmd/pkg/runtime"
)

// files reads a tar stream: each name with what the file holds, or where the link leads.
func files(t *testing.T, stream io.Reader) map[string]string {
	t.Helper()
	all := map[string]string{}
	for r := tar.NewReader(stream); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[h.Name] = string(text) + h.Linkname
	}
}

// streamOf is a stream of one file.
func streamOf(t *testing.T, name, text string) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(text))})
	if _, werr := io.WriteString(w, text); errors.Join(err, werr, w.Close()) != nil {
		t.Fatal(err)
	}
	return &out
}

// TestCopy copies out of a container that has no shell, and into it, with its mounts, and with links that would lead out of it.
func TestCopy(t *testing.T) {
	r := theRuntime(t)
	host := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(filepath.Join(host, "seen"), []byte("through the mount"), 0o600), os.WriteFile(secret, []byte("of the host"), 0o600)); err != nil {
		t.Fatal(err)
	}
	c := container("forever")
	c.Spec.Mounts = []v1.Mount{{Type: v1.MountBind, Source: host, Target: "/mnt/a"}, {Type: v1.MountBind, Source: host, Target: "/mnt/closed", ReadOnly: true}}
	create(t, r, c)
	pid, err := r.Start(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	inside := fmt.Sprintf("/proc/%d/root/data/", pid)
	for link, to := range map[string]string{"abs": secret, "up": "../../../../../../../.." + secret, "outdir": filepath.Dir(secret), "root": "/", "magic": "/proc/self/root" + secret,
		"fine": "/mnt/a/seen", "chain": "fine", "loop": "loop"} {
		if err := os.Symlink(to, inside+link); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		path   string
		follow bool
		want   string // name=content, or what the error says
	}{
		{"/mnt/a/seen", false, "seen=through the mount"},
		{"mnt/a/seen", false, "seen=through the mount"},
		{"/data/../mnt/a/seen", false, "seen=through the mount"},
		{"/data/root/mnt/a/seen", false, "seen=through the mount"},
		{"/data/fine", false, "fine=/mnt/a/seen"},
		{"/data/chain", true, "chain=through the mount"},
		{"/mnt/a", false, "a/= a/seen=through the mount"},
		{"/mnt/a/.", false, "a/= a/seen=through the mount"},
		{"/data/abs", false, "abs=" + secret},
		{"/data/abs", true, "no such file or directory"},
		{"/data/up", true, "no such file or directory"},
		{"/data/outdir/secret", false, "no such file or directory"},
		{"/data/magic", true, "no such file or directory|too many levels of symbolic links"},
		{"/proc/1/root/mnt", false, "too many levels of symbolic links"},
		{"/data/loop", true, "too many levels of symbolic links"},
		{"/dev/null", false, "it is a device"},
		{"/nothing", false, "/nothing: no such file or directory"},
	} {
		var out bytes.Buffer
		err := r.CopyFrom(t.Context(), c.ID, test.path, test.follow, &out, io.Discard)
		if err != nil {
			ok := errors.Is(err, runtime.ErrInvalid)
			found := false
			for want := range strings.SplitSeq(test.want, "|") {
				found = found || strings.Contains(err.Error(), want)
			}
			if !ok || !found {
				t.Errorf("%s, follow %t: %v, want %s", test.path, test.follow, err, test.want)
			}
			continue
		}
		got := files(t, &out)
		for want := range strings.SplitSeq(test.want, " ") {
			if name, text, _ := strings.Cut(want, "="); !strings.HasPrefix(got[name], text) {
				t.Errorf("%s, follow %t: got %q, want %s", test.path, test.follow, got, test.want)
			}
		}
	}
	for _, test := range []struct{ path, at, says string }{
		{"/data", "data/new", ""},
		{"/data/other", "data/other", ""},
		{"/data/fine", "mnt/a/seen", ""}, // what the link leads to, not the link
		{"/data/abs", "", "no such file or directory"},
		{"/data/outdir/x", "", "no such file or directory"},
		{"/data/no/x", "", "no such file or directory"},
		{"/data/none/", "", "the destination folder must exist"},
		{"/mnt/closed", "", "read-only file system"},
		{"/proc/sys/kernel/hostname", "", "operation not permitted|read-only|permission denied"},
		{"/data/magic", "", "no such file|too many levels"},
	} {
		err := r.CopyTo(t.Context(), c.ID, test.path, archive.Options{}, streamOf(t, "new", "copied in"), io.Discard)
		if test.says != "" {
			found := false
			for want := range strings.SplitSeq(test.says, "|") {
				found = found || err != nil && strings.Contains(err.Error(), want)
			}
			if !found {
				t.Errorf("to %s: %v, want %s", test.path, err, test.says)
			}
			continue
		}
		text, rerr := os.ReadFile(fmt.Sprintf("/proc/%d/root/%s", pid, test.at))
		if err != nil || string(text) != "copied in" {
			t.Errorf("to %s: %v, %q, %v", test.path, err, text, rerr)
		}
	}
	if text, err := os.ReadFile(secret); string(text) != "of the host" {
		t.Errorf("the host's file is %q, %v", text, err)
	}
	stopped := container("forever")
	create(t, r, stopped)
	for _, id := range []string{v1.NewID(), stopped.ID} {
		if err := r.CopyFrom(t.Context(), id, "/", false, io.Discard, io.Discard); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("a container that does not run: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.CopyFrom(ctx, c.ID, "/", false, io.Discard, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
}
