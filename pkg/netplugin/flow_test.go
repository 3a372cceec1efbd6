package netplugin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// testFlow is a connection from a client's port 1000 to the port published, which a backend answers from a port of its own.
type testFlow struct {
	protocol  uint8
	client    int
	published uint16
	backend   int
	port      uint16
}

func (f testFlow) String() string {
	return fmt.Sprintf("%d: c%d to %d, b%d %d", f.protocol, f.client, f.published, f.backend, f.port)
}

func testClient(v, n int) netip.Addr { return testHost(v, 1, n) }

func testBackend(v, n int) netip.Addr { return testHost(v, 2, n) }

func testHost(v, net, n int) netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, byte(net), 0, byte(n)}), netip.MustParseAddr(fmt.Sprintf("fd00:%d::%x", net, n))}[v]
}

// track has the namespace track it over an IP version.
func (f testFlow) track(t *testing.T, n *namespace, v int) {
	t.Helper()
	h, err := netlink.NewHandleAt(n.fd, unix.NETLINK_NETFILTER)
	must(t, err)
	defer h.Close()
	client, node, backend := testClient(v, f.client).AsSlice(), testHost(v, 3, 1).AsSlice(), testBackend(v, f.backend).AsSlice()
	one := &netlink.ConntrackFlow{FamilyType: uint8(family(v)), TimeOut: 600,
		Forward: netlink.IPTuple{Protocol: f.protocol, SrcIP: client, DstIP: node, SrcPort: 1000, DstPort: f.published},
		Reverse: netlink.IPTuple{Protocol: f.protocol, SrcIP: backend, DstIP: client, SrcPort: f.port, DstPort: 1000}}
	if f.protocol == unix.IPPROTO_TCP {
		one.ProtoInfo = &netlink.ProtoInfoTCP{State: established}
	}
	must(t, h.ConntrackCreate(netlink.ConntrackTable, netlink.InetFamily(family(v)), one))
}

// established is TCP_CONNTRACK_ESTABLISHED.
const established = 3

// What is forgotten are the flows meant, of either IP version, however many are meant at once, and no others.
func TestForgetOfEachVersion(t *testing.T) {
	const tcp, udp = unix.IPPROTO_TCP, unix.IPPROTO_UDP
	there := []testFlow{{tcp, 1, 80, 1, 8000}, {tcp, 2, 80, 2, 8000}, {tcp, 3, 80, 1, 8001}, {udp, 1, 80, 1, 8000}, {tcp, 4, 81, 1, 8000}, {tcp, 5, 82, 3, 8000},
		{tcp, 6, 83, 3, 8000}, {tcp, 7, 84, 3, 8000}, {tcp, 8, 85, 3, 8000}, {tcp, 9, 86, 3, 8000}}
	for v, version := range []string{"IPv4", "IPv6"} {
		of := func(backend int, protocol, published, port uint16) flows {
			return flows{to: testBackend(v, backend), toPort: port, published: portKey{protocol, published}}
		}
		for _, test := range []struct {
			name   string
			forget []flows
			gone   []int
		}{
			{"nothing", nil, nil},
			{"a backend of a port", []flows{of(1, tcp, 80, 8000)}, []int{0}},
			{"a port of a backend that has none", []flows{of(2, tcp, 81, 8000)}, nil},
			{"two backends of a port", []flows{of(1, tcp, 80, 8000), of(2, tcp, 80, 8000)}, []int{0, 1}},
			{"by another protocol", []flows{of(1, udp, 80, 8000)}, []int{3}},
			{"of two ports", []flows{of(1, tcp, 80, 8000), of(1, tcp, 81, 8000)}, []int{0, 4}},
			{"of many ports", []flows{of(3, tcp, 82, 8000), of(3, tcp, 83, 8000), of(3, tcp, 84, 8000), of(3, tcp, 85, 8000), of(3, tcp, 86, 8000)}, []int{5, 6, 7, 8, 9}},
			{"all of a backend", []flows{{to: testBackend(v, 1)}}, []int{0, 2, 3, 4}},
			{"all of a client", []flows{{from: testClient(v, 1)}}, []int{0, 3}},
			{"a backend, and a port of another", []flows{{to: testBackend(v, 2)}, of(3, tcp, 82, 8000)}, []int{1, 5}},
		} {
			t.Run(version+"/"+test.name, func(t *testing.T) {
				n := newLab(t).client
				var want []string
				for i, f := range there {
					f.track(t, n, v)
					if !slices.Contains(test.gone, i) {
						want = append(want, f.String())
					}
				}
				must(t, n.forget(test.forget))
				left, err := n.flowsOf(family(v), func(flow) bool { return true })
				must(t, err)
				var got []string
				for _, f := range there {
					if slices.ContainsFunc(left, func(one flow) bool {
						return one.protocol == f.protocol && one.sent.src == netip.AddrPortFrom(testClient(v, f.client), 1000) && one.sent.dst.Port() == f.published &&
							one.answer.src == netip.AddrPortFrom(testBackend(v, f.backend), f.port)
					}) {
						got = append(got, f.String())
					}
				}
				if !slices.Equal(got, want) || len(left) != len(got) {
					t.Errorf("%d are left, among them\n%s\nwant\n%s", len(left), strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			})
		}
	}
}
