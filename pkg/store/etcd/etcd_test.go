package etcd_test

import (
	"context"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
)

func start(t testing.TB, dir string) *etcd.Store {
	t.Helper()
	s, err := etcd.Start(t.Context(), etcd.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSmoke(t *testing.T) {
	s := start(t, t.TempDir())
	ctx := context.Background()
	rev, err := s.Commit(ctx, store.Commit{Ops: []store.Op{{Kind: v1.KindSecret, ID: "a", Value: &v1.SecretSpec{Data: []byte("x")}, Meta: &v1.Meta{Name: "a"}, If: store.Absent()}}})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := s.Snapshot(ctx, rev)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(rev, snap.Revision())
	if _, err := s.Commit(ctx, store.Commit{Ops: []store.Op{{Kind: v1.KindSecret, ID: "a", Value: &v1.SecretSpec{Data: []byte("x")}, Meta: &v1.Meta{Name: "a"}, If: store.Absent()}}}); err == nil {
		t.Fatal("no conflict")
	} else {
		t.Log(err)
	}
	lead, err := s.Campaign(ctx, "me")
	if err != nil {
		t.Fatal(err)
	}
	f := lead.Fence()
	rev, err = s.Commit(ctx, store.Commit{Fence: &f, Ops: []store.Op{{Kind: v1.KindSecret, ID: "a", If: store.Exists()}}})
	t.Log(rev, err)
	rev, err = s.Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	snap, err = s.Snapshot(ctx, rev)
	t.Log(rev, snap.Revision(), err, snap.Count(v1.KindSecret))
}
