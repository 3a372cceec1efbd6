package containerd

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// TestRemoveImage: an image goes with what it alone has; one that a container is made of stays until that is removed, and one that went
// can be had again.
func TestRemoveImage(t *testing.T) {
	r, h := start(t, nil), newHub(t)
	pull := func(name string) runtime.Image {
		i, err := r.Pull(t.Context(), h.ref(name), runtime.Source{})
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	h.push(t, "one:1", marked(t, "one"))
	h.push(t, "two:1", marked(t, "two"))
	one, two := pull("one:1"), pull("two:1")
	disk, err := r.ImageDisk(t.Context())
	if err != nil || disk.Used <= 0 || disk.Size <= disk.Used {
		t.Errorf("the disk: %+v, %v", disk, err)
	}
	c := container("env", "MARK")
	c.Image = one.Name
	if end := run(t, r, c); end.ExitCode != 0 {
		t.Fatalf("%+v", end)
	}
	if err := r.RemoveImage(t.Context(), one.Name); err == nil || !strings.Contains(err.Error(), "in use by container "+c.ID) {
		t.Errorf("removing what a container is made of: %v", err)
	}
	for range 2 {
		if err := r.RemoveImage(t.Context(), two.Name); err != nil {
			t.Error(err)
		}
	}
	has := func(i runtime.Image) bool {
		_, err := r.client.ContentStore().Info(r.namespaced(t.Context()), digest.Digest(i.Digest))
		if err != nil && !errdefs.IsNotFound(err) {
			t.Error(err)
		}
		return err == nil
	}
	if !has(one) || has(two) {
		t.Errorf("the content of the image that stays is here: %t; of that which went: %t", has(one), has(two))
	}
	images, err := r.Images(t.Context())
	if err != nil || len(images) != 1 || images[0].Name != one.Name || images[0].Used.IsZero() {
		t.Errorf("images: %+v, %v", images, err)
	}
	c2 := container("env", "MARK")
	c2.Image = pull("two:1").Name
	if end := run(t, r, c2); end.ExitCode != 0 || output(t, r, c2.ID) != "two\n" {
		t.Errorf("an image that came again: %+v", end)
	}
	if got := output(t, r, c.ID); got != "one\n" { // and is removed
		t.Errorf("output %q", got)
	}
	if err := r.RemoveImage(t.Context(), one.Name); err != nil || has(one) {
		t.Errorf("removing an image without containers: %v, here: %t", err, has(one))
	}
}
