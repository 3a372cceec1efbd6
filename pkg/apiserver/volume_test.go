package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// TestVolumesArePinned: a service that names a volume gets what the volume is like; one that says it by itself keeps that.
func TestVolumesArePinned(t *testing.T) {
	f := serve(t)
	nfs := map[string]string{"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}
	if _, _, err := client.Create(f.ctx, f.client, v1.Volumes, &v1.Volume{Meta: v1.Meta{Name: "shared", Labels: map[string]string{"a": "b"}}, Spec: &v1.VolumeSpec{Options: nfs}}); err != nil {
		t.Fatal(err)
	}
	own := &v1.VolumeOptions{Driver: &v1.Driver{Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}}}
	s := web("web")
	s.Spec.Task.Container.Mounts = []v1.Mount{{Source: "shared", Target: "/a", Volume: &v1.VolumeOptions{NoCopy: true}}, {Source: "shared", Target: "/b", Volume: own},
		{Source: "another", Target: "/c"}}
	made := f.create(s)
	want := []v1.Mount{
		{Type: v1.MountVolume, Source: "shared", Target: "/a",
			Volume: &v1.VolumeOptions{NoCopy: true, Labels: map[string]string{"a": "b"}, Driver: &v1.Driver{Name: "local", Options: nfs}}},
		{Type: v1.MountVolume, Source: "shared", Target: "/b", Volume: own},
		{Type: v1.MountVolume, Source: "another", Target: "/c"},
	}
	if diff := cmp.Diff(want, made.Spec.Task.Container.Mounts); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	if got := f.do("DELETE", "/v1/volumes/shared", ""); got.code != http.StatusConflict || !strings.Contains(got.body, "remove shared: volume is in use by service web") {
		t.Errorf("removing a volume in use: %d %s", got.code, got.body)
	}
	if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Fatal(err)
	}
	if got := f.do("DELETE", "/v1/volumes/shared", ""); got.code != http.StatusNoContent {
		t.Errorf("removing a volume: %d %s", got.code, got.body)
	}
}

// TestVolumesOfServicesStay: no client has a node remove a volume that a service mounts, or may when its tasks are back, described or not.
func TestVolumesOfServicesStay(t *testing.T) {
	f := serve(t)
	f.commit(nodeOp("node1", 1))
	none := uint64(0)
	s := web("web")
	s.Spec.Replicas = &none
	s.Spec.Task.Container.Mounts = []v1.Mount{{Source: "plain", Target: "/a"}, {Source: "{{.Service.Name}}-{{.Task.Slot}}", Target: "/b"}}
	f.create(s)
	if _, _, err := client.Create(f.ctx, f.client, v1.Volumes, &v1.Volume{Meta: v1.Meta{Name: "web-1"}}); err != nil {
		t.Fatal(err)
	}
	if got := f.do("DELETE", "/v1/volumes/web-1", ""); got.code != http.StatusConflict {
		t.Errorf("removing what is said of a volume in use: %d %s", got.code, got.body)
	}
	removal := func(volume string, code int) {
		t.Helper()
		if got := f.do("POST", "/v1/nodes/node1/tunnel?volume="+volume, ""); got.code != code ||
			code == http.StatusConflict && !strings.Contains(got.body, "remove "+volume+": volume is in use by service web") {
			t.Errorf("a tunnel for the removal of %s: %d %s, want %d", volume, got.code, got.body, code)
		}
	}
	removal("plain", http.StatusConflict)
	removal("web-1", http.StatusConflict)
	removal("other-1", http.StatusServiceUnavailable) // the node is not connected
	if err := client.Delete(f.ctx, f.client, v1.Services, "web"); err != nil {
		t.Fatal(err)
	}
	removal("plain", http.StatusServiceUnavailable)
	// Tasks that an update left as they were mount what their revision says.
	rest := runs("r1", "one.example/app:1")
	rest.Value.(*v1.ServiceRevisionSpec).Task.Container.Mounts = []v1.Mount{{Type: v1.MountVolume, Source: "plain", Target: "/a"}}
	f.commit(rest, taskOp("a", "s", "node1", "r1", 1))
	if got := f.do("POST", "/v1/nodes/node1/tunnel?volume=plain", ""); got.code != http.StatusConflict {
		t.Errorf("a tunnel for the removal of a volume of a task: %d %s", got.code, got.body)
	}
}
