// Package lab makes hosts to test on: namespaces with a network and a host name of their own, joined by a bridge in a
// namespace of its own, each with its own data directory, in which the built daemons run as they would on machines. It can
// cut and delay links, partition the hosts, kill, freeze and restart daemons, cut a host's power and fill its disk.
//
// It owns everything below its directory: namespaces, processes, mounts. It clears what an earlier, crashed run left there
// before it begins, and leaves nothing. It never touches the machine's own links, routes, firewall or name.
package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// T is what the lab needs of a test. Everything that goes wrong with the lab itself ends the test.
type T interface {
	Helper()
	Cleanup(f func())
	Skipf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Lab is a number of hosts on one network.
type Lab struct {
	T T
	// Bin is where the built binaries are.
	Bin string
	// Swarmd is the daemon that the hosts run; default that of Bin.
	Swarmd string
	// Dir is where everything of the lab is.
	Dir   string
	Hosts []*Host
	// Client is a machine outside of the swarm, on the same network.
	Client *Namespace
	// ClientAddr is the client's address.
	ClientAddr netip.Addr
	bridge     *Namespace

	mu    sync.Mutex // of what links do
	cut   map[[2]string]bool
	delay map[string]*relay
}

// New makes a lab of hosts with these names, and removes it when the test ends. It skips the test where there is no root or
// nothing was built.
func New(t T, hosts ...string) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("needs root, for namespaces and containers")
	}
	l, err := Make(t, filepath.Join(os.TempDir(), "swarmd-lab"), hosts...)
	t.Cleanup(func() {
		if err := l.Remove(); err != nil {
			t.Errorf("lab: clean up %s: %v", l.Dir, err)
		}
	})
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	return l
}

// Make makes a lab in a directory; what an earlier one left there is removed first. Where it fails, what it made so far is there
// for Remove.
func Make(t T, dir string, hosts ...string) (*Lab, error) {
	l, err := open(t, dir)
	if err != nil {
		return l, err
	}
	if err := l.clear(); err != nil {
		return l, fmt.Errorf("clear what an earlier run left in %s: %w", l.Dir, err)
	}
	return l, l.build(hosts)
}

// Remove ends every process of the lab and removes everything that is there.
func (l *Lab) Remove() error { return l.clear() }

func open(t T, dir string) (*Lab, error) {
	l := &Lab{T: t, Dir: dir, cut: make(map[[2]string]bool), delay: make(map[string]*relay)}
	var err error
	l.Bin, err = binaries()
	return l, err
}

// binaries finds bin/ of the repository that the test runs in, or where this program itself was built to.
func binaries() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	candidates := []string{filepath.Dir(self)}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			candidates = append(candidates, filepath.Join(dir, "bin"))
		}
	}
	for _, bin := range candidates {
		if _, err := os.Stat(filepath.Join(bin, "swarmd")); err == nil {
			return bin, nil
		}
	}
	return "", fmt.Errorf("swarmd is in none of %v: run make build runtime e2e-images", candidates)
}

func (l *Lab) build(hosts []string) error {
	if err := os.MkdirAll(l.namespacePath(""), 0o700); err != nil {
		return err
	}
	if err := l.makeBridge(); err != nil {
		return err
	}
	var err error
	if l.Client, err = l.join("client", clientNumber); err != nil {
		return err
	}
	l.ClientAddr = address(clientNumber)
	for _, name := range hosts {
		if _, err := l.Add(name); err != nil {
			return err
		}
	}
	return nil
}

// Add adds a host with an empty disk, at run time too.
func (l *Lab) Add(name string) (*Host, error) {
	number := 1
	for slices.ContainsFunc(l.Hosts, func(h *Host) bool { return h.number == number }) {
		number++
	}
	h := &Host{Name: name, lab: l, number: number, Addr: address(number), Root: filepath.Join(l.Dir, name)}
	if l.Host(name) != nil || number >= clientNumber {
		return nil, fmt.Errorf("no room for another host %s", name)
	}
	l.Hosts = append(l.Hosts, h)
	if err := os.MkdirAll(h.Root, 0o700); err != nil {
		return nil, err
	}
	if err := h.PowerOn(); err != nil {
		return nil, err
	}
	return h, l.save()
}

// Discard takes a host away for good: its power, its link and its disk.
func (l *Lab) Discard(h *Host) error {
	if err := h.PowerOff(); err != nil {
		return err
	}
	if err := h.unmountDisk(); err != nil {
		return err
	}
	l.Hosts = slices.DeleteFunc(l.Hosts, func(other *Host) bool { return other == h })
	if err := os.RemoveAll(h.Root); err != nil {
		return err
	}
	return l.save()
}

// Host is the host of that name, or nil.
func (l *Lab) Host(name string) *Host {
	for _, h := range l.Hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

func (l *Lab) namespacePath(name string) string { return filepath.Join(l.Dir, "ns", name) }

// subnet is that of the hosts: host n has the address .n, the bridge's namespace .254, and the client .253.
var subnet = netip.MustParsePrefix("10.91.0.0/24")

const (
	clientNumber = 253
	bridgeNumber = 254
)

// address is the subnet's address number n.
func address(n int) netip.Addr {
	b := subnet.Addr().As4()
	b[3] = byte(n)
	return netip.AddrFrom4(b)
}
