package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) userCertCommand() *cobra.Command {
	var output, name string
	var hosts []string
	cmd := &cobra.Command{
		Use:   "cert [OPTIONS] NAME",
		Short: "Make a certificate for a user",
		Long: `Make a key here, have the swarm sign a certificate for it, and write both to a file to hand over. Whoever has the file is
the user: "swarmctl context import FILE" takes it in. The key is in that file alone.`,
		Example: `  swarmctl user cert alice
  swarmctl user cert --output - alice | ssh alice@laptop swarmctl context import -`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Users),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, err := a.certify(cmd.Context(), args[0], hosts)
			if err != nil {
				return err
			}
			x.Name = "swarm"
			if name != "" {
				x.Name = name
			}
			if err := x.check(); err != nil {
				return err
			}
			data, err := x.yaml()
			if err != nil {
				return err
			}
			if output == "-" {
				_, err := a.Out.Write(data)
				return err
			}
			if output == "" {
				output = args[0] + ".yaml"
			}
			if err := writeFile(output, data, false); err != nil {
				return err
			}
			a.printf("The key and certificate of %s are in %s. To use them, run the following command where %[1]s works:\n\n"+
				"    swarmctl context import %[2]s\n\n", x.User, output)
			return nil
		},
	}
	s := cmd.Flags()
	s.StringVarP(&output, "output", "o", "", "`File` to write, or - for standard output (default NAME.yaml)")
	s.StringVar(&name, "name", "", `What to call the context in the file (default "swarm")`)
	s.StringSliceVar(&hosts, "address", nil, "HOST:PORT of managers as the user reaches them (default: as managers reach each other)")
	return cmd
}

// certify is a context with a new key and certificate of the user.
func (a *app) certify(ctx context.Context, ref string, hosts []string) (*swarmContext, error) {
	c, err := a.daemon()
	if err != nil {
		return nil, err
	}
	u, err := client.Get(ctx, c, v1.Users, ref)
	if err != nil {
		return nil, apiError(err, v1.KindUser, ref)
	}
	for i, host := range hosts {
		if hosts[i], err = withPort(host); err != nil {
			return nil, err
		}
	}
	if len(hosts) == 0 {
		if hosts, err = managerHosts(ctx, c); err != nil {
			return nil, err
		}
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("the swarm does not tell where its managers are: say how %s reaches them with --address", ref)
	}
	key, err := ca.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return nil, err
	}
	cert, err := c.UserCertificate(ctx, u.Meta.ID, csr)
	if err != nil {
		return nil, daemonError(err)
	}
	return &swarmContext{User: u.Meta.Name, Hosts: hosts, Roots: string(cert.Roots), Certificate: string(cert.Chain), Key: string(key)}, nil
}
