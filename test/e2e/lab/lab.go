// Package lab makes hosts to test on: network namespaces joined by a bridge in a namespace of its own, each with its own
// data directory, in which the built daemons run as they would on machines.
//
// It owns everything below its directory: namespaces, processes, mounts. It clears what an earlier, crashed run left there
// before it begins, and leaves nothing. It never touches the machine's own links, routes or firewall.
package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
)

// subnet is that of the hosts: host n has the address .n, the bridge's namespace .254, and the client .253.
var subnet = netip.MustParsePrefix("10.91.0.0/24")

// Lab is a number of hosts on one network.
type Lab struct {
	T testing.TB
	// Bin is where the built binaries are.
	Bin string
	// Dir is where everything of the lab is.
	Dir    string
	Hosts  []*Host
	Client *Namespace // a machine outside of the swarm, on the same network
	bridge *Namespace
}

// New makes a lab, and removes it when the test ends. It skips the test where there is no root or nothing was built.
func New(t testing.TB, hosts int) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for network namespaces and containers")
	}
	bin := binaries(t)
	l := &Lab{T: t, Bin: bin, Dir: filepath.Join(os.TempDir(), "swarmd-lab")}
	if err := l.clear(); err != nil {
		t.Fatalf("lab: clear what an earlier run left in %s: %v", l.Dir, err)
	}
	t.Cleanup(func() {
		if err := l.clear(); err != nil {
			t.Errorf("lab: clean up %s: %v", l.Dir, err)
		}
	})
	if err := l.build(hosts); err != nil {
		t.Fatalf("lab: %v", err)
	}
	return l
}

// binaries finds bin/ of the repository that the test runs in.
func binaries(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			bin := filepath.Join(dir, "bin")
			if _, err := os.Stat(filepath.Join(bin, "swarmd")); err != nil {
				t.Skipf("%s/swarmd is not built: run make build runtime e2e-images", bin)
			}
			return bin
		}
	}
	t.Fatal("lab: not inside of the repository")
	return ""
}

func (l *Lab) build(hosts int) error {
	if err := os.MkdirAll(filepath.Join(l.Dir, "netns"), 0o700); err != nil {
		return err
	}
	var err error
	if l.bridge, err = newNamespace(filepath.Join(l.Dir, "netns", "bridge")); err != nil {
		return err
	}
	if err := l.bridge.Do(makeBridge); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if l.Client, err = l.join("client", 253); err != nil {
		return err
	}
	for i := range hosts {
		name := fmt.Sprintf("h%d", i+1)
		ns, err := l.join(name, i+1)
		if err != nil {
			return err
		}
		h := &Host{Namespace: ns, Name: name, lab: l, Addr: address(i + 1), Root: filepath.Join(l.Dir, name)}
		if err := os.MkdirAll(h.Root, 0o700); err != nil {
			return err
		}
		l.Hosts = append(l.Hosts, h)
	}
	return nil
}

func makeBridge() error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	return address254(bridge)
}

func address254(link netlink.Link) error {
	addr, err := netlink.ParseAddr(address(254).String() + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

// address is the subnet's address number n.
func address(n int) netip.Addr {
	b := subnet.Addr().As4()
	b[3] = byte(n)
	return netip.AddrFrom4(b)
}

// join makes a namespace with a link eth0 to the bridge.
func (l *Lab) join(name string, number int) (*Namespace, error) {
	ns, err := newNamespace(filepath.Join(l.Dir, "netns", name))
	if err != nil {
		return nil, err
	}
	err = l.bridge.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns.file.Fd())}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		bridge, err := netlink.LinkByName("br0")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(veth, bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(veth)
	})
	if err != nil {
		return nil, fmt.Errorf("link of %s: %w", name, err)
	}
	return ns, ns.Do(func() error { return configure(number) })
}

// configure sets up lo and eth0 of the namespace that the thread is in.
func configure(number int) error {
	for _, name := range []string{"lo", "eth0"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "eth0" {
			addr, err := netlink.ParseAddr(address(number).String() + "/24")
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		if name == "eth0" {
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: address(254).AsSlice()}
			if err := netlink.RouteAdd(route); err != nil {
				return err
			}
		}
	}
	return nil
}
