package v1

import (
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The options of the overlay driver.
const (
	OptionEncrypted = "encrypted"
	OptionMTU       = "com.docker.network.driver.mtu"
	OptionVXLANIDs  = "com.docker.network.driver.overlay.vxlanid_list"
)

func (c *checker) network(field string, n *NetworkSpec) {
	c.size(field, n)
	choice(c, field+".driver", n.Driver, "overlay")
	c.ordinary(field, n)
	c.dictionary(field+".options", n.Options, "an option", maxOptions, MaxLabelKey, MaxString)
	for key, value := range n.Options {
		entry := field + ".options[" + strconv.Quote(cut(key)) + "]"
		switch key {
		case OptionEncrypted:
			if !slices.Contains([]string{"", "true", "false", "1", "0"}, strings.ToLower(value)) {
				c.fail(entry, "%q is not allowed: want the option without a value", cut(value))
			}
		case OptionMTU:
			least := 576
			if n.IPv6 {
				least = 1280 // RFC 8200
			}
			if mtu, err := strconv.Atoi(value); err != nil || mtu < least || mtu > 65535 {
				c.fail(entry, "%q is not an MTU: want %d to 65535", cut(value), least)
			}
		case OptionVXLANIDs:
			c.vxlanIDs(entry, value, n.Encrypted())
		default:
			c.fail(entry, "unknown option: want %s", oneOf([]string{OptionEncrypted, OptionMTU, OptionVXLANIDs}))
		}
	}
	if c.count(field+".subnets", len(n.Subnets), maxShort) {
		c.subnets(field+".subnets", n)
	}
}

func (c *checker) vxlanIDs(entry, list string, encrypted bool) {
	for id := range strings.SplitSeq(list, ",") {
		vni, err := strconv.Atoi(strings.TrimSpace(id))
		switch {
		case err != nil || vni <= GatewayVNI || vni >= 1<<24:
			c.fail(entry, "%q is not a VXLAN ID: want 2 to 16777215, with commas between", cut(id))
		case encrypted && (vni < FirstVNI || vni > LastEncryptedVNI):
			c.fail(entry, "%d cannot be an encrypted network's: want %d to %d, from which its UDP port follows", vni, FirstVNI, LastEncryptedVNI)
		}
	}
}

func (c *checker) subnets(field string, n *NetworkSpec) {
	var seen []netip.Prefix
	for i, s := range n.Subnets {
		entry := at(field, i)
		subnet, err := netip.ParsePrefix(s.Subnet)
		if err != nil || subnet.Addr().Is4In6() {
			c.fail(entry+".subnet", "%q is not a subnet: want one such as 10.1.0.0/24", cut(s.Subnet))
			continue
		}
		if subnet != subnet.Masked() {
			c.fail(entry+".subnet", "%s has bits beyond its mask: want %s", subnet, subnet.Masked())
		}
		if subnet.Addr().BitLen()-subnet.Bits() < 2 {
			c.fail(entry+".subnet", "%s has no room: want at least 4 addresses", subnet)
		}
		if subnet.Addr().Is6() && !n.IPv6 {
			c.fail(entry+".subnet", "%s is of IP version 6: set ipv6 too", subnet)
		}
		if j := slices.IndexFunc(seen, func(p netip.Prefix) bool { return p.Addr().Is4() == subnet.Addr().Is4() }); j >= 0 {
			c.fail(entry+".subnet", "%s is a second one of its IP version, beside %s: want one of each at most", subnet, seen[j])
		}
		seen = append(seen, subnet)
		c.within(entry, s, subnet)
	}
}

// within checks what is given beside a subnet against it.
func (c *checker) within(entry string, s SubnetSpec, subnet netip.Prefix) {
	if s.Gateway != "" {
		gateway, err := netip.ParseAddr(s.Gateway)
		switch {
		case err != nil || !subnet.Contains(gateway):
			c.fail(entry+".gateway", "%q is not an address of %s", cut(s.Gateway), subnet)
		case gateway == subnet.Masked().Addr():
			c.fail(entry+".gateway", "%s is the address of the subnet itself: want another of %s", gateway, subnet)
		case gateway.Is4() && !subnet.Contains(gateway.Next()):
			c.fail(entry+".gateway", "%s is the broadcast address: want another of %s", gateway, subnet)
		}
	}
	if s.IPRange != "" {
		p, err := netip.ParsePrefix(s.IPRange)
		switch {
		case err != nil || p.Bits() < subnet.Bits() || !subnet.Contains(p.Addr()):
			c.fail(entry+".ipRange", "%q is not a part of %s", cut(s.IPRange), subnet)
		case p != p.Masked():
			c.fail(entry+".ipRange", "%s has bits beyond its mask: want %s", p, p.Masked())
		case !hasRoom(s, subnet, p):
			c.fail(entry+".ipRange", "%s has no room: want an address in it that is not the subnet's own, its gateway's or for broadcast", p)
		}
	}
}

// hasRoom tells whether a range of a subnet has an address that can be given. At most three of a subnet cannot: its first, which is its own,
// the gateway's, and of IP version 4 the last, which is for broadcast.
func hasRoom(s SubnetSpec, subnet, within netip.Prefix) bool {
	own := subnet.Masked().Addr()
	gateway := own.Next()
	if s.Gateway != "" {
		gateway, _ = netip.ParseAddr(s.Gateway) // one that is none takes no address, and is refused itself
	}
	for a := within.Addr(); within.Contains(a); a = a.Next() {
		broadcast := a.Is4() && !subnet.Contains(a.Next())
		if a != own && a != gateway && !broadcast {
			return true
		}
	}
	return false
}

// templateAt is how an error of a template that cannot be read begins.
var templateAt = regexp.MustCompile(`^template: line:[0-9]+:`)

func (c *checker) secret(field string, s *SecretSpec) {
	if s.Driver != nil {
		c.driver(field+".driver", s.Driver)
		if s.Driver.Name == "" {
			c.fail(field+".driver.name", "is missing")
		}
		if len(s.Data) > 0 {
			c.fail(field+".data", "comes from the driver: want one or the other")
		}
	} else {
		c.data(field+".data", s.Data, MaxSecretSize)
	}
	c.templating(field+".templating", s.Templating)
	if s.Templating == nil {
		return
	}
	if err := CheckData(string(s.Data)); err != nil {
		why := err.Error()
		if at := templateAt.FindString(why); at != "" { // what follows may be of the secret
			why = at + " no Go template that can be read"
		}
		c.fail(field+".data", "cannot be expanded: %s", why)
	}
}

func (c *checker) config(field string, s *ConfigSpec) {
	c.data(field+".data", s.Data, MaxConfigSize)
	c.templating(field+".templating", s.Templating)
	if s.Templating == nil {
		return
	}
	if err := CheckData(string(s.Data)); err != nil {
		c.fail(field+".data", "cannot be expanded: %v", err)
	}
}

// data checks the size of a secret or config, of which the limit is no longer part.
func (c *checker) data(field string, data []byte, limit int) {
	if len(data) == 0 || len(data) >= limit {
		c.fail(field, "is %d bytes long: want 1 to %d", len(data), limit-1)
	}
}

func (c *checker) templating(field string, d *Driver) {
	if d == nil {
		return
	}
	choice(c, field+".name", d.Name, "golang")
	c.driver(field, d)
}

func (c *checker) volume(field string, v *VolumeSpec) {
	c.size(field, v)
	c.word(field+".driver", v.Driver)
	c.dictionary(field+".options", v.Options, "an option", maxOptions, MaxLabelKey, MaxString)
	c.localVolume(field+".options", v.Driver, v.Options)
}

// localVolume checks the options of a volume, where its driver is ours.
func (c *checker) localVolume(field, driver string, options map[string]string) {
	if driver != "" && driver != VolumeLocal {
		return
	}
	if err := CheckVolumeOptions(options); err != nil {
		c.fail(field, "%v: want none, or type and device with an optional o, as mount(8) has them", err)
	}
}

func (c *checker) node(field string, n *NodeSpec) {
	choice(c, field+".role", n.Role, RoleWorker, RoleManager)
	choice(c, field+".availability", n.Availability, AvailabilityActive, AvailabilityPause, AvailabilityDrain)
}

func (c *checker) cluster(field string, s *ClusterSpec) {
	if l := s.TaskHistoryLimit; l != nil && *l > MaxEntries {
		c.fail(field+".taskHistoryLimit", "%d is too many: want up to %d, or a negative number to keep all", *l, MaxEntries)
	}
	pool, err := netip.ParsePrefix(s.GatewayPool)
	if err != nil || !pool.Addr().Is4() || pool != pool.Masked() || pool.Bits() > 24 {
		c.fail(field+".gatewayPool", "%q is not a pool of /24 blocks: want a subnet of IP version 4 of /24 or larger, such as %s",
			cut(s.GatewayPool), DefaultGatewayPool)
	}
	c.clusterTimes(field, s)
	if m := s.Images; m != nil {
		if marks := m.OrDefault(); marks.High > 100 || marks.Low > marks.High {
			c.fail(field+".images", "high %d and low %d: want percent, high from 1 to 100 (which is never), and low not above it", marks.High, marks.Low)
		}
	}
	c.clusterNetwork(field, s)
	if c.count(field+".externalCAs", len(s.ExternalCAs), maxShort) {
		for i := range s.ExternalCAs {
			c.externalCA(at(field+".externalCAs", i), &s.ExternalCAs[i])
		}
	}
}

func (c *checker) clusterTimes(field string, s *ClusterSpec) {
	if p := s.HeartbeatPeriod; p != nil && (time.Duration(*p) < 100*time.Millisecond || time.Duration(*p) > 10*time.Minute) {
		c.fail(field+".heartbeatPeriod", "%s is out of range: want 100ms to 10m", p)
	}
	if e := s.NodeCertExpiry; e != nil && time.Duration(*e) < MinNodeCertExpiry {
		c.fail(field+".nodeCertExpiry", "%s is too short: minimum certificate expiry time is %s", e, MinNodeCertExpiry)
	}
	if n := s.Snapshots; n != nil {
		if n.Every != nil && *n.Every >= 0 && time.Duration(*n.Every) < time.Minute {
			c.fail(field+".snapshots.every", "%s is too often: want at least 1m, or a negative time for none", n.Every)
		}
		if n.Keep != nil && (*n.Keep < 1 || *n.Keep > 1000) {
			c.fail(field+".snapshots.keep", "%d: want 1 to 1000", *n.Keep)
		}
	}
}

func (c *checker) clusterNetwork(field string, s *ClusterSpec) {
	if c.count(field+".defaultAddrPool", len(s.DefaultAddrPool), maxShort) {
		for i, text := range s.DefaultAddrPool {
			pool, err := netip.ParsePrefix(text)
			if err != nil || pool != pool.Masked() {
				c.fail(at(field+".defaultAddrPool", i), "%q is not a subnet: want one such as %s", cut(text), DefaultAddrPool)
			} else if pool.Bits() > int(s.SubnetSize) {
				c.fail(at(field+".defaultAddrPool", i), "%s is smaller than a subnet of /%d", pool, s.SubnetSize)
			}
		}
	}
	if s.SubnetSize > 29 {
		c.fail(field+".subnetSize", "%d is too long a prefix: want at most 29", s.SubnetSize)
	}
	if p := s.DataPathPort; p != 0 && (p < 1024 || p > 49151) {
		c.fail(field+".dataPathPort", "%d is out of range: want 1024 to 49151", p)
	}
}

func (c *checker) externalCA(field string, e *ExternalCA) {
	choice(c, field+".protocol", e.Protocol, "cfssl")
	u, err := url.Parse(e.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		c.fail(field+".url", "%q is not the https:// URL of a signer", cut(e.URL))
	}
	c.dictionary(field+".options", e.Options, "an option", maxOptions, MaxLabelKey, MaxString)
}

func (c *checker) user(field string, u *UserSpec) {
	choice(c, field+".role", u.Role, UserView, UserOperate, UserAdmin)
	c.count(field+".tokens", len(u.Tokens), maxShort)
}
