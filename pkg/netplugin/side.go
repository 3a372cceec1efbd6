package netplugin

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Each gateway address has one of IPv6 beside it, which is the swarm's prefix and the address itself: what is known of the one is known
// of the other, and nobody has to give, keep or tell a second one. The addresses between a machine and its router, which never leave
// it, have theirs in the same way.

// prefixBits is the length of the swarm's prefix: the address fills the rest.
const prefixBits = 96

// sixth is the IPv6 address that goes with a gateway address.
func (b base) sixth(a netip.Addr) netip.Addr {
	all, last := b.prefix.Addr().As16(), a.As4()
	copy(all[prefixBits/8:], last[:])
	return netip.AddrFrom16(all)
}

// side is what one IP version has of a machine's part of the gateway network.
type side struct {
	overlayFamily
	base        base
	v           int
	block, pool netip.Prefix
	loopback    netip.Prefix
	gateway     netip.Addr // the router's own address
	face        netip.Addr // by which containers see the machine itself
	// kept has the machine forward only what is ours: it forwards nothing else of this version.
	kept bool
	// unlimited has no task's questions for names bounded: the kernel cannot.
	unlimited bool
}

func (b base) side(v int) side {
	s := side{overlayFamily: overlayFamilies[v], base: b, v: v, loopback: loopbacks[v]}
	if !b.block.IsValid() {
		return s // of nothing yet, or no more: what does not depend on addresses
	}
	s.gateway, s.face = s.of(b.gateway()), b.face(v)
	s.block, s.pool = s.ofPrefix(b.block), s.ofPrefix(b.pool.Masked())
	return s
}

var loopbacks = [2]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// of is the side's address of a gateway address.
func (s side) of(a netip.Addr) netip.Addr {
	if s.v == 0 {
		return a
	}
	return s.base.sixth(a)
}

func (s side) ofPrefix(p netip.Prefix) netip.Prefix {
	if s.v == 0 || !p.IsValid() {
		return p
	}
	return netip.PrefixFrom(s.base.sixth(p.Addr()), prefixBits+p.Bits())
}

// gatewayOf is the inverse of of.
func (s side) gatewayOf(a netip.Addr) (netip.Addr, bool) {
	if s.v == 0 {
		return a, a.Is4()
	}
	all := a.As16()
	four := netip.AddrFrom4([4]byte(all[prefixBits/8:]))
	return four, s.base.sixth(four) == a
}

// swarm are the gateway addresses that this machine has to do with.
func (s side) swarm() netip.Prefix { return s.ofPrefix(s.base.swarm()) }

func (s side) family() int { return family(s.v) }

// anywhere are all addresses of the version.
func (s side) anywhere() netip.Prefix {
	if s.v == 1 {
		return anywhere6
	}
	return anywhere
}

// keys are addresses as elements of a set.
func (s side) keys(all map[netip.Addr]bool) map[string]bool {
	keys := map[string]bool{}
	for a := range all {
		keys[string(s.of(a).AsSlice())] = true
	}
	return keys
}

// routerSides are those that the router and the tasks have.
func (l *Linux) routerSides(b base) []side {
	if !l.six {
		return []side{b.side(0)}
	}
	return []side{b.side(0), b.side(1)}
}

// hostSides are those that the machine itself has: where its IPv6 is switched off, other nodes' clients still reach its tasks by it.
func (l *Linux) hostSides(b base) []side {
	all := l.routerSides(b)
	all[0].unlimited = kernelLimits() != nil
	if !l.hostSix {
		return all[:1]
	}
	all[1].kept = l.kept
	return all
}

// checkPrefix refuses what cannot be the swarm's.
func checkPrefix(p netip.Prefix) error {
	if p == (netip.Prefix{}) || p.Addr().Is6() && !p.Addr().Is4In6() && p.Bits() == prefixBits && p == p.Masked() {
		return nil
	}
	return fmt.Errorf("prefix %s of gateway addresses of IPv6: it must be a /%d such as fd12:3456:789a::/%d", p, prefixBits, prefixBits)
}

