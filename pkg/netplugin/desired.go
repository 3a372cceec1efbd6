package netplugin

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The addresses between the machine and its router are the same on every machine, and never leave it.
var (
	hostAddress   = netip.MustParseAddr("169.254.77.1") // gw0, in the machine's own namespace
	routerAddress = netip.MustParseAddr("169.254.77.2") // up0, in the router's
)

// The links' own addresses are fixed, so that neighbours can be entered without asking anybody.
var (
	taskSideMAC = net.HardwareAddr{0x02, 0x53, 0x00, 0x00, 0x00, 0x01} // of the router's end of each task's link
	hostMAC     = net.HardwareAddr{0x02, 0x53, 0x00, 0x00, 0x00, 0x02}
	routerMAC   = net.HardwareAddr{0x02, 0x53, 0x00, 0x00, 0x00, 0x03}
)

// base is what all tasks of a machine share.
type base struct {
	block, pool netip.Prefix
	wire        underlay     // to other nodes; zero where there are none
	guard       underlay     // whose data port is kept: also where networks alone may have it open
	prefix      netip.Prefix // of the gateway addresses' own of IPv6; not valid where there is none
}

// gateway is the router's own address: the first usable one of the block.
func (b base) gateway() netip.Addr { return b.block.Masked().Addr().Next() }

// portKey is a published port. Its protocol has 16 bits so that both are hashed as one number: each change looks all ports up.
type portKey struct{ protocol, port uint16 }

// String is such as "tcp/8080".
func (k portKey) String() string {
	for name, number := range protocols {
		if number == k.protocol {
			return fmt.Sprintf("%s/%d", name, k.port)
		}
	}
	return fmt.Sprintf("%d/%d", k.protocol, k.port)
}

