package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// networkFlags are those of network create.
type networkFlags struct {
	set                        *pflag.FlagSet
	driver, scope              string
	subnets, ranges            *list[netip.Prefix]
	gateways                   *list[netip.Addr]
	attachable, internal, ipv6 bool
	options, labels            *list[string]
}

func (a *app) networkCreateCommand() *cobra.Command {
	var f *networkFlags
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Create a network",
		Long: `Create an overlay network: services on it reach each other by name, on whatever nodes their tasks run, and nobody else reaches them.

Without --subnet, the network gets one of the swarm's pool (--default-addr-pool of "swarmctl swarm init").`,
		Example: `  swarmctl network create backend
  swarmctl network create --subnet 10.5.0.0/16 --ip-range 10.5.1.0/24 --gateway 10.5.0.254 --opt encrypted backend`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := f.spec()
			if err != nil {
				return err
			}
			return a.createNetwork(cmd.Context(), args[0], toMap(f.labels.all), spec)
		},
	}
	f = addNetworkFlags(cmd)
	return cmd
}

func addNetworkFlags(cmd *cobra.Command) *networkFlags {
	s := cmd.Flags()
	f := &networkFlags{set: s,
		subnets: &list[netip.Prefix]{kind: "strings", parse: parsePrefixes}, ranges: &list[netip.Prefix]{kind: "strings", parse: parsePrefixes},
		gateways: &list[netip.Addr]{kind: "ipSlice", parse: parseAddresses},
		options:  newList("map", parseOption), labels: newList("list", parseLabel)}
	s.StringVarP(&f.driver, "driver", "d", "overlay", "Driver to manage the Network")
	s.StringVar(&f.scope, "scope", networkScope, "Control the network's scope")
	s.Var(f.subnets, "subnet", "Subnet in CIDR format that represents a network segment")
	s.Var(f.gateways, "gateway", "IPv4 or IPv6 Gateway for the subnet")
	s.Var(f.ranges, "ip-range", "Allocate container ip from a sub-range")
	s.BoolVar(&f.attachable, "attachable", false, "Enable manual container attachment")
	s.BoolVar(&f.internal, "internal", false, "Restrict external access to the network")
	s.BoolVar(&f.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	s.VarP(f.options, "opt", "o", "Set driver specific options (encrypted, com.docker.network.driver.mtu, com.docker.network.driver.overlay.vxlanid_list)")
	s.Var(f.labels, "label", "Set metadata on a network")
	// Known, and refused by name: see refused.
	s.Bool("ipv4", true, "Enable or disable IPv4 address assignment")
	s.Bool("ingress", false, "Create swarm routing-mesh network (not supported)")
	s.Bool("config-only", false, "Create a configuration only network (not supported)")
	s.String("config-from", "", "The network from which to copy the configuration (not supported)")
	s.Var(newStrings(), "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver (not supported)")
	s.String("ipam-driver", "default", "IP Address Management Driver")
	s.Var(newStrings(), "ipam-opt", "Set IPAM driver specific options (not supported)")
	_ = cmd.RegisterFlagCompletionFunc("driver", cobra.FixedCompletions([]string{"overlay"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("opt", cobra.FixedCompletions([]string{v1.OptionEncrypted, v1.OptionMTU + "=", v1.OptionVXLANIDs + "="},
		cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	return f
}

// refused says which of the flags given cannot be honoured, and what to do instead.
func (f *networkFlags) refused() error {
	switch {
	case f.driver == "bridge":
		return errors.New("--driver bridge: a bridge is on one machine alone, and a swarm's networks span its nodes: leave --driver out, for overlay")
	case f.driver != "overlay":
		return fmt.Errorf("--driver %s: not supported: want overlay", f.driver)
	case f.scope != networkScope:
		return fmt.Errorf("--scope %s: not supported: want %s", f.scope, networkScope)
	}
	if v4, _ := f.set.GetBool("ipv4"); !v4 {
		return errors.New("--ipv4=false: networks without IPv4 are not supported yet")
	}
	if ingress, _ := f.set.GetBool("ingress"); ingress {
		return errors.New("--ingress: not supported: published ports use the gateway network, whose addresses are chosen when the swarm is made: " +
			"swarmctl swarm init --gateway-pool")
	}
	if only, _ := f.set.GetBool("config-only"); only {
		return errors.New("--config-only: not supported: keep the network's manifest in a file, and apply it")
	}
	if driver, _ := f.set.GetString("ipam-driver"); driver != "default" {
		return fmt.Errorf("--ipam-driver %s: not supported: the swarm gives addresses itself", driver)
	}
	for _, flag := range []struct{ name, instead string }{
		{"config-from", "keep the network's manifest in a file, and apply it"},
		{"aux-address", "choose an --ip-range without the addresses that are taken"},
		{"ipam-opt", "the swarm gives addresses itself"},
	} {
		if f.set.Changed(flag.name) {
			return fmt.Errorf("--%s: not supported: %s", flag.name, flag.instead)
		}
	}
	return nil
}

// spec is what the flags ask for.
func (f *networkFlags) spec() (*v1.NetworkSpec, error) {
	if err := f.refused(); err != nil {
		return nil, err
	}
	subnets, err := f.matched()
	if err != nil {
		return nil, err
	}
	return &v1.NetworkSpec{Driver: f.driver, Options: toMap(f.options.all), Attachable: f.attachable, Internal: f.internal, IPv6: f.ipv6,
		Subnets: subnets}, nil
}

// matched puts each range and gateway to the subnet that it is in, with Docker's errors.
func (f *networkFlags) matched() ([]v1.SubnetSpec, error) {
	if n := len(f.subnets.all); n < len(f.ranges.all) || n < len(f.gateways.all) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	var specs []v1.SubnetSpec
	for i, s := range f.subnets.all {
		if slices.ContainsFunc(f.subnets.all[:i], s.Overlaps) {
			return nil, errors.New("multiple overlapping subnet configuration is not supported")
		}
		specs = append(specs, v1.SubnetSpec{Subnet: s.String()})
	}
	of := func(a netip.Addr) *v1.SubnetSpec {
		for i, s := range f.subnets.all {
			if s.Contains(a) {
				return &specs[i]
			}
		}
		return nil
	}
	for _, r := range f.ranges.all {
		switch s := of(r.Addr()); {
		case s == nil:
			return nil, fmt.Errorf("no matching subnet for range %s", r)
		case s.IPRange != "":
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, s.IPRange, s.Subnet)
		default:
			s.IPRange = r.String()
		}
	}
	for _, g := range f.gateways.all {
		switch s := of(g); {
		case s == nil:
			return nil, fmt.Errorf("no matching subnet for gateway %s", g)
		case s.Gateway != "":
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, s.Gateway, s.Subnet)
		default:
			s.Gateway = g.String()
		}
	}
	return specs, nil
}

func (a *app) createNetwork(ctx context.Context, name string, labels map[string]string, spec *v1.NetworkSpec) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	n := &v1.Network{Spec: spec}
	n.Meta.Name, n.Meta.Labels = name, labels
	created, warnings, err := client.Create(ctx, c, v1.Networks, n)
	if err != nil {
		return daemonError(err)
	}
	a.warn(warnings)
	a.printf("%s\n", created.Meta.ID)
	return nil
}

// parsePrefixes reads subnets, separated by commas.
func parsePrefixes(text string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for part := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("invalid CIDR address: %s", strings.TrimSpace(part))
		}
		all = append(all, p)
	}
	return all, nil
}

// parseAddresses reads addresses, separated by commas.
func parseAddresses(text string) ([]netip.Addr, error) {
	var all []netip.Addr
	for part := range strings.SplitSeq(text, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("invalid string being converted to IP address: %s", strings.TrimSpace(part))
		}
		all = append(all, a.Unmap())
	}
	return all, nil
}

// parseOption reads key=value, or a key alone.
func parseOption(text string) (string, error) {
	if key, _, _ := strings.Cut(text, "="); strings.TrimSpace(key) == "" {
		return "", fmt.Errorf("invalid option %q: want NAME or NAME=VALUE", text)
	}
	return text, nil
}
