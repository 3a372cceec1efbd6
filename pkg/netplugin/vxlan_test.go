package netplugin

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestVTEPMAC(t *testing.T) {
	if got := vtepMAC(7).String(); got != "02:53:80:00:00:07" {
		t.Errorf("VTEP address of node 7 is %s", got)
	}
}

// newVXLANLab is a lab with the machine's router and an underlay.
func newVXLANLab(t *testing.T, a netip.Addr) *lab {
	t.Helper()
	b := newLab(t)
	b.apply(testConfig(0))
	b.linux.underlay = underlay{node: 7, addr: a, port: 4444}
	return b
}

func TestEnsureVXLAN(t *testing.T) {
	for _, a := range []netip.Addr{hostAddr, netip.MustParseAddr("fd77::1")} {
		b := newVXLANLab(t, a)
		if a.Is6() {
			setUp(t, b.host, "out0", netip.PrefixFrom(a, 64))
		}
		in := newNamespace(t, "router x")
		one, err := b.linux.ensureVXLAN(in, "vx", 4097, vtepMAC(7), 1350)
		must(t, err)
		v, ok := one.(*netlink.Vxlan)
		if !ok || v.VxlanId != 4097 || v.Port != 4444 || v.Learning || v.NetNsID < 0 {
			t.Errorf("%s: the link is %+v", a, one)
		}
		changes := writes(t, in)
		again, err := b.linux.ensureVXLAN(in, "vx", 4097, vtepMAC(7), 1350)
		must(t, err)
		if n := changes(); n != 0 || again.Attrs().Index != one.Attrs().Index {
			t.Errorf("%s: a second time made %d changes", a, n)
		}
		if again.Attrs().MTU != 1350 || again.Attrs().HardwareAddr.String() != vtepMAC(7).String() {
			t.Errorf("%s: MTU %d, address %s", a, again.Attrs().MTU, again.Attrs().HardwareAddr)
		}
		if other, err := b.linux.ensureVXLAN(in, "vx", 4098, vtepMAC(7), 1350); err != nil || other.(*netlink.Vxlan).VxlanId != 4098 {
			t.Errorf("%s: with another VNI: %v, %v", a, other, err)
		}
		b.linux.underlay.port = 4445
		if other, err := b.linux.ensureVXLAN(in, "vx", 4098, vtepMAC(7), 1350); err != nil || other.(*netlink.Vxlan).Port != 4445 {
			t.Errorf("%s: with another port: %v, %v", a, other, err)
		}
	}
}

// A namespace that goes keeps its VNI for a moment.
func TestVXLANOfANamespaceThatGoes(t *testing.T) {
	b := newVXLANLab(t, hostAddr)
	for range 5 {
		in := newNamespace(t, "router that goes")
		_, err := b.linux.ensureVXLAN(in, "vx", 4097, vtepMAC(7), 1350)
		must(t, err)
		in.close()
	}
}

func TestVXLANLeftInAnotherRouter(t *testing.T) {
	b := newVXLANLab(t, hostAddr)
	_, err := b.linux.ensureVXLAN(b.linux.router, "vx", 4097, vtepMAC(7), 1350)
	must(t, err)
	in := newNamespace(t, "router x")
	_, err = b.linux.ensureVXLAN(in, "vx", 4097, vtepMAC(7), 1350)
	must(t, err)
	if _, err := b.linux.router.LinkByName("vx"); err == nil {
		t.Error("the link in the other router is still there")
	}
}

func TestVXLANOfSomebodyElse(t *testing.T) {
	b := newVXLANLab(t, hostAddr)
	foreign := b.linux.vxlan(b.host, "flannel.1", 4097)
	must(t, b.host.LinkAdd(foreign))
	_, err := b.linux.ensureVXLAN(b.linux.router, "vx", 4097, vtepMAC(7), 1350)
	if err == nil || !strings.Contains(err.Error(), "VNI 4097 on UDP port 4444 is that of link flannel.1 in the machine's namespace, which is not ours") {
		t.Errorf("got %v", err)
	}
}

// A link that was made inside would send from there, where no other node is.
func TestVXLANWithSocketsInside(t *testing.T) {
	b := newVXLANLab(t, hostAddr)
	wrong := b.linux.vxlan(b.linux.router, "vx", 4097)
	must(t, b.linux.router.LinkAdd(wrong))
	one, err := b.linux.ensureVXLAN(b.linux.router, "vx", 4097, vtepMAC(7), 1350)
	must(t, err)
	if one.Attrs().NetNsID < 0 {
		t.Error("the link's sockets are in the router")
	}
}

func TestVXLANPortOfAnotherProgram(t *testing.T) {
	b := newVXLANLab(t, hostAddr)
	must(t, listenUDP(t, b.host, 4444, func(netip.AddrPort, string) {}))
	_, err := b.linux.ensureVXLAN(b.linux.router, "vx", 4097, vtepMAC(7), 1350)
	if err == nil || !strings.Contains(err.Error(), "UDP port 4444 is another program's: choose another data port") {
		t.Errorf("got %v", err)
	}
	must(t, b.linux.router.LinkDel(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx", Index: linkOf(t, b.linux.router, "vx")}}))
}

func TestUnderlayMTU(t *testing.T) {
	b := newVXLANLab(t, hostAddr)
	second := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer0"}
	second.Name, second.MTU = "jumbo", 9000
	must(t, b.host.LinkAdd(second))
	setUp(t, b.host, "jumbo", netip.MustParsePrefix("10.99.0.1/24"))
	for a, want := range map[string]int{"10.99.0.1": 9000, hostAddr.String(): 1400, "10.88.0.1": 1400} {
		if got, err := b.host.underlayLink(netip.MustParseAddr(a)); err != nil || mtuOf(got) != want {
			t.Errorf("MTU for underlay address %s: %d, %v; want %d", a, mtuOf(got), err, want)
		}
	}
}
