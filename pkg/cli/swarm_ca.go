package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
)

// caFlags are those of swarm ca.
type caFlags struct {
	certFlags
	cert, key             *value[string]
	rotate, detach, quiet bool
	digest                bool
	poll                  time.Duration
}

// caPoll is how often the nodes are looked at while they move to another root.
const caPoll = 500 * time.Millisecond

func (a *app) swarmCACommand() *cobra.Command {
	f := caFlags{cert: newValue("pem-file", readPEM), key: newValue("pem-file", readPEM), poll: caPoll}
	cmd := &cobra.Command{
		Use:   "ca [OPTIONS]",
		Short: "Display and rotate the root CA",
		Long: `Show the swarm's root certificate, or move the swarm to another one. Nodes stay connected and tasks go on while it moves. It
is done once every node has a new certificate: a node that is down holds it up until it comes back, or until "swarmctl node rm" takes it out.`,
		Example: `  swarmctl swarm ca
  swarmctl swarm ca --digest
  swarmctl swarm ca --rotate
  swarmctl swarm ca --rotate --ca-cert root.pem --ca-key root-key.pem`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.swarmCA(cmd, &f) },
	}
	f.certFlags.add(cmd)
	s := cmd.Flags()
	s.Var(f.cert, "ca-cert", "Path to the PEM-formatted root CA certificate to use for the new cluster")
	s.Var(f.key, "ca-key", "Path to the PEM-formatted root CA key to use for the new cluster")
	s.BoolVarP(&f.detach, "detach", "d", false, "Exit immediately instead of waiting for the root rotation to converge")
	s.BoolVar(&f.digest, "digest", false, "Only display the digest of the root certificate, as in join tokens and for login")
	s.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress progress output")
	s.BoolVar(&f.rotate, "rotate", false, "Rotate the swarm CA - if no certificate or key are provided, new ones will be generated")
	_ = cmd.MarkFlagFilename("ca-cert", "pem", "crt")
	_ = cmd.MarkFlagFilename("ca-key", "pem", "key")
	return cmd
}

