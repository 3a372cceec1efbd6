package netplugin

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Both ways of forgetting take away what is meant, and leave the rest.
func TestForgetTakesWhatIsMeant(t *testing.T) {
	ways := map[string]func(*namespace, flows) error{
		"by the kernel": func(n *namespace, f flows) error { return n.request(unix.NETLINK_NETFILTER, f.request()) },
		"one by one":    func(n *namespace, f flows) error { return n.forgetOneByOne(f) },
	}
	for name, forget := range ways {
		t.Run(name, func(t *testing.T) {
			b, _ := withServers(t, 2, published("tcp", 8080, 0), published("udp", 8080, 0), published("tcp", 8081, 0), published("tcp", 8082, 1))
			serve(t, b.client, "outside", 9000)
			for _, to := range []struct {
				network string
				port    uint16
			}{{"tcp", 8080}, {"udp", 8080}, {"tcp", 8081}, {"tcp", 8082}} {
				_, _, err := ask(b.client, to.network, at(hostAddr, to.port))
				must(t, err)
			}
			_, _, err := ask(b.task("t0"), "tcp", at(clientAddr, 9000))
			must(t, err)
			expect := func(after string, t0, t1, out int) {
				t.Helper()
				if a, b, c := tracked(t, b.host, testAddr(0)), tracked(t, b.host, testAddr(1)), tracked(t, b.host, clientAddr); a != t0 || b != t1 || c != out {
					t.Errorf("after %s: %d connections to t0, %d to t1, %d from t0; want %d, %d, %d", after, a, b, c, t0, t1, out)
				}
			}
			expect("nothing", 3, 1, 1)
			must(t, forget(b.linux.host, flows{to: testAddr(0), toPort: 80, published: portKey{unix.IPPROTO_TCP, 8080}}))
			expect("one port", 2, 1, 1)
			must(t, forget(b.linux.host, flows{to: testAddr(0)}))
			expect("one backend", 0, 1, 1)
			must(t, forget(b.linux.host, flows{from: testAddr(0)}))
			expect("one source", 0, 1, 0)
			must(t, forget(b.linux.host, flows{to: testAddr(0)}))
			expect("nothing left", 0, 1, 0)
		})
	}
}
