package netplugin

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestSocketAddress(t *testing.T) {
	for text, want := range map[string]string{"0100007F:0016": "127.0.0.1:22", "00000000:1F90": "0.0.0.0:8080",
		"00000000000000000000000000000000:0050": "[::]:80", "00000000000000000000000001000000:0050": "[::1]:80", "x:1": "", "00:1": ""} {
		at, ok := socketAddress(text)
		if ok != (want != "") || ok && at.String() != want {
			t.Errorf("%s is %s, %v; want %s", text, at, ok, want)
		}
	}
}

func TestOccupant(t *testing.T) {
	for _, c := range []struct {
		listens, place string
		want           bool
	}{
		{"0.0.0.0", "", true}, {"127.0.0.1", "", true}, {"10.0.0.1", "10.0.0.0/8", true}, {"10.0.0.1", "127.0.0.1/32", false},
		{"0.0.0.0", "127.0.0.1/32", true}, {"::", "127.0.0.1/32", true}, {"::", "2001:db8::1/128", true}, {"0.0.0.0", "2001:db8::1/128", false},
		{"0.0.0.0", "eth1", true}, {"127.0.0.1", "eth1", false}, {"::1", "::1/128", true},
	} {
		var places []Place
		if p, err := netip.ParsePrefix(c.place); err == nil {
			places = []Place{{Prefix: p}}
		} else if c.place != "" {
			places = []Place{{Link: c.place}}
		}
		if _, got := occupant([]netip.Addr{netip.MustParseAddr(c.listens)}, places); got != c.want {
			t.Errorf("who listens at %s is in the way of %q: %v", c.listens, c.place, got)
		}
	}
}

// TestPortsAreLeftToPrograms: a port at which a program of the machine listens is not taken from it, which is told, until it is gone. One that
// was published first stays, whatever is done to the tables and however often the daemon starts.
func TestPortsAreLeftToPrograms(t *testing.T) {
	b := newLab(t)
	c := testConfig(1)
	c.Published = []PublishedPort{{Protocol: "tcp", Port: 8080, Backends: backends(0)}}
	listen := func(at string) net.Listener {
		t.Helper()
		var l net.Listener
		must(t, b.host.within(func() (err error) {
			l, err = net.Listen("tcp4", at)
			return err
		}))
		t.Cleanup(func() { l.Close() })
		return l
	}
	published := func(port uint16) bool {
		_, there := b.linux.have.ports[portKey{protocols["tcp"], port}]
		return there
	}
	warns := func(of string, want bool) {
		t.Helper()
		all := strings.Join(b.linux.Warnings(), "\n")
		if got := strings.Contains(all, of); got != want {
			t.Errorf("told of %s: %v, in %q", of, got, all)
		}
	}
	first := listen("0.0.0.0:22")
	b.apply(c)
	c.Published = append(c.Published, PublishedPort{Protocol: "tcp", Port: 22, Backends: backends(0)})
	b.apply(c)
	if published(22) || !published(8080) {
		t.Fatalf("port 22 is published: %v, port 8080: %v", published(22), published(8080))
	}
	warns("port 22/tcp is published by a service, and a program", true)
	if at, err := b.linux.Listener(c.Published[1]); err != nil || at.String() != "0.0.0.0" {
		t.Errorf("who listens at port 22: %s, %v", at, err)
	}
	found, _, err := b.linux.Examine(t.Context(), "")
	must(t, err)
	if len(found) != 1 || !strings.Contains(found[0].Text, "port 22/tcp") {
		t.Errorf("the doctor finds %+v", found)
	}
	listen("127.0.0.1:8080")
	for _, again := range []func(){b.linux.Resync, func() { flushRuleset(t, b.host); b.disturbed(1 << 30) }, b.restart} {
		again()
		b.apply(c)
		if published(22) || !published(8080) {
			t.Fatalf("then port 22 is published: %v, port 8080: %v", published(22), published(8080))
		}
		warns("port 8080/tcp leads to a service", true)
	}
	must(t, first.Close())
	b.linux.Resync()
	b.apply(c)
	if !published(22) {
		t.Error("port 22 is left to a program that is gone")
	}
	warns("port 22/tcp", false)
}
