package netplugin

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A published port is translated before a program of the machine that listens there would see anything: sshd would be gone with
// "--publish 22:80", on every node. So whoever was first keeps a port: one at which a program listens when it comes to be published is left
// out here, and told of, and taken once the program is gone. The other nodes lead to the service as they do. One that is published already
// goes on to lead to the service, for its clients have it: the program is told of. The sockets are read where everything is read back, and
// when ports come that were not there; not otherwise.

// socketTables are the kernel's lists of sockets, and the state of those that listen. Of TCP, they come first.
var socketTables = []struct {
	name     string
	protocol uint16
	state    string
}{{"tcp", unix.IPPROTO_TCP, "0A"}, {"tcp6", unix.IPPROTO_TCP, "0A"}, {"udp", unix.IPPROTO_UDP, "07"}, {"udp6", unix.IPPROTO_UDP, "07"}}

// listeners are the addresses at which programs of the namespace listen, by port, but for our resolver's, which stays reachable.
func (n *namespace) listeners() (map[portKey][]netip.Addr, error) {
	found := map[portKey][]netip.Addr{}
	err := n.within(func() error {
		for _, t := range socketTables {
			err := readListeners("/proc/thread-self/net/"+t.name, t.state, func(a netip.AddrPort) {
				if a.Addr() != Resolver.Addr() {
					key := portKey{t.protocol, a.Port()}
					found[key] = append(found[key], a.Addr())
				}
			})
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
				return fmt.Errorf("list sockets of %s: %w", n.name, err)
			}
		}
		return nil
	})
	return found, err
}

// readListeners reads a list of sockets as far as there are any of the state.
func readListeners(path, state string, yield func(netip.AddrPort)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // the heading
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // number, local address, remote address, state …
		if len(fields) < 4 {
			continue
		}
		if fields[3] != state {
			if state == "0A" {
				return nil // connections, of which there may be very many
			}
			continue
		}
		if a, ok := socketAddress(fields[1]); ok {
			yield(a)
		}
	}
	return lines.Err()
}

// socketAddress reads such as 0100007F:0016, an address as words of the machine's own order, and a port.
func socketAddress(text string) (at netip.AddrPort, ok bool) {
	address, port, _ := strings.Cut(text, ":")
	b, err := hex.DecodeString(address)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(b)%4 != 0 {
		return at, false
	}
	for word := range slices.Chunk(b, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(number)), ok
}

// occupant is the address of who listens where a port would answer at these places, if anybody does. A socket of all IPv6 addresses is taken
// to answer IPv4 too, as most do.
func occupant(listening []netip.Addr, places []Place) (netip.Addr, bool) {
	i := slices.IndexFunc(listening, func(a netip.Addr) bool {
		return places == nil || slices.ContainsFunc(places, func(p Place) bool {
			switch {
			case !p.Prefix.IsValid():
				return !a.IsLoopback() // which nothing comes to by a link
			case a.IsUnspecified():
				return a.Is6() || p.Prefix.Addr().Is4()
			}
			return p.Prefix.Contains(a)
		})
	})
	if i < 0 {
		return netip.Addr{}, false
	}
	return listening[i], true
}

// Listener implements Network. It does not wait for an Apply that is under way.
func (l *Linux) Listener(p PublishedPort) (netip.Addr, error) {
	places, err := placesOf(p.Places)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("netplugin: %w", err)
	}
	found, err := l.host.listeners()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("netplugin: %w", err)
	}
	at, _ := occupant(found[portKey{protocols[p.Protocol], p.Port}], places)
	return at, nil
}

// yielding is what is known of ports that a program of this machine has, too.
type yielding struct {
	looked   bool             // since everything was read back
	yielded  map[portKey]bool // ports that are left to a program
	led      [2]ports         // that were published before everything was read back
	warnings map[portKey]string
}

// yield leaves ports out of what is wanted that programs of this machine have.
func (l *Linux) yield(want *desired) error {
	y := &l.yielding
	if !y.looked {
		y.yielded, y.warnings = map[portKey]bool{}, map[portKey]string{}
	}
	for key := range y.yielded {
		if !want.leads(key) {
			delete(y.yielded, key)
			delete(y.warnings, key)
			continue
		}
		want.leave(key)
	}
	if y.looked && l.have.equal(want.publication) && l.have.six.equal(want.six) {
		return nil
	}
	var fresh, all []portKey
	for v, p := range []ports{want.ports, want.six.ports} {
		for key := range p {
			if v == 1 && want.ports[key] != nil {
				continue
			}
			all = append(all, key)
			if !l.have.leads(key) && (y.looked || y.led[0][key] == nil && y.led[1][key] == nil) {
				fresh = append(fresh, key)
			}
		}
	}
	if y.looked {
		all = fresh
	}
	if len(all) == 0 {
		y.looked = true
		return nil
	}
	listening, err := l.host.listeners()
	if err != nil {
		return err
	}
	y.looked = true
	for _, key := range all {
		at, taken := occupant(listening[key], want.placesOf(key))
		if !taken {
			continue
		}
		protocol, _, _ := strings.Cut(key.String(), "/")
		where := fmt.Sprintf("port %d/%s", key.port, protocol)
		if !slices.Contains(fresh, key) {
			y.warnings[key] = fmt.Sprintf("%s leads to a service, and a program of this machine that listens there at %s is not reached: have one of the two use another port", where, at)
			l.log.Warn(y.warnings[key])
			continue
		}
		y.yielded[key] = true
		y.warnings[key] = fmt.Sprintf("%s is published by a service, and a program of this machine that was first listens there at %s: it keeps the port, "+
			"and this node does not answer for the service: end the program, or publish another port", where, at)
		l.log.Warn(y.warnings[key])
		want.leave(key)
	}
	return nil
}

// leads tells whether a port is published, by either IP version.
func (d *desired) leads(key portKey) bool { return d.ports[key] != nil || d.six.ports[key] != nil }
func (s *state) leads(key portKey) bool   { return s.ports[key] != nil || s.six.ports[key] != nil }

// placesOf are where a port answers, of both IP versions.
func (d *desired) placesOf(key portKey) (all []Place) {
	for v, everywhere := range []netip.Prefix{anywhere, anywhere6} {
		if p := d.answers(v); p.ports[key] == nil {
			continue
		} else if p.places[key] != nil {
			all = append(all, p.places[key]...)
		} else {
			all = append(all, Place{Prefix: everywhere})
		}
	}
	return all
}

// leave has a port not be published.
func (d *desired) leave(key portKey) {
	for _, p := range []publication{d.publication, d.six} {
		delete(p.ports, key)
		delete(p.places, key)
	}
}

// told are the warnings, in order.
func (y *yielding) told() (all []string) {
	for _, w := range y.warnings {
		all = append(all, w)
	}
	slices.Sort(all)
	return all
}
