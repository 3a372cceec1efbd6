package netplugin

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// The link of an encrypted network to other nodes is a WireGuard device in the network's router, in the place where others have a
// VXLAN link. Its packets to other nodes leave from, and come to, the machine's own namespace. Where it is not there, or does not know
// a node, nothing is sent: a router has no other way to another node.

// tunnel is such a device: the kernel's, or one of a process of ours.
type tunnel interface {
	// read is how it is set.
	read() (*wires, error)
	// change changes it, in the order of the Config.
	change(c wgtypes.Config) error
}

// wires are how a device is set.
type wires struct {
	private wgtypes.Key
	self    wgtypes.Key // its public half
	port    uint16
	peers   map[wgtypes.Key]wirePeer
	owner   map[netip.Prefix]wgtypes.Key // of the addresses that lead to peers, and come from them alone
}

// wirePeer is another node, as a device knows it.
type wirePeer struct {
	shared wgtypes.Key
	at     netip.AddrPort
	met    time.Time // of the latest handshake, as far as was read; zero for none
	heard  int64     // how many bytes came from it that it has made
}

// The ports of encrypted networks follow from their VNIs, which no two networks share. They are beyond those that the kernel gives to
// programs, and those that the swarm publishes.
const (
	firstWireVNI  = 4096
	firstWirePort = 61000
	lastWireVNI   = firstWireVNI + 65535 - firstWirePort
)

// wirePort is the UDP port of an encrypted network.
func wirePort(vni uint32) (uint16, error) {
	if vni < firstWireVNI || vni > lastWireVNI {
		return 0, fmt.Errorf("VNI %d of an encrypted network is not between %d and %d", vni, firstWireVNI, lastWireVNI)
	}
	return uint16(firstWirePort + vni - firstWireVNI), nil
}

// wireOverhead is what WireGuard adds to a packet: the outer IP and UDP headers, and its own with the tag at the end.
func (u underlay) wireOverhead() int {
	if u.addr.Is6() {
		return 40 + 8 + 32
	}
	return 20 + 8 + 32
}

// wireMTU is how large a packet may be that goes to another node encrypted: packets are filled up to a multiple of 16 bytes.
func (l *Linux) wireMTU() int {
	return (l.tunnelMTU + l.underlay.overhead() - l.underlay.wireOverhead()) &^ 15
}

// wiresOf are how the device of an encrypted network should be set.
func (l *Linux) wiresOf(w *wanted, s shape) (*wires, error) {
	port, err := wirePort(s.vni)
	if err != nil {
		return nil, err
	}
	keys, own, err := l.keys.current(time.Now())
	if err != nil {
		return nil, err
	}
	want := &wires{private: wgtypes.Key(keys.Lasting), self: own.lasting(), port: port, peers: map[wgtypes.Key]wirePeer{}, owner: map[netip.Prefix]wgtypes.Key{}}
	known := map[uint32]wgtypes.Key{}
	for _, v := range w.vteps {
		shared, err := keys.shared(own, v.key, s.vni)
		if err != nil {
			return nil, fmt.Errorf("the key of node %d: %w", v.node, err)
		}
		known[v.node] = v.key.lasting()
		want.peers[v.key.lasting()] = wirePeer{shared: shared, at: netip.AddrPortFrom(v.addr, port)}
	}
	for _, r := range w.remote {
		want.owner[host(r.Address)] = known[r.Node]
	}
	return want, nil
}

// gain is what adds to a device what it has not: nodes, and addresses, which leave the node that had them.
func (have *wires) gain(want *wires) (list []wgtypes.PeerConfig) {
	add := map[wgtypes.Key][]net.IPNet{}
	for p, k := range want.owner {
		if have.owner[p] != k {
			add[k] = append(add[k], *ipNet(p))
		}
	}
	for k, p := range want.peers {
		c := wgtypes.PeerConfig{PublicKey: k, AllowedIPs: add[k]}
		old, there := have.peers[k]
		if !there || old.shared != p.shared {
			c.PresharedKey = &p.shared
		}
		if !there || old.at != p.at {
			c.Endpoint = net.UDPAddrFromAddrPort(p.at)
		}
		if !there && want.first(k) {
			c.PersistentKeepaliveInterval = &keepalive
		}
		if len(c.AllowedIPs) > 0 || c.PresharedKey != nil || c.Endpoint != nil {
			list = append(list, c)
		}
	}
	return list
}

