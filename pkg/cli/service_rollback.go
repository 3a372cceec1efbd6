package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) serviceRollbackCommand() *cobra.Command {
	var wait waitFlags
	var to uint64
	cmd := &cobra.Command{
		Use:   "rollback [OPTIONS] SERVICE",
		Short: "Revert changes to a service's configuration",
		Long: `Go back to what the service's tasks ran before the latest update, or, where that did not complete, before all that did not since.
Doing it twice goes forward again, unless that was never completed. It rolls out by the service's rollback settings.

What is not of the tasks stays as it is: the number of replicas, labels, how updates roll out.`,
		Example: `  swarmctl service rollback web

  # To a revision that service history tells of
  swarmctl service rollback --to 3 web`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE: func(cmd *cobra.Command, args []string) error {
			number := &to
			if !cmd.Flags().Changed("to") {
				number = nil
			}
			return a.rollbackService(cmd.Context(), args[0], number, &wait)
		},
	}
	cmd.Flags().Uint64Var(&to, "to", 0, "Revision to go back to, of those that service history tells (default the previous)")
	wait.add(cmd)
	return cmd
}

// rollbackService goes back to the revision of a number, or to the previous one where that is nil.
func (a *app) rollbackService(ctx context.Context, ref string, number *uint64, wait *waitFlags) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	return a.updateService(ctx, ref, wait, func(svc *v1.Service) error {
		h, err := historyOf(ctx, c, svc)
		if err != nil {
			return err
		}
		to := h.previous()
		switch {
		case number != nil:
			if to = h.numbered(*number); to == nil {
				return fmt.Errorf("service %s has no revision %d: swarmctl service history %s tells which are kept", ref, *number, ref)
			}
			if to.Meta.ID == h.current {
				return fmt.Errorf("service %s is at revision %d", ref, *number)
			}
		case to == nil:
			return fmt.Errorf("%sservice %s does not have a previous spec", daemonPrefix, ref)
		}
		svc.Spec.Task, svc.Spec.Endpoint, svc.Spec.RollbackTo = to.Spec.Task, to.Spec.Endpoint, to.Meta.ID
		return nil
	})
}

// history is what revisions are kept of a service, the latest first.
type history struct {
	service   *v1.Service
	current   string // ID
	revisions []*v1.ServiceRevision
}

func historyOf(ctx context.Context, c *client.Client, svc *v1.Service) (*history, error) {
	all, err := client.List(ctx, c, v1.ServiceRevisions, v1.Filter{"service": {svc.Meta.ID}})
	if err != nil {
		return nil, fmt.Errorf("revisions of service %s: %w", svc.Meta.Name, daemonError(err))
	}
	h := &history{service: svc, current: v1.RevisionID(v1.Effective(svc))}
	for _, r := range all {
		if r.Spec != nil && r.Spec.Service == svc.Meta.ID {
			h.revisions = append(h.revisions, r)
		}
	}
	slices.SortFunc(h.revisions, func(x, y *v1.ServiceRevision) int { return int(int64(y.Spec.Number) - int64(x.Spec.Number)) })
	return h, nil
}

func (h *history) find(is func(*v1.ServiceRevision) bool) *v1.ServiceRevision {
	if i := slices.IndexFunc(h.revisions, is); i >= 0 {
		return h.revisions[i]
	}
	return nil
}

func (h *history) numbered(n uint64) *v1.ServiceRevision {
	return h.find(func(r *v1.ServiceRevision) bool { return r.Spec.Number == n })
}

// previous is the revision that a rollback goes to, or nil.
func (h *history) previous() *v1.ServiceRevision {
	return v1.PreviousRevision(h.service, h.revisions)
}
