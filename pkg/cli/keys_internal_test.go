package cli

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestDetachKeys types keys whole and in single bytes.
func TestDetachKeys(t *testing.T) {
	for _, test := range []struct{ keys, typed, got string }{
		{"ctrl-p,ctrl-q", "ls\x10\x11never", "ls"},
		{"ctrl-p,ctrl-q", "a\x10b\x10\x10\x11never", "a\x10b\x10"},
		{"ctrl-p,ctrl-q", "no keys\x10", "no keys"}, // the beginning of keys at the end is nothing to run
		{"a,a,b", "xaaab", "xa"},
		{"q", "abqd", "ab"},
		{"ctrl-]", "x\x1d", "x"},
	} {
		for name, from := range map[string]io.Reader{"whole": strings.NewReader(test.typed), "bytes": iotest.OneByteReader(strings.NewReader(test.typed))} {
			keys, err := parseKeys(test.keys)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			got, err := io.ReadAll(&keysReader{from: from, keys: keys, found: func() { found = true }})
			if want := strings.Contains(test.typed, string(keys)); string(got) != test.got || found != want || (err == errKeys) != want {
				t.Errorf("%s of %q, %s: got %q, found %t, %v; want %q, %t", test.keys, test.typed, name, got, found, err, test.got, want)
			}
		}
	}
	for _, bad := range []string{"", "ctrl-", "ctrl-1", "alt-a", "a,,b", "ctrl-ab"} {
		if keys, err := parseKeys(bad); err == nil {
			t.Errorf("%q is %q, want an error", bad, keys)
		}
	}
}
