package etcd_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/swarmd/swarmd/pkg/store/etcd"
)

// TestRewrap: the data keys go from the node's key to an operator's, to another, and back; each time the one before opens nothing any
// more, and neither a secret nor a key is ever in the clear on the disk.
func TestRewrap(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	quiet := slog.New(slog.DiscardHandler)
	open := func(key []byte) (*etcd.Store, error) {
		return etcd.Start(t.Context(), etcd.Config{Dir: dir, WrapKey: key, Log: quiet})
	}
	first, second := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	keyring, nodeKey := filepath.Join(dir, "keyring.json"), filepath.Join(dir, "keyring.json.key")
	key, err := os.ReadFile(nodeKey)
	if err != nil {
		t.Fatal(err)
	}
	now := []byte(nil)
	for _, next := range [][]byte{nil, first, first, second, nil, second, nil} {
		s, err := open(now)
		if err != nil {
			t.Fatal(err)
		}
		greps(t, dir, hidden, string(first), string(second))
		for range 2 { // twice is as well as once
			if err := s.Rewrap(next); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Rewrap(first[:31]); err == nil {
			t.Error("a short key wraps")
		}
		greps(t, dir, hidden, string(first), string(second))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Rewrap(first); err == nil {
			t.Error("a closed store rewraps")
		}
		for _, wrong := range [][]byte{nil, first, second} {
			want := etcd.ErrWrongKey
			if wrong == nil {
				want = etcd.ErrLocked
			}
			if next == nil || bytes.Equal(wrong, next) {
				continue
			}
			if s, err := open(wrong); !errors.Is(err, want) {
				t.Errorf("wrapped by %x, opened with %x: %v", next, wrong, err)
				if err == nil {
					s.Close()
				}
			}
		}
		if _, err := os.Stat(nodeKey); (err == nil) != (next == nil) {
			t.Errorf("wrapped by %x, and the node's key: %v", next, err)
		}
		greps(t, dir, string(key)[:16*btoi(next != nil)])
		now = next
	}
	if _, err := os.ReadFile(keyring); err != nil {
		t.Error(err)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestRewrapCutShort: wherever a crash cut a rewrapping short, one key opens the keyring, and what is too much goes.
func TestRewrapCutShort(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	key := bytes.Repeat([]byte{1}, 32)
	keyring, nodeKey := filepath.Join(dir, "keyring.json"), filepath.Join(dir, "keyring.json.key")
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	write := func(path string, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	opens := func(what string, key []byte) *etcd.Store {
		s, err := etcd.Start(t.Context(), etcd.Config{Dir: dir, WrapKey: key, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return s
	}
	byNode, node := read(keyring), read(nodeKey)
	s := opens("as it was", nil)
	if err := s.Rewrap(key); err != nil {
		t.Fatal(err)
	}
	s.Close()
	byOperator := read(keyring)

	write(nodeKey, node) // the keyring was written, and the node's key is still there
	opens("cut short on the way to the operator", key).Close()
	if _, err := os.Stat(nodeKey); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the node's key stays: %v", err)
	}
	write(nodeKey, bytes.Repeat([]byte{9}, 32)) // the node's key was written, and the keyring was not
	opens("cut short on the way back", key).Close()

	write(keyring, byNode)
	write(nodeKey, node)
	opens("not begun, and the operator's key is given already", key).Close()
	if !bytes.Equal(read(nodeKey), node) {
		t.Error("the node's key was touched")
	}
	// What earlier versions wrote does not say by whom it is wrapped.
	write(keyring, bytes.Replace(byNode, []byte(`"wrappedBy": "node",`), nil, 1))
	s = opens("of an earlier version", nil)
	s.Close()
	write(keyring, bytes.Replace(byOperator, []byte(`"wrappedBy": "operator",`), nil, 1))
	if err := os.Remove(nodeKey); err != nil {
		t.Fatal(err)
	}
	s = opens("of an earlier version, with an operator's key", key)
	if err := s.Rewrap(nil); err != nil {
		t.Fatal(err)
	}
	s.Close()
	start(t, dir)
}

// TestJoinedKeys: a member that joins has the keys of the others, wrapped its own way, and neither they nor its own TLS key are on
// its disk in the clear.
func TestJoinedKeys(t *testing.T) {
	l := newLab(t)
	a, b := l.host("a"), l.host("b")
	a.begin()
	a.put("password", hidden)
	m, err := a.store.AddMember(l.ctx, "b", b.url)
	if err != nil {
		t.Fatal(err)
	}
	data := string(m.DataKeys[m.ActiveKey])
	for _, bad := range []func(){func() { m.ActiveKey = "0" }, func() { m.DataKeys = map[string][]byte{"x": []byte(data)} }} {
		good := m
		bad()
		if err := b.try(func(c *etcd.Config) { c.Join = &m }); err == nil {
			t.Error("starts with keys that are none")
		}
		m = good
	}
	key := bytes.Repeat([]byte{3}, 32)
	b.begin(func(c *etcd.Config) { c.Join, c.WrapKey = &m, key })
	if b.has("password") != hidden {
		t.Error("not there")
	}
	b.promote(a)
	_, own, _ := b.identity.PEM()
	greps(t, b.dir, hidden, data, string(key), string(own[30:100]))
	greps(t, a.dir, hidden, data)
	if _, err := os.Stat(filepath.Join(b.dir, "keyring.json.key")); err == nil {
		t.Error("a wrapping key lies beside a keyring that an operator's key opens")
	}
	b.kill()
	if err := b.try(); !errors.Is(err, etcd.ErrLocked) {
		t.Errorf("without the key: %v", err)
	}
	b.begin(func(c *etcd.Config) { c.WrapKey = key })
}

// greps looks for plaintext, as it is, in base64 and in hexadecimal, in all files of a directory.
func greps(t *testing.T, dir string, plain ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, p := range plain {
			if p == "" {
				continue
			}
			encoded := base64.StdEncoding.EncodeToString([]byte(p))
			for _, form := range []string{p, encoded[:len(encoded)-4], hex.EncodeToString([]byte(p))} {
				if bytes.Contains(data, []byte(form)) {
					t.Errorf("%s holds %q", path, form)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestGrepFinds shows that the tests which look for plaintext can fail.
func TestGrepFinds(t *testing.T) {
	for _, form := range []string{hidden, base64.StdEncoding.EncodeToString([]byte(hidden)), hex.EncodeToString([]byte(hidden))} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"+form), 0o600); err != nil {
			t.Fatal(err)
		}
		inner := new(testing.T)
		greps(inner, dir, hidden)
		if !inner.Failed() {
			t.Errorf("%q is not found", form)
		}
	}
}
