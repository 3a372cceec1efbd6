package cli

import (
	"cmp"
	"maps"
	"net/netip"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// networkScope is the scope of every network here, in Docker's word.
const networkScope = "swarm"

// convertNetwork is a network as docker network inspect prints it.
func convertNetwork(n *v1.Network) *dockerNetworkResource {
	spec := v1.NetworkSpec{}
	if n.Spec != nil {
		spec = *n.Spec
	}
	d := &dockerNetworkResource{
		Name: n.Meta.Name, ID: n.Meta.ID, Created: n.Meta.CreatedAt, Scope: networkScope, Driver: cmp.Or(spec.Driver, "overlay"),
		EnableIPv4: true, EnableIPv6: spec.IPv6, IPAM: dockerIPAM{Driver: "default", Config: []dockerIPAMConfig{}},
		Internal: spec.Internal, Attachable: spec.Attachable, Ingress: spec.Ingress,
		Options: networkOptions(n), Labels: annotations(&n.Meta).Labels,
	}
	for _, s := range subnetsOf(n) {
		d.IPAM.Config = append(d.IPAM.Config, dockerIPAMConfig{s.Subnet, s.IPRange, s.Gateway})
	}
	if n.Desired != nil {
		d.Problem = n.Desired.Problem
	}
	return d
}

// subnetsOf are a network's: those that were decided on, and before that those that were asked for.
func subnetsOf(n *v1.Network) []v1.SubnetSpec {
	switch {
	case n.Desired != nil && len(n.Desired.Subnets) > 0:
		return n.Desired.Subnets
	case n.Spec != nil:
		return n.Spec.Subnets
	}
	return nil
}

// networkOptions are the driver's, with the VNI where Docker has it.
func networkOptions(n *v1.Network) map[string]string {
	options := make(map[string]string)
	if n.Spec != nil {
		maps.Copy(options, n.Spec.Options)
	}
	if n.Desired != nil && n.Desired.VNI != 0 {
		options[v1.OptionVXLANIDs] = strconv.FormatUint(uint64(n.Desired.VNI), 10)
	}
	return options
}

// convertAttachment is a network that a task is on, nil where that is not known any more.
func convertAttachment(address v1.NetworkAddress, n *v1.Network) dockerAttachment {
	d := dockerAttachment{Network: dockerTaskNetwork{ID: address.Network}, Addresses: address.Addresses}
	if n == nil {
		return d
	}
	d.Network.dockerMeta = convertMeta(&n.Meta)
	d.Network.DriverState = dockerDriver{Name: "overlay", Options: networkOptions(n)}
	d.Network.IPAMOptions = &dockerIPAMOptions{dockerDriver{Name: "default"}, convertSubnets(subnetsOf(n))}
	d.Network.Spec = dockerNetworkSpec{dockerAnnotations: annotations(&n.Meta), Scope: networkScope}
	if s := n.Spec; s != nil {
		d.Network.Spec.DriverConfiguration = &dockerDriver{s.Driver, s.Options}
		d.Network.Spec.IPv6Enabled, d.Network.Spec.Internal, d.Network.Spec.Attachable = s.IPv6, s.Internal, s.Attachable
		d.Network.Spec.IPAMOptions = &dockerIPAMOptions{Configs: convertSubnets(s.Subnets)}
	}
	return d
}

func convertSubnets(subnets []v1.SubnetSpec) []dockerSubnetSpec {
	var all []dockerSubnetSpec
	for _, s := range subnets {
		all = append(all, dockerSubnetSpec{s.Subnet, s.IPRange, s.Gateway})
	}
	return all
}

// addressesOn are the addresses on one network of those on several.
func addressesOn(network string, all []v1.NetworkAddress) []string {
	for _, a := range all {
		if a.Network == network {
			return a.Addresses
		}
	}
	return nil
}

// bare is an address without its subnet's length.
func bare(address string) string {
	if p, err := netip.ParsePrefix(address); err == nil {
		return p.Addr().String()
	}
	return address
}
