package netplugin

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// kernelTunnel is the kernel's own WireGuard device in a router.
type kernelTunnel struct{ space *namespace }

// addKernelTunnel makes the device, and tells whether the kernel has any.
func (l *Linux) addKernelTunnel(o *overlay) (there bool, err error) {
	if l.processes {
		return false, nil
	}
	one := &netlink.Wireguard{LinkAttrs: netlink.NewLinkAttrs()}
	one.Name, one.Namespace = overlayLink, netlink.NsFd(o.space.fd)
	err = l.host.LinkAdd(one) // its socket stays where it was asked for
	if errors.Is(err, unix.EOPNOTSUPP) {
		l.log.Info("the kernel has no WireGuard: encrypted networks are encrypted by processes")
		l.processes = true
		return false, nil
	}
	return err == nil, err
}

// change implements tunnel.
func (k kernelTunnel) change(c wgtypes.Config) error {
	return k.within(func(w *wgctrl.Client) error { return w.ConfigureDevice(overlayLink, c) })
}

// read implements tunnel.
func (k kernelTunnel) read() (have *wires, err error) {
	err = k.within(func(w *wgctrl.Client) error {
		d, err := w.Device(overlayLink)
		if err == nil {
			have = wiresFrom(d)
		}
		return err
	})
	return have, err
}

func (k kernelTunnel) within(do func(*wgctrl.Client) error) error {
	return k.space.within(func() (err error) {
		w, err := wgctrl.New()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.Close()) }()
		return do(w)
	})
}

func wiresFrom(d *wgtypes.Device) *wires {
	have := &wires{private: d.PrivateKey, self: d.PublicKey, port: uint16(d.ListenPort), peers: map[wgtypes.Key]wirePeer{}, owner: map[netip.Prefix]wgtypes.Key{}}
	for _, p := range d.Peers {
		one := wirePeer{shared: p.PresharedKey, met: p.LastHandshakeTime, heard: p.ReceiveBytes}
		if p.Endpoint != nil {
			at := p.Endpoint.AddrPort()
			one.at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
		}
		have.peers[p.PublicKey] = one
		for _, a := range p.AllowedIPs {
			have.owner[prefixOf(&net.IPNet{IP: a.IP, Mask: a.Mask})] = p.PublicKey
		}
	}
	return have
}
