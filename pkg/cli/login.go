package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
)

// defaultPort is where managers listen.
const defaultPort = "2377"

// maxRoots bounds a file of root certificates, in bytes.
const maxRoots = 256 << 10

type loginFlags struct {
	token, digest, name string
	cert                string
}

func (a *app) loginCommand() *cobra.Command {
	var f loginFlags
	cmd := &cobra.Command{
		Use:   "login [OPTIONS] HOST[:PORT]",
		Short: "Log in to a swarm from anywhere",
		Long: `Log in to a swarm with a token that "swarmctl user create" printed, and keep it as a context that commands speak to from now
on. Without --token, it is asked for, or read from standard input.

The digest of the swarm's root certificate ("swarmctl swarm ca --digest" on a manager) tells that it is the right swarm.
Without one, it is shown and has to be confirmed.`,
		Example: `  swarmctl login --ca-digest 2cyd01gldlt0bgpl2rkd2yqihvqcqhn6f34jntsyvvocg3qhgs 192.168.99.121:2377
  swarmctl login --name prod --ca-cert root.pem 192.168.99.121 < token.txt`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.login(cmd.Context(), &f, args[0]) },
	}
	s := cmd.Flags()
	s.StringVar(&f.token, "token", "", "Token of the user; other users of this machine may see it, so leave it out to be asked")
	s.StringVar(&f.digest, "ca-digest", "", "Digest of the swarm's root certificate")
	s.StringVar(&f.cert, "ca-cert", "", "`File` with the swarm's root certificate, in PEM")
	s.StringVar(&f.name, "name", "", "What to call the context (default: the host)")
	_ = cmd.MarkFlagFilename("ca-cert", "pem", "crt")
	return cmd
}

func (a *app) login(ctx context.Context, f *loginFlags, host string) error {
	if f.digest != "" && f.cert != "" {
		return errors.New("--ca-digest and --ca-cert say the same: want one of them")
	}
	host, err := withPort(host)
	if err != nil {
		return err
	}
	x := &swarmContext{Name: f.name, Hosts: []string{host}, Token: f.token}
	if x.Name == "" {
		x.Name, _, _ = net.SplitHostPort(host)
		x.Name = strings.Trim(strings.NewReplacer(":", "-", "%", "-").Replace(x.Name), "-")
	}
	if err := checkContextName(x.Name); err != nil {
		return fmt.Errorf("%w: give one with --name", err)
	}
	roots, err := a.trustedRoots(ctx, f, host)
	if err != nil {
		return err
	}
	x.Roots = string(roots)
	if x.Token == "" {
		if x.Token, err = a.readSecret("Token: ", "token"); err != nil {
			return err
		}
	}
	// A token is told from a slip of the hand before it is sent anywhere.
	if _, _, err := ca.ParseUserToken(x.Token); err != nil {
		return fmt.Errorf("that is no token of a user: %w", err)
	}
	if err := a.tryContext(ctx, x); err != nil {
		return err
	}
	a.printf("Login Succeeded\n")
	return a.keepContext(x, true)
}

// withPort is host:port, with the swarm's port where there is none.
func withPort(host string) (string, error) {
	if strings.Contains(host, "/") || host == "" {
		return "", fmt.Errorf("%q is no host of a swarm: want HOST or HOST:PORT", host)
	}
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host, nil
	}
	with := net.JoinHostPort(strings.Trim(host, "[]"), defaultPort)
	if _, _, err := net.SplitHostPort(with); err != nil {
		return "", fmt.Errorf("%q is no host of a swarm: want HOST or HOST:PORT", host)
	}
	return with, nil
}

// trustedRoots are the swarm's roots, of which a file, a digest or the person at the terminal says that they are.
func (a *app) trustedRoots(ctx context.Context, f *loginFlags, host string) ([]byte, error) {
	if f.cert != "" {
		roots, err := os.ReadFile(f.cert)
		switch {
		case err != nil:
			return nil, err
		case len(roots) > maxRoots || ca.Digest(roots) == "":
			return nil, fmt.Errorf("%s is no root certificate in PEM", f.cert)
		}
		return roots, nil
	}
	if f.digest != "" {
		roots, err := client.FetchRoots(ctx, host, f.digest)
		return roots, daemonError(err)
	}
	roots, err := client.FetchRoots(ctx, host, "")
	if err != nil {
		return nil, daemonError(err)
	}
	digest := ca.Digest(roots)
	answer, err := a.Ask(fmt.Sprintf("The authenticity of the swarm at %s can't be established.\nIts root certificate has the digest %s.\n"+
		"Are you sure you want to continue connecting (yes/no)? ", host, digest), false)
	switch {
	case errors.Is(err, errNoTerminal):
		return nil, fmt.Errorf("nothing tells that the swarm at %s is the right one: say so with --ca-digest or --ca-cert "+
			"(`swarmctl swarm ca --digest` on a manager prints the digest)", host)
	case err != nil:
		return nil, err
	case !strings.EqualFold(answer, "yes"):
		return nil, errors.New("login aborted: nothing was sent and nothing was kept")
	}
	return roots, nil
}

// tryContext asks the swarm whether it lets the user in, and takes over what it says of itself.
func (a *app) tryContext(ctx context.Context, x *swarmContext) error {
	c, err := x.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	hosts, err := managerHosts(ctx, c)
	if err != nil {
		return err
	}
	x.Managers, x.Learnt = hosts, a.Now().UTC().Truncate(time.Second)
	return nil
}
