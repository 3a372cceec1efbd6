package netplugin

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEncryptedNetworkPortTaken: a network whose port another program took says so, and opens no other port instead, which nothing keeps strangers
// from; it is whole once the port is free, and other networks are all the time.
func TestEncryptedNetworkPortTaken(t *testing.T) {
	f := sealedFleet(t, 2, false)
	f.apply()
	f.serve()
	f.shakeHands()
	f.check()
	b := f.labs[0]
	port, err := wirePort(b.linux.overlays["net0"].shape.vni)
	must(t, err)
	ports := func() (all string) {
		t.Helper()
		must(t, b.host.within(func() error {
			for _, name := range []string{"udp", "udp6"} {
				data, err := os.ReadFile("/proc/thread-self/net/" + name)
				if err != nil {
					return err
				}
				for _, at := range regexp.MustCompile(`(?m)^ *\d+: [0-9A-F]+:([0-9A-F]{4}) `).FindAllStringSubmatch(string(data), -1) {
					all += name + " " + at[1] + "\n"
				}
			}
			return nil
		}))
		return all
	}
	before := ports()
	if !strings.Contains(before, fmt.Sprintf("udp %04X\n", port)) {
		t.Fatalf("port %d is not among\n%s", port, before)
	}
	pidfd, err := unix.PidfdOpen(processOf(t, b, "net0"), 0)
	must(t, err)
	must(t, kill(pidfd))
	var other *net.UDPConn
	must(t, b.host.within(func() (err error) {
		other, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	}))
	taken := ports()
	for range 2 {
		err := b.linux.Apply(t.Context(), f.config(0))
		if _, alone := TaskErrors(err); !alone || !strings.Contains(err.Error(), fmt.Sprintf("network net0: UDP port %d is another program's", port)) {
			t.Errorf("%v", err)
		}
		if now := ports(); now != taken {
			t.Errorf("open are\n%s, and were\n%s", now, taken)
		}
		found, _, err := b.linux.Examine(t.Context(), "")
		if must(t, err); len(found) == 0 || found[0].Overlay != "net0" || !strings.Contains(found[0].Text, "is another program's") {
			t.Errorf("found %v", found)
		}
		b.linux.Resync()
	}
	must(t, other.Close())
	b.apply(f.config(0))
	f.check()
	if now := ports(); now != before {
		t.Errorf("open are\n%s, and were\n%s", now, before)
	}
}