// lose is what removes from a device what it should not have. A single address is taken from a node by giving it to one that is
// nobody, and goes with that: the others of the node are not touched.
func (have *wires) lose(want *wires) (list []wgtypes.PeerConfig, err error) {
	for k := range have.peers {
		if _, stays := want.peers[k]; !stays {
			list = append(list, wgtypes.PeerConfig{PublicKey: k, Remove: true})
		}
	}
	var stale []net.IPNet
	for p, k := range have.owner {
		_, wanted := want.owner[p]
		if _, stays := want.peers[k]; stays && !wanted {
			stale = append(stale, *ipNet(p))
		}
	}
	if len(stale) == 0 {
		return list, nil
	}
	nobody, err := wgtypes.GenerateKey()
	if err != nil {
		return nil, err
	}
	return append(list, wgtypes.PeerConfig{PublicKey: nobody, AllowedIPs: stale}, wgtypes.PeerConfig{PublicKey: nobody, Remove: true}), nil
}

// addWires has the device of an overlay know what is new, beside what is old. It was made once more just now, or not.
func (l *Linux) addWires(o *overlay, want *wires, again bool) error {
	if list := o.wires.gain(want); len(list) > 0 {
		if err := o.tunnel.change(wgtypes.Config{Peers: list}); err != nil {
			return fmt.Errorf("change the nodes of link %s in %s: %w", overlayLink, o.space.name, err)
		}
	}
	fresh := map[wgtypes.Key]int64{}
	for k := range want.peers {
		if _, there := o.wires.peers[k]; !there {
			fresh[k] = 0
		}
	}
	l.greetLater(o, 0, again, fresh)
	maps.Copy(o.wires.peers, want.peers)
	maps.Copy(o.wires.owner, want.owner)
	return nil
}

// dropWires has it forget what is old.
func (o *overlay) dropWires(want *wires) error {
	list, err := o.wires.lose(want)
	if err == nil && len(list) > 0 {
		err = o.tunnel.change(wgtypes.Config{Peers: list})
	}
	if err != nil {
		return fmt.Errorf("change the nodes of link %s in %s: %w", overlayLink, o.space.name, err)
	}
	o.wires = want
	return nil
}

// ensureTunnel makes the link of an encrypted network to other nodes, or adopts the one that is there, and has it know the nodes that
// it should, beside those that it knows. While nothing leads to it, nothing is sent.
func (l *Linux) ensureTunnel(o *overlay, w *wanted, s shape) error {
	want, err := l.wiresOf(w, s)
	if err != nil {
		return err
	}
	had := o.tunnel != nil
	link, err := l.adoptTunnel(o, want)
	again := link == nil && (had || l.last == nil && l.keys.older())
	if err == nil && link == nil {
		link, err = l.makeTunnel(o, want)
	}
	if err != nil {
		return err
	}
	if err := l.addWires(o, want, again); err != nil {
		return err
	}
	o.vx = link
	err = o.space.syncLink(link, link.Attrs().HardwareAddr, s.mtu)
	if errors.Is(err, unix.EADDRINUSE) {
		return portTaken(want.port)
	}
	return err
}

// portTaken is why an encrypted network cannot be made whose port somebody else has.
func portTaken(port uint16) error {
	return fmt.Errorf("UDP port %d is another program's: end that, or make the network with another VNI (--opt com.docker.network.driver.overlay.vxlanid_list)", port)
}

