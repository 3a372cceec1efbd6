package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// completionTimeout bounds how long a shell waits for names: people are typing.
const completionTimeout = 2 * time.Second

type completer = func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// completeNames completes the names of the objects of a kind, those that are not on the line yet.
func completeNames[S, D, T any](a *app, k v1.KindOf[S, D, T]) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		all, err := objectNames(cmd.Context(), a, k)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all = slices.DeleteFunc(all, func(name string) bool { return slices.Contains(args, name) })
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

func objectNames[S, D, T any](ctx context.Context, a *app, k v1.KindOf[S, D, T]) ([]string, error) {
	c, err := a.daemon()
	if err != nil {
		return nil, err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	objects, err := client.List(ctx, c, k, nil)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(objects))
	for _, o := range objects {
		names = append(names, objectName(o))
	}
	slices.SortFunc(names, naturalCompare)
	return slices.Compact(names), nil
}

// objectName is what people call an object.
func objectName(o v1.Object) string {
	switch o := o.(type) {
	case *v1.Node:
		return nodeName(o)
	case *v1.Task:
		if o.Desired != nil {
			return v1.TaskName(o.Desired)
		}
	}
	if m := o.GetMeta(); m.Name != "" {
		return m.Name
	}
	return o.GetMeta().ID
}

// completeImages completes the first argument with the images that the daemon's machine has.
func (a *app) completeImages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	c, err := a.daemon()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	images, err := c.Images(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var all []string
	for _, image := range images {
		all = append(all, familiarImage(image.Name))
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}
