package netplugin

import (
	"net/netip"
	"testing"
)

func TestTasksOfAnOverlayReachEachOther(t *testing.T) {
	for _, tt := range []struct {
		name      string
		dual, six bool
	}{{"IPv4", false, false}, {"dual stack", true, false}, {"dual stack over IPv6", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, 3)
			f.six = tt.six
			net := f.network(1, tt.dual)
			for _, m := range []int{0, 0, 1, 2} {
				f.task(m, net)
			}
			f.apply()
			f.serve()
			for _, from := range f.tasks {
				for _, to := range f.tasks {
					if from.id == to.id {
						continue
					}
					for _, a := range f.addresses(to, net) {
						for _, network := range []string{"tcp", "udp"} {
							server, seen, err := ask(f.space(from), network, at(a, 80))
							if want := f.address(from, net, a.Is6()); err != nil || server != to.id || seen.Addr() != want {
								t.Errorf("%s %s to %s at %s: answered by %q, which saw %s, %v; want %s", network, from.id, to.id, a, server, seen, err, want)
							}
						}
					}
				}
			}
			for _, six := range []bool{false, true} {
				if six && !tt.dual {
					continue
				}
				for _, nobody := range []netip.Addr{f.numbered(net, 200, six)} {
					if _, err := dial(f.space(f.tasks[0]), "tcp", at(nobody, 80)); err == nil || isTimeout(err) {
						t.Errorf("to nobody's address %s: %v, want it refused at once", nobody, err)
					}
				}
			}
		})
	}
}
