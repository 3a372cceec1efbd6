package etcd_test

import (
	"testing"

	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/etcd"
	"github.com/swarmd/swarmd/pkg/store/storetest"
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

func TestEtcd(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return start(t, t.TempDir()) })
}

func TestEtcdElector(t *testing.T) {
	storetest.RunElector(t, func(t *testing.T) storetest.ElectorStore { return start(t, t.TempDir()) })
}

func TestEtcdLeases(t *testing.T) {
	storetest.RunLeases(t, func(t *testing.T) storetest.LeaseStore { return start(t, t.TempDir()) })
}
