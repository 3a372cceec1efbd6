package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExecFlags: what Docker's exec has beside a command is honoured, or refused by its name with what to do.
func TestExecFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("A=file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const nobody = "Cannot connect to the swarmd daemon"
	for args, want := range map[string]string{
		"-d web ls":                          "--detach: not supported: a command ends when whoever ran it leaves: have the task run it in the background",
		"--detach web ls":                    "--detach: not supported",
		"--detach=false web ls":              nobody,
		"--detach-keys ctrl-a web ls":        "--detach-keys: not supported",
		"--privileged web ls":                "--privileged: not supported: a command has the rights of its container: swarmctl service update --cap-add",
		"--env-file " + file + " web ls":     nobody,
		"--env-file " + file + "-not web ls": "no such file or directory",
		"--env-file /dev/null -e =x web ls":  "invalid environment variable: =x",
		"web ls -d --privileged":             nobody, // the command's own
	} {
		code, _, stderr := run(t, "unix:///nowhere/s", append([]string{"exec"}, strings.Fields(args)...)...)
		if code == 0 || !strings.Contains(stderr, want) {
			t.Errorf("exec %s: status %d, %s; want %q", args, code, stderr, want)
		}
	}
}
