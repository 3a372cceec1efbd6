package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// nodeUpdateFlags are those of node update.
type nodeUpdateFlags struct {
	availability, role string
	labels             edit[string]
	wait               bool
	timeout            time.Duration
}

func (a *app) nodeUpdateCommand() *cobra.Command {
	var f nodeUpdateFlags
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] NODE",
		Short: "Update a node",
		Long: `Update a node. A node that is drained gives its tasks up: each is replaced elsewhere first, where it fits, and only so many of a service at a
time as its updates change at once. With --wait, the command shows what is left and why, and ends when the node is empty.`,
		Example: `  swarmctl node update --availability drain --wait worker1
  swarmctl node update --label-add zone=east worker1`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeNodes,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.nodeUpdate(cmd, &f, args[0]) },
	}
	s := cmd.Flags()
	s.StringVar(&f.availability, "availability", "", `Availability of the node ("active", "pause", "drain")`)
	s.StringVar(&f.role, "role", "", `Role of the node ("worker", "manager")`)
	f.labels = edit[string]{add: newList("list", parseLabel), remove: newStrings()}
	s.Var(f.labels.add, "label-add", `Add or update a node label ("key=value")`)
	s.Var(f.labels.remove, "label-rm", "Remove a node label if exists")
	s.BoolVar(&f.wait, "wait", false, "With --availability drain: wait until the node is empty")
	s.DurationVar(&f.timeout, "timeout", 0, "With --wait: stop waiting after this long and exit with status 1 (0 waits for ever)")
	_ = cmd.RegisterFlagCompletionFunc("availability", cobra.FixedCompletions([]string{"active", "pause", "drain"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"worker", "manager"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) nodeUpdate(cmd *cobra.Command, f *nodeUpdateFlags, ref string) error {
	switch {
	case f.wait && v1.NodeAvailability(strings.ToLower(f.availability)) != v1.AvailabilityDrain:
		return errors.New("--wait waits until a node is empty: it goes with --availability drain")
	case cmd.Flags().Changed("timeout") && !f.wait:
		return errors.New("--timeout says how long to wait: it goes with --wait")
	}
	id := ""
	err := a.updateNode(cmd.Context(), ref, func(n *v1.Node) error {
		id = n.Meta.ID
		if f.availability != "" {
			n.Spec.Availability = v1.NodeAvailability(strings.ToLower(f.availability))
		}
		if f.role != "" {
			n.Spec.Role = v1.NodeRole(strings.ToLower(f.role))
		}
		for _, key := range f.labels.remove.all {
			if _, ok := n.Meta.Labels[key]; !ok {
				return fmt.Errorf("key %s doesn't exist in node's labels", key)
			}
		}
		n.Meta.Labels = editMap(n.Meta.Labels, f.labels)
		return nil
	})
	if err != nil {
		return err
	}
	a.printf("%s\n", ref)
	if !f.wait {
		return nil
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	return a.awaitDrain(cmd.Context(), c, id, f.timeout)
}

// updateNode lets change work on a node and writes it back; where somebody else was faster, it begins again.
func (a *app) updateNode(ctx context.Context, ref string, change func(*v1.Node) error) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		n, err := getNode(ctx, c, ref)
		if err != nil {
			return err
		}
		if err := change(n); err != nil {
			return err
		}
		_, warnings, err := client.Update(ctx, c, v1.Nodes, n)
		if client.Status(err) == http.StatusConflict && try < maxConflicts && ctx.Err() == nil {
			continue
		}
		a.warn(warnings)
		return apiError(err, v1.KindNode, ref)
	}
}
