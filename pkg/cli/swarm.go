package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func (a *app) swarmCommand() *cobra.Command {
	return group("swarm", "Manage Swarm", `  swarmctl swarm init
  swarmctl swarm leave --force`, a.swarmInitCommand(), a.swarmLeaveCommand())
}

// initFlags are those of swarm init.
type initFlags struct {
	request      v1.InitRequest
	availability string
	pools        []string
	history      int64
}

// notYet are the flags of swarm init that have no effect yet: what they ask for is refused, not ignored.
var notYet = []string{"cert-expiry", "dispatcher-heartbeat", "external-ca", "max-snapshots", "snapshot-interval", "autolock",
	"force-new-cluster", "data-path-addr", "data-path-port", "default-addr-pool", "default-addr-pool-mask-length", "listen-addr"}

func (a *app) swarmInitCommand() *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use:   "init [OPTIONS]",
		Short: "Initialize a swarm",
		Long:  "Make this daemon's machine the first manager of a new swarm.",
		Example: `  swarmctl swarm init
  swarmctl swarm init --advertise-addr 192.168.99.121`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.swarmInit(cmd, &f) },
	}
	s := cmd.Flags()
	s.StringVar(&f.request.AdvertiseAddr, "advertise-addr", "", `Advertised address (format: "<ip|interface>[:port]")`)
	s.BoolVar(&f.request.AutoLock, "autolock", false, "Enable manager autolocking (requiring an unlock key to start a stopped manager)")
	s.StringVar(&f.availability, "availability", "active", `Availability of the node ("active", "pause", "drain")`)
	s.Duration("cert-expiry", 90*24*time.Hour, "Validity period for node certificates (ns|us|ms|s|m|h)")
	s.StringVar(&f.request.DataPathAddr, "data-path-addr", "", `Address or interface to use for data path traffic (format: "<ip|interface>")`)
	s.Uint32Var(&f.request.DataPathPort, "data-path-port", 0, "Port number to use for data path traffic (1024 - 49151)")
	s.StringSliceVar(&f.pools, "default-addr-pool", nil, "default address pool in CIDR format")
	s.Uint32Var(&f.request.SubnetSize, "default-addr-pool-mask-length", 24, "default address pool subnet mask length")
	s.Duration("dispatcher-heartbeat", 5*time.Second, "Dispatcher heartbeat period (ns|us|ms|s|m|h)")
	s.Var(newStrings(), "external-ca", "Specifications of one or more certificate signing endpoints")
	s.BoolVar(&f.request.ForceNewCluster, "force-new-cluster", false, "Force create a new cluster from current state")
	s.StringVar(&f.request.ListenAddr, "listen-addr", "0.0.0.0:2377", `Listen address (format: "<ip|interface>[:port]")`)
	s.Uint64("max-snapshots", 0, "Number of additional Raft snapshots to retain")
	s.Uint64("snapshot-interval", 10000, "Number of log entries between Raft snapshots")
	s.Int64Var(&f.history, "task-history-limit", v1.DefaultTaskHistoryLimit, "Task history retention limit")
	for _, name := range notYet {
		s.Lookup(name).Usage += " (not supported yet)"
	}
	_ = cmd.RegisterFlagCompletionFunc("availability", cobra.FixedCompletions([]string{"active", "pause", "drain"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) swarmInit(cmd *cobra.Command, f *initFlags) error {
	s := cmd.Flags()
	for _, name := range notYet {
		if flag := s.Lookup(name); flag.Changed && flag.Value.String() != flag.DefValue || flag.Changed && flag.DefValue == "" {
			return fmt.Errorf("--%s: not supported yet", name)
		}
	}
	f.request.ListenAddr, f.request.SubnetSize = "", 0 // the daemon's defaults
	if s.Changed("availability") {
		switch v := v1.NodeAvailability(strings.ToLower(f.availability)); v {
		case v1.AvailabilityActive, v1.AvailabilityPause, v1.AvailabilityDrain:
			f.request.Availability = v
		default:
			return fmt.Errorf("invalid availability %q, only active, pause and drain are supported", f.availability)
		}
	}
	if s.Changed("task-history-limit") {
		f.request.Spec = &v1.ClusterSpec{TaskHistoryLimit: &f.history}
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	id, err := c.Init(cmd.Context(), f.request)
	if err != nil {
		return daemonError(err)
	}
	a.printf("Swarm initialized: current node (%s) is now a manager.\n\n", id)
	a.printf("Joining further nodes is not supported yet: this swarm runs on one machine.\n\n")
	a.printf("To run something on it, try\n\n    swarmctl service create --name web --publish 8080:80 nginx:1.27\n    swarmctl service ps web\n\n")
	return nil
}

func (a *app) swarmLeaveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave [OPTIONS]",
		Short: "Leave the swarm",
		Long: `Take this daemon's machine out of the swarm. Its tasks stop.

The last manager leaves only with --force, and the swarm and all of its state with it.`,
		Example:               "  swarmctl swarm leave --force",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			if err := c.Leave(cmd.Context(), force); err != nil {
				return daemonError(err)
			}
			a.printf("Node left the swarm.\n")
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force this node to leave the swarm, ignoring warnings")
	return cmd
}
