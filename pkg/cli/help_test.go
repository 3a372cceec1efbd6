package cli_test

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/swarmd/swarmd/pkg/cli"
)

var (
	article  = regexp.MustCompile(`(?i)\b(an?) "?([a-z]+)`)
	vowel    = regexp.MustCompile(`^([aeio]|u[^ns]|un[^i]|(SSH|LRU|XML)$)`)
	asSpoken = map[string]bool{"user": false, "use": false, "usual": false, "ulimit": false, "hour": true}
)

// TestArticles reads the help of every command: much of it is put together from parts.
func TestArticles(t *testing.T) {
	for text, want := range map[string]string{
		"an rollback": "an rollback", "a environment": "a environment", "A IP": "A IP",
		"a user, an update, a unit, an OCI, a ulimit": "",
	} {
		if got := strings.Join(wrongArticles(text), ""); got != want {
			t.Fatalf("%q: found %q, want %q", text, got, want)
		}
	}
	n := 0
	var read func(cmd *cobra.Command)
	read = func(cmd *cobra.Command) {
		n++
		for _, wrong := range wrongArticles(cmd.Short + "\n" + cmd.Long + "\n" + cmd.UsageString()) {
			t.Errorf("%s --help: %q", cmd.CommandPath(), wrong)
		}
		for _, c := range cmd.Commands() {
			read(c)
		}
	}
	read(cli.New(cli.Options{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}))
	if n < 40 {
		t.Errorf("%d commands, want 40 or more", n)
	}
}

// wrongArticles are the places where a stands before a vowel, or an before none.
func wrongArticles(text string) []string {
	var wrong []string
	for _, m := range article.FindAllStringSubmatch(text, -1) {
		an, ok := asSpoken[strings.ToLower(m[2])]
		if !ok {
			an = vowel.MatchString(strings.ToLower(m[2])) || vowel.MatchString(m[2])
		}
		if an != strings.EqualFold(m[1], "an") {
			wrong = append(wrong, m[0])
		}
	}
	return wrong
}
