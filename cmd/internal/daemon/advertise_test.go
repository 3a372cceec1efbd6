package daemon

import (
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// TestPlaceOutsideThePool: a manager whose address the swarm would take for a task's founds no swarm, unless with another pool.
func TestPlaceOutsideThePool(t *testing.T) {
	for _, c := range []struct {
		place place
		pool  string
		wrong string
	}{
		{place{addr: "10.0.0.1:2377"}, "", ""},
		{place{addr: "100.90.0.1:2377"}, "", "100.90.0.1 is in the gateway pool 100.64.0.0/10"},
		{place{addr: "100.90.0.1:2377"}, "198.18.0.0/15", ""},
		{place{addr: "10.0.0.1:2377", data: "100.64.0.7"}, "", "100.64.0.7 is in"},
		{place{addr: "[fd00::1]:2377"}, "", ""},
		{place{addr: "[::ffff:100.90.0.1]:2377"}, "", "100.90.0.1 is in"},
	} {
		err := c.place.outside(gatewayPool(&v1.InitRequest{Spec: &v1.ClusterSpec{GatewayPool: c.pool}}), choosePool)
		if (err != nil) != (c.wrong != "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%+v in %q: %v, want %q", c.place, c.pool, err, c.wrong)
		}
	}
}
