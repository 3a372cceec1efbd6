package apiserver_test

import (
	"testing"

	"github.com/swarmd/swarmd/pkg/store"
	"github.com/swarmd/swarmd/pkg/store/storetest"
)

// TestClientStore holds the client's Store, over a server, to the contract of every store.
func TestClientStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		s := serve(t).client.Store()
		t.Cleanup(func() { s.Close() })
		return s
	})
}