// adoptTunnel takes over the link that is there, if it is one and works. Else there is none afterwards.
func (l *Linux) adoptTunnel(o *overlay, want *wires) (netlink.Link, error) {
	o.tunnel, o.wires = nil, nil
	link, err := o.space.LinkByName(overlayLink)
	var none netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &none) {
		return nil, fmt.Errorf("find link %s in %s: %w", overlayLink, o.space.name, err)
	}
	if err == nil {
		switch link.(type) {
		case *netlink.Wireguard:
			o.tunnel = kernelTunnel{o.space}
		case *netlink.Tuntap:
			o.tunnel = l.process(o.id)
		}
	}
	if o.tunnel != nil {
		have, err := o.readTunnel()
		if err == nil && have.port == want.port && have.private == want.private {
			o.wires = have
			return link, nil
		}
		l.log.Warn("the link of an encrypted network is not as it should be and is made anew", "network", o.id, "err", err)
	}
	if err := l.process(o.id).end(); err != nil { // which has its port for some time after its link is gone
		return nil, err
	}
	if err == nil {
		if err := o.space.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return nil, fmt.Errorf("remove link %s in %s, which is not as it should be: %w", overlayLink, o.space.name, err)
		}
	}
	return nil, nil
}

// readTunnel is how the device is set, if that was not read just now.
func (o *overlay) readTunnel() (*wires, error) {
	if o.device != nil {
		return o.device.wires, o.device.err
	}
	return o.tunnel.read()
}

// makeTunnel makes a link with no node: the kernel's, or where the kernel has none, that of a process.
func (l *Linux) makeTunnel(o *overlay, want *wires) (netlink.Link, error) {
	kernel, err := l.addKernelTunnel(o)
	if err == nil && !kernel {
		err = l.startProcess(o, want.port)
	}
	if err != nil {
		return nil, fmt.Errorf("make link %s in %s: %w", overlayLink, o.space.name, err)
	}
	if o.tunnel = tunnel(l.process(o.id)); kernel {
		o.tunnel = kernelTunnel{o.space}
	}
	port := int(want.port)
	c := wgtypes.Config{PrivateKey: &want.private}
	if kernel {
		c.ListenPort = &port // a process has it already
	}
	if err := o.tunnel.change(c); err != nil {
		return nil, fmt.Errorf("set link %s in %s: %w", overlayLink, o.space.name, err)
	}
	o.wires = &wires{private: want.private, self: want.self, port: want.port, peers: map[wgtypes.Key]wirePeer{}, owner: map[netip.Prefix]wgtypes.Key{}}
	link, err := o.space.LinkByName(overlayLink)
	if err != nil {
		return nil, fmt.Errorf("find link %s in %s: %w", overlayLink, o.space.name, err)
	}
	return link, nil
}

// changeWires opens the data port's filter for the ports of encrypted networks: all of known nodes, and of nobody else.
func (l *Linux) changeWires(want map[uint16]bool) error {
	if !l.have.guard.up() || maps.Equal(l.have.wires, want) {
		return nil
	}
	c, err := l.host.firewall()
	if err != nil {
		return err
	}
	t := &transaction{Conn: c, table: dataTable()}
	t.members(wireSet(t.table), portKeys(l.have.wires), portKeys(want))
	if err := t.commit(); err != nil {
		return fmt.Errorf("change the ports of encrypted networks in table %s of family inet of %s: %w", tableName, l.host.name, err)
	}
	l.have.wires = want
	return nil
}

// addWirePorts finds the ports of encrypted networks.
func (d *desired) addWirePorts(c Config) {
	for _, o := range c.Overlays {
		if o != nil && o.Encrypted {
			if port, err := wirePort(o.VNI); err == nil {
				d.wires[port] = true
			}
		}
	}
}

// strayRoutes are warnings about nodes to which this machine would send by an address that is not the one that they know, so that they
// take in nothing. VXLAN says which address to send from; WireGuard leaves it to the routes.
func (l *Linux) strayRoutes(want *desired) (warnings []string) {
	if len(want.wires) == 0 || !want.underlay.usable() {
		return nil
	}
	for a := range want.underlays {
		routes, err := l.host.RouteGet(a.AsSlice())
		if err != nil || len(routes) == 0 || routes[0].Src == nil {
			continue
		}
		if from := addrOf(routes[0].Src); from != want.underlay.addr {
			warnings = append(warnings, fmt.Sprintf("packets of encrypted networks to %s leave with the address %s, and the other nodes know this one by %s and drop them: join with --data-path-addr %s, or change the route", a, from, want.underlay.addr, from))
		}
	}
	slices.Sort(warnings)
	return warnings
}
