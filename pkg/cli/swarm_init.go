package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// initFlags are those of swarm init.
type initFlags struct {
	request   v1.InitRequest
	addresses addressFlags
	settings  settingsFlags
	pools     *list[string]
	mask      uint32
	gateways  string
}

func (a *app) swarmInitCommand() *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use:   "init [OPTIONS]",
		Short: "Initialize a swarm",
		Long: `Make this daemon's machine the first manager of a new swarm.

With --force-new-cluster, a manager that has lost the majority of the others goes on alone, with all of the swarm's state: the other managers
have to leave and join anew, the workers come back on their own.`,
		Example: `  swarmctl swarm init
  swarmctl swarm init --advertise-addr 192.168.99.121
  swarmctl swarm init --force-new-cluster`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.swarmInit(cmd, &f) },
	}
	f.addresses.add(cmd, &f.request.AdvertiseAddr, &f.request.DataPathAddr)
	f.settings.add(cmd, "Enable manager autolocking (requiring an unlock key to start a stopped manager)")
	f.pools = &list[string]{kind: "ipNetSlice", parse: parsePool}
	s := cmd.Flags()
	s.Uint32Var(&f.request.DataPathPort, "data-path-port", 0, "Port number to use for data path traffic (1024 - 49151). If no value is set or is set to 0, the default port (4789) is used.")
	s.Var(f.pools, "default-addr-pool", "default address pool in CIDR format")
	s.Uint32Var(&f.mask, "default-addr-pool-mask-length", v1.DefaultSubnetSize, "default address pool subnet mask length")
	s.StringVar(&f.gateways, "gateway-pool", v1.DefaultGatewayPool, "Addresses of the gateway network, in CIDR format: the way in and out of every task, a /24 for each node")
	s.BoolVar(&f.request.ForceNewCluster, "force-new-cluster", false, "Force create a new cluster from current state")
	return cmd
}

func (a *app) swarmInit(cmd *cobra.Command, f *initFlags) error {
	r := &f.request
	var err error
	if r.Availability, err = f.addresses.parsed(cmd); err != nil {
		return err
	}
	r.ListenAddr, r.DefaultAddrPool, r.AutoLock = f.addresses.given(), f.pools.all, f.settings.autolock
	if cmd.Flags().Changed("default-addr-pool-mask-length") {
		r.SubnetSize = f.mask
	}
	if spec := new(v1.ClusterSpec); f.settings.merge(cmd, spec) {
		r.Spec = spec
	}
	if cmd.Flags().Changed("gateway-pool") {
		if r.Spec == nil {
			r.Spec = new(v1.ClusterSpec)
		}
		r.Spec.GatewayPool = f.gateways
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	if r.ForceNewCluster {
		info, err := c.Info(cmd.Context())
		if warning := forceWarning(info.Swarm); err == nil && warning != "" { // who is in trouble is not kept from it
			a.warn([]string{warning})
		}
	}
	id, err := c.Init(cmd.Context(), *r)
	if err != nil {
		return daemonError(err)
	}
	a.printf("Swarm initialized: current node (%s) is now a manager.\n\n", id)
	tokens, err := c.JoinTokens(cmd.Context())
	if err != nil {
		return daemonError(err)
	}
	if err := a.printJoin(cmd.Context(), c, tokens, v1.RoleWorker); err != nil {
		return err
	}
	a.printf("To add a manager to this swarm, run 'swarmctl swarm join-token manager' and follow the instructions.\n")
	if !r.AutoLock {
		return nil
	}
	key, err := c.UnlockKey(cmd.Context())
	if err != nil {
		return fmt.Errorf("could not fetch unlock key: %w", daemonError(err))
	}
	a.printUnlock(key)
	return nil
}

// forceWarning says what --force-new-cluster does to a swarm that is well, where the other managers go on; "" where they cannot.
func forceWarning(s v1.SwarmInfo) string {
	others := s.Managers - 1
	if !s.ControlAvailable || s.Error != "" || others < 1 {
		return ""
	}
	return fmt.Sprintf("this swarm has a leader and %d managers. --force-new-cluster makes this node the only manager of a swarm that has all there is now, "+
		"and does not tell the other managers (%d): each has to leave (swarmctl swarm leave --force) and join anew, before the two swarms change the same nodes. "+
		"To have fewer managers, use swarmctl node demote instead.", s.Managers, others)
}