var protocols = map[string]uint16{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// desired is a Config that was checked. Its port's backends are in order, each there once; a port without any is left out.
type desired struct {
	base
	tasks map[string]TaskLink
	// The publication is IPv4's, and six IPv6's. Its backends are the same addresses, but for those of nodes without.
	publication
	six publication
	// draining are the backends that take no new connections, by port; none is in ports.
	draining ports
	// peers are the other nodes whose gateway blocks can be reached, and blocks theirs and this node's, in order. underlays are the
	// addresses of all other nodes.
	peers     map[uint32]Peer
	underlays map[netip.Addr]bool
	blocks    []netip.Prefix
	// without are the blocks of nodes whose tasks have no IPv6 addresses, in order.
	without []netip.Prefix
	// targets are this machine's backends, for connections by way of other nodes. Those that take no new connections are among them:
	// another node may not know yet.
	targets map[target]bool
	// internal are the addresses of tasks that have no way out.
	internal map[netip.Addr]bool
	// sealed is where tasks are sent to by no other way than an encrypted network.
	sealed map[seal]bool
	// refused are tasks that cannot be linked as the Config says. Nothing of theirs is made or removed.
	refused map[string]bool
	// overlays are the networks by ID; kept are those that cannot be as the Config says, and why, which are left as they are.
	underlay underlay
	overlays map[string]*wanted
	kept     map[string]error
	// conflicts are addresses that are here and said to be elsewhere, each with the task that has it here.
	conflicts map[conflict]string
	// wires are the ports of encrypted networks.
	wires map[uint16]bool
	// checked are the backends of the Config before: a list that is still the same one was looked at then.
	checked checked
}

// checked are lists of backends that are as they should be, while these are the blocks of gateway addresses.
type checked struct {
	blocks          []netip.Prefix
	ports, draining ports
}

// check reads a Config. Where the error comes with a nil result nothing can be done; else it tells what was left out.
func check(c Config, before checked) (*desired, error) {
	d := &desired{
		base: base{block: c.Gateway, pool: c.Pool, prefix: c.Prefix6}, tasks: make(map[string]TaskLink, len(c.Tasks)), refused: map[string]bool{}, publication: newPublication(), six: newPublication(), draining: ports{},
		peers: map[uint32]Peer{}, underlays: map[netip.Addr]bool{}, blocks: []netip.Prefix{c.Gateway}, targets: map[target]bool{}, internal: map[netip.Addr]bool{}, sealed: map[seal]bool{},
		underlay: underlayOf(c), wires: map[uint16]bool{},
	}
	d.addWirePorts(c)
	if !c.Gateway.IsValid() || !c.Gateway.Addr().Is4() || c.Gateway.Bits() > 30 || c.Gateway != c.Gateway.Masked() {
		return nil, fmt.Errorf("gateway block %s: it must be an IPv4 network of at least 4 addresses, such as 100.64.1.0/24", c.Gateway)
	}
	if !d.pool.IsValid() {
		d.pool = c.Gateway
	}
	if !d.pool.Contains(c.Gateway.Addr()) || d.pool.Bits() > c.Gateway.Bits() {
		return nil, fmt.Errorf("gateway block %s is not within the pool %s that it is cut from", c.Gateway, c.Pool)
	}
	errs := d.addPeers(c)
	if err := checkPrefix(d.prefix); err != nil {
		d.prefix, errs = netip.Prefix{}, append(errs, err)
	}
	if slices.Equal(d.blocks, before.blocks) {
		d.checked = before
	}
	owner := make(map[netip.Addr]string, len(c.Tasks))
	for _, t := range c.Tasks {
		if err := d.addTask(t, owner); err != nil {
			d.refused[t.ID] = true
			errs = append(errs, &TaskError{t.ID, err})
		}
	}
	for _, p := range c.Published {
		if err := d.addPort(p); err != nil {
			errs = append(errs, &PortError{p.Protocol, p.Port, err})
		}
	}
	return d, errors.Join(errs...)
}

// idMost is the longest ID, in bytes.
const idMost = 128

// isID tells whether a text is what an ID must look like, since it becomes a file's name and a link's alias. Every Apply asks this of each
// task.
func isID(text string) bool {
	for i, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return text != "" && len(text) <= idMost
}

func (d *desired) addTask(t TaskLink, owner map[netip.Addr]string) error {
	if !isID(t.ID) {
		return errors.New("its ID is no file name: letters, digits, dots, dashes and underscores, 128 at most")
	}
	if _, twice := d.tasks[t.ID]; twice {
		return errors.New("it is there twice")
	}
	if !d.block.Contains(t.Address) || t.Address == d.block.Addr() || t.Address == d.gateway() || t.Address == last(d.block) {
		return fmt.Errorf("address %s is not one for a task in the gateway block %s", t.Address, d.block)
	}
	if other, taken := owner[t.Address]; taken {
		return fmt.Errorf("address %s is that of task %s", t.Address, other)
	}
	for name := range t.Sysctls {
		if err := checkSysctl(name); err != nil {
			return err
		}
	}
	owner[t.Address] = t.ID
	d.tasks[t.ID] = t
	if t.Internal {
		d.internal[t.Address] = true
	}
	return nil
}

func (d *desired) addPort(p PublishedPort) error {
	protocol, ok := protocols[strings.ToLower(p.Protocol)]
	if !ok {
		return errors.New("its protocol must be tcp, udp or sctp")
	}
	if p.Port == 0 {
		return errors.New("port 0 cannot be published")
	}
	key := portKey{protocol, p.Port}
	for _, before := range []ports{d.ports, d.six.ports, d.draining} {
		if _, twice := before[key]; twice {
			return errors.New("it is there twice")
		}
	}
	if protocol == unix.IPPROTO_UDP && p.Port == d.guard.port {
		return errors.New("it is the port of the traffic between nodes")
	}
	if protocol == unix.IPPROTO_UDP && d.wires[p.Port] {
		return errors.New("it is the port of an encrypted network's traffic between nodes")
	}
	places, err := placesOf(p.Places)
	if err != nil {
		return err // which is nowhere, never everywhere
	}
	backends, err := d.backends(p.Backends, d.checked.ports[key])
	draining, drainErr := d.backends(p.Draining, d.checked.draining[key])
	d.answer(key, backends, places)
	draining = sieve(draining, nil, func(_ *netip.AddrPort, b netip.AddrPort) error {
		if _, both := slices.BinarySearchFunc(backends, b, netip.AddrPort.Compare); both {
			return errUnsaid
		}
		return nil
	})
	if len(draining) > 0 {
		d.draining[key] = draining
	}
	d.addTargets(uint8(protocol), backends)
	d.addTargets(uint8(protocol), draining)
	return errors.Join(err, drainErr)
}

// answer has a port lead to its backends at its places, of each IP version.
func (d *desired) answer(key portKey, backends []netip.AddrPort, places []Place) {
	if at, some := placesBy(0, places); some {
		d.publication.add(key, backends, at)
	}
	if !d.prefix.IsValid() {
		return
	}
	at, some := placesBy(1, places)
	if !some {
		return
	}
	if len(d.without) > 0 {
		backends = slices.DeleteFunc(slices.Clone(backends), func(b netip.AddrPort) bool {
			return within(d.without, b.Addr())
		})
	}
	d.six.add(key, backends, at)
}

// answers are the publication of an IP version.
func (d *desired) answers(v int) publication {
	if v == 1 {
		return d.six
	}
	return d.publication
}

// backends are those of a list that can be reached, in order, each once: the list itself where that is so, which the one that was checked
// is known to be. The error is of the others.
func (d *desired) backends(list, known []netip.AddrPort) ([]netip.AddrPort, error) {
	if len(list) == 0 || sameList(list, known) {
		return known[:len(list):len(list)], nil
	}
	var left problems
	list = sieve(ordered(list, netip.AddrPort.Compare), &left, func(before *netip.AddrPort, b netip.AddrPort) error {
		switch {
		case before != nil && *before == b:
			return errUnsaid
		case !b.IsValid() || !b.Addr().Is4() || b.Port() == 0:
			return fmt.Errorf("backend %s: it must be an IPv4 address and a port", b)
		case !d.reachable(b.Addr()):
			return fmt.Errorf("backend %s is in no known node's gateway block", b)
		}
		return nil
	})
	return list, left.error()
}

// last is the last address of a range: of a block, the broadcast address.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// linkName is the name of the router's end of the link of the task with this address.
func linkName(a netip.Addr) string { return fmt.Sprintf("t%x", a.As4()) }

// linkAddress is the inverse of linkName.
func linkAddress(name string) (netip.Addr, bool) {
	var b [4]byte
	if n, err := fmt.Sscanf(name, "t%02x%02x%02x%02x", &b[0], &b[1], &b[2], &b[3]); n != 4 || err != nil {
		return netip.Addr{}, false
	}
	a := netip.AddrFrom4(b)
	return a, linkName(a) == name
}

// taskMAC is the link address of a task, made from its address.
func taskMAC(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x54, b[0], b[1], b[2], b[3]}
}

// byPort orders ports.
func byPort(a, b portKey) int {
	return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port))
}
