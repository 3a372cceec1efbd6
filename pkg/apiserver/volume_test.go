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
