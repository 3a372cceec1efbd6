package cli

import (
	"context"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// taskCommand is what docker inspect --type task and docker service logs TASK are in Docker.
func (a *app) taskCommand() *cobra.Command {
	return group("task", "Look at tasks", "  swarmctl task inspect web.1\n  swarmctl task logs --follow web.1", a.taskInspectCommand(), a.taskLogsCommand())
}

func (a *app) taskInspectCommand() *cobra.Command {
	var f inspectFlags
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] TASK [TASK...]",
		Short:                 "Display detailed information on one or more tasks",
		Example:               "  swarmctl task inspect --format '{{.Status.State}}: {{.Status.Err}}' web.1",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Tasks),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			return inspect(a.Out, f.format, args, func(ref string) (any, error) { return inspectTask(cmd.Context(), c, ref) })
		},
	}
	f.add(cmd, false)
	return cmd
}

func inspectTask(ctx context.Context, c *client.Client, ref string) (*dockerTask, error) {
	t, err := getTask(ctx, c, ref)
	if err != nil {
		return nil, err
	}
	revision, err := revisionOf(ctx, c, t)
	if err != nil {
		return nil, err
	}
	var n names
	if revision != nil && revision.Spec != nil {
		if n, err = referenceNames(ctx, c, &v1.ServiceSpec{Task: revision.Spec.Task}); err != nil {
			return nil, err
		}
	}
	if t.Desired != nil && len(t.Desired.Networks) > 0 || revision != nil && revision.Spec != nil && len(revision.Spec.Task.Networks) > 0 {
		if n.networks, err = newNetworkBook(ctx, c); err != nil {
			return nil, err
		}
	}
	return convertTask(t, revision, n), nil
}

// revisionOf is what a task runs, or nil where nobody keeps that any more.
func revisionOf(ctx context.Context, c *client.Client, t *v1.Task) (*v1.ServiceRevision, error) {
	if t.Desired == nil {
		return nil, nil
	}
	revision, err := client.Get(ctx, c, v1.ServiceRevisions, t.Desired.Revision)
	switch err := apiError(err, v1.KindServiceRevision, t.Desired.Revision); {
	case notFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return revision, nil
}

// getTask finds a task by ID or the beginning of it, or by its name: then the latest of that slot.
func getTask(ctx context.Context, c *client.Client, ref string) (*v1.Task, error) {
	t, err := client.Get(ctx, c, v1.Tasks, ref)
	if err == nil {
		return t, nil
	}
	err = apiError(err, v1.KindTask, ref)
	if !notFound(err) {
		return nil, err
	}
	tasks, listErr := client.List(ctx, c, v1.Tasks, nil)
	if listErr != nil {
		return nil, daemonError(listErr)
	}
	var latest *v1.Task
	for _, t := range tasks {
		if t.Desired != nil && v1.TaskName(t.Desired) == ref && (latest == nil || t.Desired.Attempt > latest.Desired.Attempt) {
			latest = t
		}
	}
	if latest == nil {
		return nil, err
	}
	return latest, nil
}
