package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/pkg/cli"
)

// TestCopy copies a folder into a task and out of it again, by paths and by streams, and asks for what cannot be.
func TestCopy(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	if code, _, stderr := run(t, s.host(), "service", "create", "-q", "--name", "web", "hello:1"); code != 0 {
		t.Fatal(stderr)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "site", "deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789"), 20_000)
	for name, text := range map[string][]byte{"site/index": []byte("hello"), "site/deep/big": big, "a:b": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("index", filepath.Join(dir, "site", "link")); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"new", "there/"} { // a new name, and into a folder
		if code, _, stderr := run(t, s.host(), "cp", filepath.Join(dir, "site"), "web.1:/srv"); code != 0 || !strings.HasPrefix(stderr, "Successfully copied 20") || !strings.HasSuffix(stderr, " to web.1:/srv\n") {
			t.Fatalf("status %d, %s", code, stderr)
		}
		at := filepath.Join(dir, to)
		if strings.HasSuffix(to, "/") {
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if code, _, stderr := run(t, s.host(), "cp", "-q", "web:/srv", at); code != 0 || stderr != "" {
			t.Fatalf("status %d, %s", code, stderr)
		}
		if strings.HasSuffix(to, "/") {
			at = filepath.Join(at, "site")
		}
		text, err := os.ReadFile(filepath.Join(at, "deep", "big"))
		link, lerr := os.Readlink(filepath.Join(at, "link"))
		if err != nil || !bytes.Equal(text, big) || link != "index" {
			t.Errorf("%s: %d bytes, link %q, %v, %v", to, len(text), link, err, lerr)
		}
	}
	code, tarred, stderr := run(t, s.host(), "cp", "web:/srv", "-")
	if code != 0 || stderr != "" || !strings.Contains(tarred, "site/deep/big") {
		t.Fatalf("status %d, %d bytes, %s", code, len(tarred), stderr)
	}
	var out bytes.Buffer
	if code := cli.Run(t.Context(), cli.Options{In: strings.NewReader(tarred), Out: &out, Err: &out, Getenv: func(string) string { return s.host() }},
		[]string{"cp", "-", "web:/again"}); code != 0 {
		t.Fatal(out.String())
	}
	if _, again, _ := run(t, s.host(), "cp", "web:/again", "-"); again != tarred {
		t.Errorf("%d bytes came back as %d", len(tarred), len(again))
	}
	for _, bad := range []struct {
		from, to, says string
	}{
		{"web:/a", "web:/b", "copying between tasks is not supported"},
		{"./a:b", "/tmp", "must specify at least one task"},
		{"web:", "/tmp", "the path of the task is missing"},
		{"nothing:/a", "/tmp", "no such task or service: nothing"},
		{"web:/nothing", dir, "/nothing: no such file or directory"},
		{"web:/nothing", filepath.Join(dir, "no", "where"), "no such file or directory"},
		{filepath.Join(dir, "nothing"), "web:/srv", "no such file or directory"},
		{"web:/srv", filepath.Join(dir, "site", "index"), "cannot copy a folder to a file"},
	} {
		if code, _, stderr := run(t, s.host(), "cp", bad.from, bad.to); code != 1 || !strings.Contains(stderr, bad.says) {
			t.Errorf("cp %s %s: status %d, %s; want %q", bad.from, bad.to, code, stderr, bad.says)
		}
	}
}
