package compose

import (
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// defaultNetwork is the key of the network of services that name none.
const defaultNetwork = "default"

// networkName is what a network is called.
func (c *converter) networkName(key string) string {
	n := c.project.Networks[key]
	switch {
	case n.Name != "":
		return n.Name
	case bool(n.External):
		return key
	}
	return c.scoped(key)
}

// networks makes those that services are on.
func (c *converter) networks() {
	for _, key := range slices.Sorted(maps.Keys(c.used)) {
		n := c.project.Networks[key]
		path := "networks." + key
		name := c.networkName(key)
		if bool(n.External) {
			if name == "host" || name == "bridge" || name == "none" {
				c.fail(path, "a task cannot be on the node's own network %q: publish ports with mode: host instead", name)
				continue
			}
			c.stack.External = append(c.stack.External, External{v1.KindNetwork, name, path})
			continue
		}
		out := &v1.Network{Spec: &v1.NetworkSpec{Driver: n.Driver, Options: n.DriverOpts, Attachable: n.Attachable, Internal: n.Internal,
			IPv6: n.EnableIPv6 != nil && *n.EnableIPv6}}
		out.Meta.Name, out.Meta.Labels = name, c.labels(n.Labels)
		if n.Driver != "" && n.Driver != "overlay" {
			c.fail(path+".driver", "%q is not supported: a swarm's networks span its nodes: leave it out, for overlay", n.Driver)
			continue
		}
		out.Spec.Subnets = c.subnets(path+".ipam", &n.Ipam)
		c.stack.Networks = append(c.stack.Networks, out)
	}
}

func (c *converter) subnets(path string, ipam *types.IPAMConfig) []v1.SubnetSpec {
	if ipam.Driver != "" && ipam.Driver != "default" {
		c.fail(path+".driver", "%q is not supported: the swarm gives addresses itself: leave it out", ipam.Driver)
	}
	var all []v1.SubnetSpec
	for _, pool := range ipam.Config {
		all = append(all, v1.SubnetSpec{Subnet: pool.Subnet, Gateway: pool.Gateway, IPRange: pool.IPRange})
	}
	return all
}