func (a *app) swarmCA(cmd *cobra.Command, f *caFlags) error {
	ctx, given := cmd.Context(), cmd.Flags().Changed
	if err := f.check(given); err != nil {
		return err
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	if !f.rotate {
		info, err := c.CA(ctx)
		if err != nil {
			return daemonError(err)
		}
		return a.printRoot(info, f.digest)
	}
	if given("cert-expiry") {
		expiry := v1.Duration(f.expiry)
		if err := updateCluster(ctx, c, func(s *v1.ClusterSpec) { s.NodeCertExpiry = &expiry }); err != nil {
			return err
		}
	}
	_, err = c.RotateCA(ctx, v1.RotateCARequest{CACert: []byte(f.cert.v), CAKey: []byte(f.key.v), ExternalCAs: f.external.all})
	if err != nil || f.detach {
		return daemonError(err)
	}
	p := a.newProgress(f.quiet)
	info, err := a.awaitRotation(ctx, c, p, f.poll)
	p.end()
	if errors.Is(err, context.Canceled) {
		a.printf("Operation continuing in background.\nUse `swarmctl node ls --format '{{.Hostname}} {{.TLSStatus}}'` to check progress.\n")
		return &exitError{code: 130}
	}
	if err != nil || f.quiet {
		return err
	}
	return a.printRoot(info, f.digest)
}

// check refuses flags that do not go together, in Docker's words.
func (f *caFlags) check(given func(string) bool) error {
	if !f.rotate {
		for _, name := range []string{"ca-cert", "ca-key", "cert-expiry", "external-ca"} {
			if given(name) {
				return fmt.Errorf("`--%s` flag requires the `--rotate` flag to update the CA", name)
			}
		}
		return nil
	}
	external := len(f.external.all) > 0
	switch {
	case external && !given("ca-cert"):
		return errors.New("rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert - " +
			"to add an external CA with the current root CA certificate, use the `update` command instead")
	case given("ca-cert") && !external && !given("ca-key"):
		return errors.New("the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided as well")
	case given("ca-key") && !given("ca-cert"):
		return errors.New("the --ca-key flag requires that the --ca-cert flag be provided as well")
	}
	return nil
}

func (a *app) printRoot(info v1.CAInfo, digest bool) error {
	root := strings.TrimSpace(string(info.TrustRoot))
	if root == "" {
		return errors.New("No CA information available") //nolint:staticcheck // Docker's words
	}
	if digest {
		root = ca.Digest(info.TrustRoot)
	}
	a.printf("%s\n", root)
	return nil
}

// rootDigest is the digest of the swarm's settled root.
func rootDigest(ctx context.Context, c *client.Client) (string, error) {
	info, err := c.CA(ctx)
	if err != nil {
		return "", daemonError(err)
	}
	return ca.Digest(info.TrustRoot), nil
}

// rotation is how far the nodes are on their way to a root.
type rotation struct {
	digest              string
	certs, roots, total int
	// away are the nodes that are down and still have another root's certificate.
	away []string
	done bool
}

// judgeRotation derives from what is told of the CA and of the nodes how far they are.
func judgeRotation(info *v1.CAInfo, nodes []*v1.Node, now time.Time) rotation {
	target, rotating := info.TrustRoot, len(info.NextRoot) > 0
	if rotating {
		target = info.NextRoot
	}
	r := rotation{digest: ca.Digest(target), total: len(nodes)}
	for _, n := range nodes {
		var have v1.NodeTLS
		if n.Status != nil && n.Status.Description.TLS != nil {
			have = *n.Status.Description.TLS
		}
		moved := have.Issuer == r.digest
		settled := moved && !rotating && len(have.Roots) == 1 && have.Roots[0] == r.digest
		if moved {
			r.certs++
		}
		if settled {
			r.roots++
		}
		if !settled && convertNode(n).Status.State != string(v1.NodeReady) && (!moved || !rotating) {
			r.away = append(r.away, nodeName(n)+downSince(n, now))
		}
	}
	slices.SortFunc(r.away, naturalCompare)
	// Who went away with a new certificate learns which root is left when it is back.
	r.done = !rotating && r.certs == r.total && r.roots+len(r.away) == r.total
	return r
}

// downSince says for people since when a node is down, where that is known.
func downSince(n *v1.Node, now time.Time) string {
	if n.Desired == nil || n.Desired.Down.IsZero() {
		return ""
	}
	return " (down since " + ago(now, n.Desired.Down) + ")"
}

// awaitRotation shows how nodes move to another root, until all have, and returns what the CA is then. Managers that restart on
// their way are waited for.
func (a *app) awaitRotation(ctx context.Context, c *client.Client, p *progress, every time.Duration) (v1.CAInfo, error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var trouble patience
	for {
		info, nodes, err := lookAtRotation(ctx, c)
		switch {
		case ctx.Err() != nil:
			return info, context.Canceled
		case err == nil:
			if r := judgeRotation(&info, nodes, a.Now()); a.showRotation(p, r) {
				return info, nil
			}
		}
		if !trouble.bears(err) {
			return info, daemonError(err)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func lookAtRotation(ctx context.Context, c *client.Client) (v1.CAInfo, []*v1.Node, error) {
	info, err := c.CA(ctx)
	if err != nil {
		return info, nil, err
	}
	nodes, err := client.List(ctx, c, v1.Nodes, nil)
	return info, nodes, err
}

// showRotation shows how far the nodes are, and tells whether that is all the way.
func (a *app) showRotation(p *progress, r rotation) bool {
	p.set("desired root digest", r.digest, 0)
	p.set("  rotated TLS certificates", fmt.Sprintf("%d/%d nodes", r.certs, r.total), 0)
	p.set("  rotated CA certificates", fmt.Sprintf("%d/%d nodes", r.roots, r.total), 0)
	if len(r.away) > 0 && !r.done {
		p.set("  waiting for", strings.Join(r.away, ", ")+": bring back, or remove with `swarmctl node rm --force`", 0)
	}
	return r.done
}
