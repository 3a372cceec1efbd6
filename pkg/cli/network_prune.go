package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

const pruneWarning = "WARNING! This will remove all custom networks not used by at least one service."

func (a *app) networkPruneCommand() *cobra.Command {
	var force bool
	filter := newStrings()
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all unused networks",
		Long:  "Remove all networks that no service, and no task that has not ended, uses.",
		Example: `  swarmctl network prune
  swarmctl network prune --force --filter until=24h --filter label!=keep`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := a.pruneFilter(filter.all)
			if err != nil {
				return err
			}
			if !force {
				if err := a.confirm("network prune", pruneWarning); err != nil {
					return err
				}
			}
			return a.pruneNetworks(cmd.Context(), wanted)
		},
	}
	s := cmd.Flags()
	s.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	s.Var(filter, "filter", `Provide filter values (label, label!, until; e.g. "until=24h")`)
	_ = cmd.RegisterFlagCompletionFunc("filter", cobra.FixedCompletions([]string{"label=", "label!=", "until="},
		cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	return cmd
}

// confirm asks whether a command is to go on, or reads the answer from standard input where nobody can be asked. Without an answer nothing is
// done.
func (a *app) confirm(command, warning string) error {
	answer, err := a.Ask(warning+"\nAre you sure you want to continue? [y/N] ", false)
	if errors.Is(err, errNoTerminal) {
		answer, err = bufio.NewReader(io.LimitReader(a.In, maxSecretLine)).ReadString('\n')
		answer = strings.TrimSpace(answer)
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes"):
		return errors.New(command + " has been cancelled: nobody said yes, so that nothing was removed (--force does not ask)")
	}
	return nil
}

// pruneFilter tells which networks the filters mean: all of them have to hold.
func (a *app) pruneFilter(filters []string) (func(*v1.Network) bool, error) {
	f, err := v1.ParseFilters(filters)
	if err != nil {
		return nil, err
	}
	var terms []func(*v1.Network) bool
	for key, values := range f {
		for _, value := range values {
			label, want, valued := strings.Cut(value, "=")
			has := func(n *v1.Network) bool {
				have, ok := n.Meta.Labels[label]
				return ok && (!valued || have == want)
			}
			switch key {
			case "label":
				terms = append(terms, has)
			case "label!":
				terms = append(terms, func(n *v1.Network) bool { return !has(n) })
			case "until":
				until, err := parseTime(value, a.Now())
				if err != nil {
					return nil, fmt.Errorf("invalid filter 'until=%s': %w", value, err)
				}
				terms = append(terms, func(n *v1.Network) bool { return n.Meta.CreatedAt.Before(until) })
			default:
				return nil, fmt.Errorf("invalid filter '%s': filters of network prune are label, label!, until", key)
			}
		}
	}
	return func(n *v1.Network) bool {
		return !slices.ContainsFunc(terms, func(holds func(*v1.Network) bool) bool { return !holds(n) })
	}, nil
}

func (a *app) pruneNetworks(ctx context.Context, wanted func(*v1.Network) bool) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	all, err := client.List(ctx, c, v1.Networks, v1.Filter{"dangling": {"true"}})
	if err != nil {
		return daemonError(err)
	}
	byName(all)
	var pruned []string
	var errs []error
	for _, n := range all {
		if !wanted(n) {
			continue
		}
		err := client.Delete(ctx, c, v1.Networks, n.Meta.ID)
		switch client.Status(err) {
		case http.StatusNotFound, http.StatusBadRequest: // gone, or used, since it was looked at
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.Meta.Name, daemonError(err)))
			continue
		}
		pruned = append(pruned, n.Meta.Name)
	}
	if len(pruned) > 0 {
		a.printf("Deleted Networks:\n%s\n\n", strings.Join(pruned, "\n"))
	}
	return errors.Join(errs...)
}
