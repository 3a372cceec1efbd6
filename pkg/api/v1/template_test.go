package v1

import (
	"errors"
	"strings"
	"testing"
)

func TestExpandData(t *testing.T) {
	data := new(TemplateData)
	data.Service.Name, data.Task.Slot = "web", "3"
	secret := func(name string) (string, error) {
		if name != "pass" {
			return "", errors.New("secret " + name + " not found")
		}
		return "s3cr3t", nil
	}
	large := func(string) (string, error) { return strings.Repeat("x", MaxConfigSize/2), nil }
	env := func(name string) (string, error) { return "$" + name, nil }
	for in, want := range map[string]string{
		`user={{.Service.Name}} pass={{secret "pass"}} home={{env "HOME"}}`: "user=web pass=s3cr3t home=$HOME",
		`{{if eq .Task.Slot "3"}}third{{else}}other{{end}}`:                 "third",
		`{{join "-" .Service.Name .Task.Slot}}`:                             "web-3",
		`{{secret "none"}}`:                                                 "!secret none not found",
		`{{print (config "a") (config "a") (config "a")}}`:                  "!expands to more than",
		`{{config "a"}}{{config "a"}}{{config "a"}}`:                        "!expands to more than",
		"{{`\\`|js|js|js}}":                                                 "!js is not supported",
		`{{printf "%[1]s%[1]s" "x"}}`:                                       "!printf is not supported",
		`{{range .Service.Labels}}{{end}}`:                                  "!range is not supported",
		`{{$x := "a"}}`:                                                     "!variables are not supported",
		`{{define "x"}}{{end}}`:                                             "!define and block are not supported",
		`{{.Nothing}}`:                                                      "!can't evaluate field Nothing",
		`{{`:                                                                "!unclosed action",
		"\x00\xff{{.Task.Slot}}":                                            "\x00\xff3",
	} {
		got, err := ExpandData(in, data, secret, large, env)
		if reason, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), reason) {
				t.Errorf("%s: %v, want %q", in, err, reason)
			}
		} else if got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
}
