package v1

import (
	"net/netip"
	"testing"
)

// TestGatewayPrefix6: a swarm's prefix is of the unique local addresses, stays, and is no other swarm's.
func TestGatewayPrefix6(t *testing.T) {
	one := GatewayPrefix6("q8zbkd0n1kq5x0bxvg1ty6ugp")
	if want := netip.MustParsePrefix("fd37:57a2:55f3::/96"); one != want {
		t.Errorf("prefix %s, want %s as ever: nodes have addresses of it", one, want)
	}
	if !one.Addr().IsPrivate() || one != one.Masked() {
		t.Errorf("prefix %s is not one of unique local addresses", one)
	}
	if GatewayPrefix6("another") == one {
		t.Error("two swarms have one prefix")
	}
}
