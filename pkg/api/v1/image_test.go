package v1

import (
	_ "crypto/sha512" // the digests that the other parser is to know
	"errors"
	"strings"
	"testing"

	"github.com/distribution/reference"
)

func TestParseImageReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for in, want := range map[string]ImageReference{
		"nginx":                               {"docker.io", "library/nginx", "", ""},
		"nginx:1.27":                          {"docker.io", "library/nginx", "1.27", ""},
		"team/app@" + digest:                  {"docker.io", "team/app", "", digest},
		"docker.io/nginx":                     {"docker.io", "library/nginx", "", ""},
		"localhost/a":                         {"localhost", "a", "", ""},
		"localhost:5000/a:b":                  {"localhost:5000", "a", "b", ""},
		"reg.example.org:5000/a/b__c-d.e:V_1": {"reg.example.org:5000", "a/b__c-d.e", "V_1", ""},
		"[::1]:5000/a:b@" + digest:            {"[::1]:5000", "a", "b", digest},
	} {
		if got, err := ParseImageReference(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                                  "is missing",
		"Nginx":                             "small letters",
		"nginx:":                            "the tag",
		"nginx:-a":                          "the tag",
		"nginx@":                            "the digest",
		"nginx@sha256:0":                    "64 hexadecimal digits",
		"nginx@md5:00":                      "the digest",
		"a//b":                              "in it is not",
		"a..b":                              "in it is not",
		"a_-b":                              "in it is not",
		"-.org/a":                           "registry's host",
		"a b":                               "in it is not",
		"nginx\x00":                         "in it is not",
		strings.Repeat("0a", 32):            "image's ID",
		strings.Repeat("a", 256):            "longer than 255",
		"nginx:" + strings.Repeat("a", 129): "the tag",
	} {
		if got, err := ParseImageReference(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v; want an error with %q", in, got, err, want)
		}
	}
	if got := (ImageReference{Domain: "docker.io", Path: "library/nginx"}).String(); got != "docker.io/library/nginx:latest" {
		t.Errorf("String: %s", got)
	}
}

// FuzzImageReference holds the parser to the distribution project's own.
func FuzzImageReference(f *testing.F) {
	for _, s := range []string{
		"nginx", "nginx:1.27", "localhost:5000/a/b", "a.b/c@sha256:" + strings.Repeat("0", 64), "[fe80::1]/x", "A/b", "a/B", "index.docker.io/x",
		"docker.io/a", "a__b", "a___b", "a:b/c:d", "x@sha512:" + strings.Repeat("f", 128), strings.Repeat("ab", 32),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseImageReference(text)
		want, wantErr := reference.ParseNormalizedNamed(text)
		if wantErr == nil && reference.Domain(want) == "" {
			wantErr = errors.New("no registry") // what looks like a host and is none is no path either: it could not be pulled
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v; the distribution project's parser: %v", text, err, wantErr)
		}
		if err != nil {
			return
		}
		if got.Domain != reference.Domain(want) || got.Path != reference.Path(want) {
			t.Fatalf("%q: %+v; the distribution project's parser: %s", text, got, want)
		}
		if s := reference.TagNameOnly(want).String(); got.String() != s {
			t.Fatalf("%q is %s; the distribution project's parser: %s", text, got, s)
		}
		if again, err := ParseImageReference(got.String()); err != nil || again.Path != got.Path || again.Digest != got.Digest {
			t.Fatalf("%q is %s, which reads as %+v, %v", text, got, again, err)
		}
	})
}
