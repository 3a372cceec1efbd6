package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

func TestUnderlay(t *testing.T) {
	for _, c := range []struct{ addr, data, want string }{
		{"192.0.2.1:2377", "", "192.0.2.1"}, {"192.0.2.1:2377", "198.51.100.7", "198.51.100.7"}, {"[2001:db8::1]:2377", "", "2001:db8::1"},
		{"", "", "invalid IP"}, {"name:2377", "", "invalid IP"},
	} {
		id := &identity{Addr: c.addr, DataAddr: c.data}
		if got := id.underlay().String(); got != c.want {
			t.Errorf("%q, %q: %s, want %s", c.addr, c.data, got, c.want)
		}
	}
}

// TestNoPortAtTheResolver: what is refused as the resolver's address is the resolver's.
func TestNoPortAtTheResolver(t *testing.T) {
	if _, err := (v1.PortConfig{HostIP: netplugin.Resolver.Addr().String()}).Range(); err == nil {
		t.Error("a port can be published at the resolver's address")
	}
}

func TestNameserversFollowTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	n := &nameservers{path: path}
	if got := n.list(); len(got) > 0 {
		t.Errorf("of no file: %v", got)
	}
	for i, c := range []struct {
		text string
		want []string
	}{
		{"# nameserver 192.0.2.9\nnameserver 127.0.0.53\noptions edns0\n", []string{"127.0.0.53:53"}},
		{"nameserver 169.254.77.53\nnameserver x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n",
			[]string{"192.0.2.1:53", "[fe80::1%eth0]:53", "192.0.2.2:53"}},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(int64(i+1), 0)); err != nil {
			t.Fatal(err)
		}
		n.looked = time.Time{}
		var got []string
		for _, a := range n.list() {
			got = append(got, a.String())
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %v, want %v", c.text, got, c.want)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	n.looked = time.Time{}
	if got := n.list(); len(got) != 3 || got[0] != netip.MustParseAddrPort("192.0.2.1:53") {
		t.Errorf("a file that is gone for a moment: %v", got)
	}
}
