package cli

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) swarmCommand() *cobra.Command {
	return group("swarm", "Manage Swarm", `  swarmctl swarm init --advertise-addr 192.168.99.121
  swarmctl swarm join-token worker
  swarmctl swarm leave`,
		a.swarmInitCommand(), a.swarmJoinCommand(), a.swarmJoinTokenCommand(), a.swarmLeaveCommand(), a.swarmUpdateCommand(),
		a.swarmCACommand(), a.swarmUnlockCommand(), a.swarmUnlockKeyCommand(), a.swarmBackupCommand(), a.swarmRestoreCommand())
}

// addressFlags say where a daemon that becomes a node is reached, and what tasks it takes.
type addressFlags struct {
	listen       *value[string]
	availability string
}

func (f *addressFlags) add(cmd *cobra.Command, advertise, dataPath *string) {
	f.listen = newValue("node-addr", parseListenAddr)
	f.listen.v, f.listen.text = defaultListenAddr, defaultListenAddr
	s := cmd.Flags()
	s.StringVar(advertise, "advertise-addr", "", `Advertised address (format: "<ip|interface>[:port]")`)
	s.StringVar(&f.availability, "availability", "active", `Availability of the node ("active", "pause", "drain")`)
	s.StringVar(dataPath, "data-path-addr", "", `Address or interface to use for data path traffic (format: "<ip|interface>")`)
	s.Var(f.listen, "listen-addr", `Listen address (format: "<ip|interface>[:port]")`)
	_ = cmd.RegisterFlagCompletionFunc("availability", cobra.FixedCompletions([]string{"active", "pause", "drain"}, cobra.ShellCompDirectiveNoFileComp))
}

// given is the listen address that was asked for; empty where none was, and the daemon has its own.
func (f *addressFlags) given() string {
	if !f.listen.set {
		return ""
	}
	return f.listen.v
}

// parsed is the availability that was asked for; empty where none was.
func (f *addressFlags) parsed(cmd *cobra.Command) (v1.NodeAvailability, error) {
	if !cmd.Flags().Changed("availability") {
		return "", nil
	}
	switch v := v1.NodeAvailability(strings.ToLower(f.availability)); v {
	case v1.AvailabilityActive, v1.AvailabilityPause, v1.AvailabilityDrain:
		return v, nil
	}
	return "", fmt.Errorf("invalid availability %q, only active, pause and drain are supported", f.availability)
}

func (a *app) swarmJoinCommand() *cobra.Command {
	var r v1.JoinRequest
	var addresses addressFlags
	cmd := &cobra.Command{
		Use:   "join [OPTIONS] HOST:PORT",
		Short: "Join a swarm as a node and/or manager",
		Long: `Make this daemon's machine a node of a swarm. The token, from "swarmctl swarm join-token" on a manager, says in which role, and
which swarm it has to be. Where that does not work out, nothing is changed.`,
		Example:               "  swarmctl swarm join --token SWMTKN-1-3pu6…-1h83… 192.168.99.121:2377",
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if r.Availability, err = addresses.parsed(cmd); err != nil {
				return err
			}
			r.RemoteAddrs, r.ListenAddr = []string{args[0]}, addresses.given()
			c, err := a.daemon()
			if err != nil {
				return err
			}
			result, err := c.Join(cmd.Context(), r)
			if err != nil {
				return daemonError(err)
			}
			a.printf("This node joined a swarm as a %s.\n", result.Role)
			return nil
		},
	}
	addresses.add(cmd, &r.AdvertiseAddr, &r.DataPathAddr)
	cmd.Flags().StringVar(&r.Token, "token", "", "Token for entry into the swarm")
	return cmd
}

func (a *app) swarmJoinTokenCommand() *cobra.Command {
	var rotate, quiet bool
	cmd := &cobra.Command{
		Use:   "join-token [OPTIONS] (worker|manager)",
		Short: "Manage join tokens",
		Long: `Show the token that machines join the swarm with, and the command to run there. With --rotate, another token is made, and
the one before lets nobody in any more. Nodes that have joined stay.`,
		Example: `  swarmctl swarm join-token worker
  swarmctl swarm join-token --rotate manager`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgs:             []string{"worker", "manager"},
		RunE: func(cmd *cobra.Command, args []string) error {
			role := v1.NodeRole(args[0])
			if role != v1.RoleWorker && role != v1.RoleManager {
				return fmt.Errorf("unknown role %s", args[0])
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			tokens, err := a.joinTokens(cmd.Context(), c, role, rotate)
			if err != nil {
				return err
			}
			if rotate && !quiet {
				a.printf("Successfully rotated %s join token.\n\n", role)
			}
			if quiet {
				a.printf("%s\n", tokenOf(tokens, role))
				return nil
			}
			return a.printJoin(cmd.Context(), c, tokens, role)
		},
	}
	s := cmd.Flags()
	s.BoolVarP(&quiet, "quiet", "q", false, "Only display token")
	s.BoolVar(&rotate, "rotate", false, "Rotate join token")
	return cmd
}

func (a *app) joinTokens(ctx context.Context, c *client.Client, role v1.NodeRole, rotate bool) (v1.JoinTokens, error) {
	if rotate {
		tokens, err := c.RotateJoinToken(ctx, role)
		return tokens, daemonError(err)
	}
	tokens, err := c.JoinTokens(ctx)
	return tokens, daemonError(err)
}

func tokenOf(t v1.JoinTokens, role v1.NodeRole) string {
	if role == v1.RoleManager {
		return t.Manager
	}
	return t.Worker
}

// printJoin prints the command that a machine joins with.
func (a *app) printJoin(ctx context.Context, c *client.Client, tokens v1.JoinTokens, role v1.NodeRole) error {
	host, err := joinHost(ctx, c)
	if err != nil {
		return err
	}
	a.printf("To add a %s to this swarm, run the following command:\n\n    swarmctl swarm join --token %s %s\n\n", role, tokenOf(tokens, role), host)
	return nil
}

// joinHost is where the daemon that answers is reached from elsewhere, or another manager where it is none.
func joinHost(ctx context.Context, c *client.Client) (string, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return "", daemonError(err)
	}
	members, err := client.List(ctx, c, v1.Members, nil)
	if err != nil {
		return "", daemonError(err)
	}
	var own, other string
	take := func(node, addr string) {
		switch {
		case addr == "":
		case node == info.Swarm.NodeID:
			own = cmp.Or(own, addr)
		default:
			other = cmp.Or(other, addr)
		}
	}
	for _, m := range members {
		if m.Status != nil {
			take(m.Meta.ID, m.Status.Addr)
		}
	}
	for _, p := range info.Swarm.RemoteManagers {
		take(p.NodeID, p.Addr)
	}
	if host := cmp.Or(own, other); host != "" {
		return host, nil
	}
	return net.JoinHostPort(info.Swarm.NodeAddr, defaultPort), nil
}

func (a *app) swarmLeaveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave [OPTIONS]",
		Short: "Leave the swarm",
		Long: `Take this daemon's machine out of the swarm. Its tasks stop.

A manager is demoted first ("swarmctl node demote" on another manager), or leaves by --force and is missed by the others. The last manager
leaves only with --force, and the swarm and all of its state with it.`,
		Example: `  swarmctl swarm leave
  swarmctl swarm leave --force`,
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
