package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCredentials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	ask := credentialsFrom(path)
	if user, _, err := ask("example.org"); user != "" || err != nil {
		t.Errorf("without a file: %q, %v; want nobody", user, err)
	}
	// dXNlcjpwYTpzcw== is user:pa:ss
	write(t, path, `{"auths":{"https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw=="},"example.org:5000":{"username":"a","password":"b"},"bad.org":{"auth":"secret!"}}}`)
	for host, want := range map[string][2]string{
		"docker.io":            {"user", "pa:ss"},
		"registry-1.docker.io": {"user", "pa:ss"},
		"example.org:5000":     {"a", "b"},
		"example.org":          {"", ""},
	} {
		if user, password, err := ask(host); err != nil || user != want[0] || password != want[1] {
			t.Errorf("%s: %q, %q, %v; want %v", host, user, password, err, want)
		}
	}
	if _, _, err := ask("bad.org"); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "bad.org") {
		t.Errorf("bad auth: %v; want an error that names the host and not the secret", err)
	}
	write(t, path, `{"auths": secret`)
	if _, _, err := ask("docker.io"); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), path) {
		t.Errorf("damaged file: %v; want an error that names the file and not what is in it", err)
	}
	write(t, path, strings.Repeat(" ", maxRegistryConfig+1))
	if _, _, err := ask("docker.io"); err == nil {
		t.Error("a file that is too large is read")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
