package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) deleteCommand() *cobra.Command {
	var f fileFlags
	var ignore bool
	cmd := &cobra.Command{
		Use:   "delete (KIND NAME... | -f FILE)",
		Short: "Remove objects",
		Long: `Remove objects by name, or all those that manifests describe: services first, so that what they use is free. Networks wait for
their tasks to end, at most a minute.

The tasks of a service stop within their grace period, after the command has ended: "swarmctl wait service/web
--for=deleted" waits for that.`,
		Example: `  swarmctl delete service web
  swarmctl delete -f web.yaml`,
		ValidArgsFunction: a.completeKindAndNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && len(f.files) > 0 {
				return errors.New("want either names or --filename, not both")
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			if len(f.files) > 0 {
				return a.deleteManifests(cmd.Context(), c, &f, ignore)
			}
			if len(args) < 1 {
				return usageError(cmd, "%s: '%s' wants a kind and names, or --filename", cmd.Root().Name(), cmd.CommandPath())
			}
			k, refs, err := kindAndNames(args)
			if err != nil {
				return err
			}
			if len(refs) == 0 {
				return usageError(cmd, "%s: '%s %s' wants the names of what to remove", cmd.Root().Name(), cmd.CommandPath(), args[0])
			}
			var errs []error
			for _, ref := range refs {
				errs = append(errs, a.deleteOne(cmd.Context(), c, k, ref, ref, ignore))
			}
			return errors.Join(errs...)
		},
	}
	f.add(cmd, "of what to remove")
	cmd.Flags().BoolVar(&ignore, "ignore-not-found", false, "What is not there is no error")
	return cmd
}

func (a *app) deleteManifests(ctx context.Context, c *client.Client, f *fileFlags, ignore bool) error {
	docs, err := a.readManifests(f.files, f.recursive)
	if err != nil {
		return err
	}
	slices.SortStableFunc(docs, func(x, y document) int {
		return slices.Index(applyOrder, y.Kind) - slices.Index(applyOrder, x.Kind)
	})
	var errs []error
	var removed []string // IDs of services
	for _, d := range docs {
		k, _ := v1.Describe(d.Kind)
		name := d.Object.GetMeta().Name
		old, err := lookup(ctx, c, k, name)
		if d.Kind == v1.KindNetwork && old != nil {
			if err := tasksEnded(ctx, c, removed, patienceForTasks); err != nil {
				return errors.Join(append(errs, err)...)
			}
			removed = nil
		}
		switch {
		case err != nil && !notFound(err):
			errs = append(errs, daemonError(err))
		case old == nil && !ignore:
			errs = append(errs, &notFoundError{k.Kind(), name})
		case old != nil:
			errs = append(errs, a.deleteOne(ctx, c, k, old.GetMeta().ID, name, ignore))
			if d.Kind == v1.KindService {
				removed = append(removed, old.GetMeta().ID)
			}
		}
	}
	return errors.Join(errs...)
}

// patienceForTasks bounds how long a network's removal waits for tasks to let go of it: those of a node that is gone may take a day.
const patienceForTasks = time.Minute

// tasksEnded waits until the tasks of services that were removed have ended, or patience is over: then the daemon says which task
// it is.
func tasksEnded(ctx context.Context, c *client.Client, services []string, patience time.Duration) error {
	waiting, stop := context.WithTimeout(ctx, patience)
	defer stop()
	for _, id := range services {
		filter := v1.Filter{"service": {id}, "state": liveStates}
		for waiting.Err() == nil {
			tasks, err := client.List(waiting, c, v1.Tasks, filter)
			if err != nil && waiting.Err() == nil {
				return daemonError(err)
			}
			if len(tasks) == 0 {
				break
			}
			select {
			case <-waiting.Done():
			case <-time.After(drainPoll):
			}
		}
	}
	return ctx.Err()
}

func (a *app) deleteOne(ctx context.Context, c *client.Client, k v1.Descriptor, id, name string, ignore bool) error {
	err := apiError(c.Do(ctx, http.MethodDelete, "/v1/"+k.Plural()+"/"+url.PathEscape(id), nil, nil), k.Kind(), name)
	if notFound(err) && ignore {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "%s deleted\n", ref(k.Kind(), name))
	return nil
}