// weighSides finds which sides the machine can have. IPv6 needs a kernel with all parts of it, and links that are wide enough.
func (l *Linux) weighSides(b base) error {
	if err := kernelLimits(); err != nil {
		l.log.Warn("one task's questions may keep names from the others", "err", err)
	}
	l.six = b.prefix.IsValid() && l.taskMTU >= leastMTU6
	if l.six {
		if err := kernelSix(); err != nil {
			l.six = false
			l.log.Info("published ports have no IPv6 here", "err", err)
		}
	}
	l.noSix.Store(!l.six)
	l.hostSix = false
	if !l.six {
		return nil
	}
	return l.host.within(func() error {
		off, err := getSysctl("net.ipv6.conf.all.disable_ipv6")
		l.hostSix = err == nil && off == "0"
		l.weighForward()
		return nil
	})
}

// kernelSix tries, in a namespace of its own and once, whether the kernel takes the rules of IPv6.
var kernelSix = sync.OnceValue(func() error {
	n := &namespace{name: "a trial"}
	return onThread(func() error {
		if _, err := getSysctl("net.ipv6.conf.all.forwarding"); err != nil {
			return fmt.Errorf("this kernel has no IPv6: %w", err)
		}
		if err := n.unshare(); err != nil {
			return err
		}
		defer n.close()
		c, err := n.firewall()
		if err != nil {
			return err
		}
		trial := base{block: netip.MustParsePrefix("192.0.2.0/24"), prefix: netip.MustParsePrefix("fd00::/96")}
		trial.pool, trial.wire = trial.block, underlay{addr: netip.IPv6LinkLocalAllNodes()}
		s := trial.side(1)
		for _, chains := range [][]chain{hostChains(s), routerChains(s)} {
			t := s.newTransaction(c)
			t.replaceTable(append(t.maps, internalSet(t.table, s), sealedSet(t.table, s), targetSet(t.table, s)), chains)
			if err := t.commit(); err != nil {
				return fmt.Errorf("this kernel lacks parts of nftables for IPv6: %w", err)
			}
		}
		return nil
	})
})

// IPv6 tells whether this machine's tasks have IPv6 gateway addresses, or are to have once there is a Config with a prefix. It may be
// called at any time.
func (l *Linux) IPv6() bool { return !l.noSix.Load() && kernelSix() == nil }

// newTransaction queues changes of the side's table in one namespace.
func (s side) newTransaction(c *nftables.Conn) *transaction {
	t := &nftables.Table{Name: tableName, Family: s.table}
	return &transaction{Conn: c, table: t, side: s, maps: s.hostMaps(t)}
}

// sixSettings are those of a link that has the addresses it is given and makes none of its own.
func sixSettings(link string) []setting {
	name := "net.ipv6.conf." + link
	return []setting{
		{name: name + ".addr_gen_mode", value: "1"},
		{name: name + ".accept_ra", value: "0"},
		{name: name + ".disable_ipv6", value: "0"},
	}
}

// noSixSettings are those of a link without IPv6.
func noSixSettings(link string) []setting {
	return []setting{{name: "net.ipv6.conf." + link + ".disable_ipv6", value: "1", optional: true}}
}

// linkSettings are those of a link of the router's, or of the machine's to it.
func linkSettings(link string, six bool) []setting {
	if six {
		return sixSettings(link)
	}
	return noSixSettings(link)
}

// sides are those of the router that a task has: one that was told to be without IPv6 is.
func (t TaskLink) sides(all []side) []side {
	if t.guest() {
		return all[:1]
	}
	for _, of := range []string{"all", taskLink} {
		if t.Sysctls["net.ipv6.conf."+of+".disable_ipv6"] == "1" {
			return all[:1]
		}
	}
	return all
}

// icmp is the number of the version's ICMP.
func (s side) icmp() byte {
	if s.v == 1 {
		return unix.IPPROTO_ICMPV6
	}
	return unix.IPPROTO_ICMP
}
