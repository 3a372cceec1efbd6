package store_test

import (
	"testing"

	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		m := store.NewMemory()
		t.Cleanup(func() { m.Close() })
		return m
	})
}

func TestMemoryElector(t *testing.T) {
	storetest.RunElector(t, func(t *testing.T) storetest.ElectorStore {
		m := store.NewMemory()
		t.Cleanup(func() { m.Close() })
		return m
	})
}

func TestMemoryLeases(t *testing.T) {
	storetest.RunLeases(t, func(t *testing.T) storetest.LeaseStore {
		m := store.NewMemory()
		t.Cleanup(func() { m.Close() })
		return m
	})
}
