package cli

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func TestMergeVolumes(t *testing.T) {
	objects := []*v1.Volume{object[v1.Volume](t, `{metadata: {name: shared}, spec: {driver: local, options: {type: nfs}}}`),
		object[v1.Volume](t, `{metadata: {name: idle}, spec: {driver: local}}`)}
	nodes := []*v1.Node{object[v1.Node](t, `{status: {description: {hostname: b, volumes: [data-1, shared]}}}`),
		object[v1.Node](t, `{status: {description: {hostname: a, volumes: [other, shared]}}}`), object[v1.Node](t, `{metadata: {id: new}}`)}
	var got []string
	for _, v := range mergeVolumes(objects, nodes, func(name string) bool { return name != "other" }) {
		got = append(got, fmt.Sprintf("%s%v%t%d", v.Name, v.Nodes, v.Described, len(v.Options)))
	}
	if want := []string{"data-1[b]false0", "idle[]true0", "shared[a b]true1"}; !slices.Equal(got, want) {
		t.Errorf("volumes %s, want %s", strings.Join(got, " "), want)
	}
}

func TestMountedBy(t *testing.T) {
	used := mountedBy([]*v1.Service{object[v1.Service](t, `{metadata: {name: db}, spec: {task: {container: {image: x, mounts: [
		{type: volume, source: "db-{{.Task.Slot}}", target: /a}, {type: volume, source: one.two, target: /b}, {type: volume, target: /c}, {type: bind, source: /etc, target: /d}]}}}}`)})
	for name, want := range map[string]bool{"db-1": true, "db-": true, "one.two": true, "onextwo": false, "my-db-1": false, "other": false, "/etc": false, "": false} {
		if used(name) != want {
			t.Errorf("%q is in use: %t", name, !want)
		}
	}
	if mountedBy(nil)("") {
		t.Error("without services a volume is in use")
	}
}
