package v1

import (
	"net/netip"
	"slices"
)

// predefinedNetworks are the names that Docker's own networks have. Here they are nobody's: a network of such a name would be taken
// for something else.
var predefinedNetworks = []string{"bridge", "docker_gwbridge", "host", "ingress", "none"}

// insteadOf says what to do instead of attaching a service to one of those.
var insteadOf = map[string]string{
	"bridge":          "every task has a way out without it",
	"docker_gwbridge": "every task has a way out without it",
	"host":            "for a port of the machine itself, publish it in mode host",
	"ingress":         "publish a port instead",
	"none":            "leave networks out, or name overlay networks",
}

// ordinary refuses networks that are not for services to be on: the one of published ports, and those of which no host can have an
// address.
func (c *checker) ordinary(field string, n *NetworkSpec) {
	if n.Ingress {
		c.fail(field+".ingress", "is not supported: published ports use the gateway network, whose addresses are chosen when the swarm is made: "+
			"swarmctl swarm init --gateway-pool")
	}
	for i, s := range n.Subnets[:min(len(n.Subnets), maxShort)] {
		p, err := netip.ParsePrefix(s.Subnet)
		if err == nil && slices.ContainsFunc(noHosts, p.Overlaps) {
			c.fail(at(field+".subnets", i)+".subnet", "%s has addresses that are not for hosts: want one such as 10.1.0.0/24", p)
		}
	}
}

// noHosts are addresses of this network, of loopback, of one link (names are answered on one), of groups, and reserved ones.
var noHosts = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"), netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

func (c *checker) attachment(field string, a *AttachmentSpec) {
	if a.Node == "" {
		c.fail(field+".node", "is missing: want the ID or the host name of the node that the namespace is on")
	}
	c.word(field+".node", a.Node)
	c.absolute(field+".namespace", a.Namespace)
	if len(a.Networks) == 0 {
		c.fail(field+".networks", "is empty: want the ID or the name of an attachable network")
	}
	if c.count(field+".networks", len(a.Networks), maxAttached) {
		for i, network := range a.Networks {
			c.word(at(field+".networks", i), network)
			if slices.Contains(a.Networks[:i], network) {
				c.fail(at(field+".networks", i), "%q is there twice: once is enough", cut(network))
			}
		}
	}
	if c.count(field+".aliases", len(a.Aliases), maxAttached) {
		for i, alias := range a.Aliases {
			if !isHostname(alias) {
				c.fail(at(field+".aliases", i), "%q is not a host name", cut(alias))
			}
		}
	}
}
