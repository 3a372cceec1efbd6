package v1

import (
	"slices"
	"testing"
)

func TestVolumesMounted(t *testing.T) {
	for source, c := range map[string]struct{ yes, no []string }{
		"one.two":                                {[]string{"one.two"}, []string{"onextwo", "one.two3", "my-one.two", "", "/etc"}},
		"db-{{.Task.Slot}}":                      {[]string{"db-1", "db-23", "db-"}, []string{"my-db-1", "db", "other"}},
		"{{.Service.Name}}-{{.Task.Slot}}":       {[]string{"web-1"}, []string{"other-1", "web"}},
		"{{ .Service.ID }}_data":                 {[]string{"w3_data"}, []string{"web_data", "w3"}},
		"{{- .Service.Name -}} {{/* }} */ -}} x": {[]string{"webx"}, []string{"web", "x"}},
		`{{index .Service.Labels "}}"}}-x`:       {[]string{"a-x", "-x"}, []string{"a-y"}},
		"{{if eq .Task.Slot \"1\"}}a{{else}}b{{end}}-{{.Node.Hostname}}-c": {[]string{"a-n-c", "b-m-c"}, []string{"a-n", "a-c"}},
		`{{join "-" .Service.Name "x"}}`:                                   {[]string{"anything"}, nil},
		"a{{.Task.Slot}}b{{.Task.Slot}}a":                                  {[]string{"a1b1a", "aba"}, []string{"aba1", "aa", "ab"}},
		"{{nope}}":                                                         {nil, []string{"x", ""}},
	} {
		all := VolumesMounted(&ContainerSpec{Mounts: []Mount{{Type: MountVolume, Source: source}, {Type: MountVolume}, {Type: MountBind, Source: "/etc"}}}, "w3", "web")
		may := func(name string) bool {
			return slices.ContainsFunc(all, func(p VolumePattern) bool { return p.Match(name) })
		}
		for _, name := range c.yes {
			if !may(name) {
				t.Errorf("%s: %q is none", source, name)
			}
		}
		for _, name := range c.no {
			if may(name) {
				t.Errorf("%s: %q is one", source, name)
			}
		}
	}
}
