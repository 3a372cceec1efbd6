package runtimetest

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

func testFiles(t *testing.T, u *suite) {
	c := runtime.Container{ID: v1.NewID(), Image: u.image, Spec: v1.ContainerSpec{Image: u.image, Args: u.Forever}}
	defer func() {
		u.must(u.r.Remove(context.Background(), c.ID))
		u.must(u.r.DropFiles(context.Background(), c.ID))
	}()
	u.kept(c.ID)
	u.must(u.r.DropFiles(u.ctx, c.ID))
	one := runtime.File{Target: "/run/secrets/one", Version: "1", Data: []byte("first"), UID: 1, GID: 2, Mode: 0o440}
	two := runtime.File{Target: "/etc/two", Version: "1", Data: []byte("second"), Mode: 0o444}
	u.must(u.r.KeepFiles(u.ctx, c.ID, []runtime.File{one, two}))
	u.kept(c.ID, one, two)
	two.Version = "2"
	three := runtime.File{Target: "/three", Version: "1", Data: []byte("third"), Mode: 0o400}
	u.must(u.r.KeepFiles(u.ctx, c.ID, []runtime.File{two, three}))
	u.kept(c.ID, two, three)
	u.must(u.r.Create(u.ctx, c))
	u.start(c.ID)
	u.must(u.r.Close())
	u.r = u.Open(t)
	u.kept(c.ID, two, three)
	u.must(u.r.Remove(u.ctx, c.ID))
	u.kept(c.ID, two, three)
	for range 2 {
		u.must(u.r.DropFiles(u.ctx, c.ID))
		u.kept(c.ID)
	}
	for _, bad := range [][]runtime.File{{{Target: "relative"}}, {{Target: "/"}}, {{Target: "/a"}, {Target: "//a/"}}} {
		if err := u.r.KeepFiles(u.ctx, c.ID, bad); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("KeepFiles of %+v: %v, want ErrInvalid", bad, err)
		}
	}
}

// kept asserts which files are kept for a container.
func (u *suite) kept(id string, want ...runtime.File) {
	u.Helper()
	for i := range want {
		want[i].Data = nil
	}
	got, err := u.r.KeptFiles(u.ctx, id)
	u.must(err)
	if diff := cmp.Diff(append([]runtime.File{}, want...), append([]runtime.File{}, got...)); diff != "" {
		u.Errorf("files that are kept (-want +got):\n%s", diff)
	}
}
