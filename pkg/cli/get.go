package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

type getFlags struct {
	output   string
	watch    bool
	selector string
	filter   *list[string]
}

func (a *app) getCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...]",
		Short: "Show objects",
		Long: `Show the objects of a kind, all or those named: services, tasks, nodes, networks, secrets, configs, volumes, clusters,
users, members, attachments, servicerevisions. What -o yaml prints can be changed and applied again.

A template sees what -o json prints: the object itself where exactly one NAME is given, otherwise a list, whose objects are
.items.`,
		Example: `  swarmctl get services
  swarmctl get service web -o yaml
  swarmctl get tasks -l tier=front --watch
  swarmctl get node self -o go-template='{{.metadata.id}} {{.status.state}}'
  swarmctl get tasks -o go-template='{{range .items}}{{.status.container.pid}} {{end}}'`,
		Args:              minArgs(1),
		ValidArgsFunction: a.completeKindAndNames,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.get(cmd, &f, args) },
	}
	f.filter = newStrings()
	s := cmd.Flags()
	s.StringVarP(&f.output, "output", "o", "table", "How to print: table, wide, json, yaml, name, or go-template=TEMPLATE")
	s.BoolVarP(&f.watch, "watch", "w", false, "Go on with what changes, until interrupted")
	s.StringVarP(&f.selector, "selector", "l", "", "Only objects with all of these labels: key=value or key, separated by commas")
	s.Var(f.filter, "filter", "Only objects that this holds for, as in Docker's lists: key=value")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "json", "yaml", "name", "go-template="}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	return cmd
}

// kindAndNames reads KIND [NAME...] and KIND/NAME....
func kindAndNames(args []string) (v1.Descriptor, []string, error) {
	if !strings.Contains(args[0], "/") {
		k, err := parseKind(args[0])
		return k, args[1:], err
	}
	var kind v1.Descriptor
	var refs []string
	for _, arg := range args {
		text, name, ok := strings.Cut(arg, "/")
		if !ok || name == "" {
			return nil, nil, fmt.Errorf("%q: want KIND/NAME, as the first argument is", arg)
		}
		k, err := parseKind(text)
		if err != nil {
			return nil, nil, err
		}
		if kind != nil && kind.Kind() != k.Kind() {
			return nil, nil, errors.New("want objects of one kind at a time")
		}
		kind, refs = k, append(refs, name)
	}
	return kind, refs, nil
}

func (a *app) get(cmd *cobra.Command, f *getFlags, args []string) error {
	k, refs, err := kindAndNames(args)
	if err != nil {
		return err
	}
	filter, err := v1.ParseFilters(f.filter.all)
	if err == nil {
		err = filter.Check(k.Kind())
	}
	if err != nil {
		return err
	}
	match, err := parseSelector(f.selector)
	if err != nil {
		return err
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	p, err := a.newPrinter(c, k, f.output)
	if err != nil {
		return err
	}
	if f.watch {
		return a.watchObjects(cmd.Context(), p, refs, filter, match)
	}
	var objects []v1.Object
	var errs []error
	if len(refs) == 0 {
		if objects, err = listObjects(cmd.Context(), c, k, filter); err != nil {
			return daemonError(err)
		}
	}
	for _, ref := range refs {
		o, err := getObject(cmd.Context(), c, k, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		objects = append(objects, o)
	}
	objects = slices.DeleteFunc(objects, func(o v1.Object) bool { return !match(o.GetMeta().Labels) })
	p.single = len(refs) == 1
	if len(objects) > 0 || len(errs) == 0 {
		if err := p.print(cmd.Context(), objects); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// parseSelector reads labels that all have to be there: key=value, key==value, key!=value, key.
func parseSelector(text string) (func(map[string]string) bool, error) {
	type term struct {
		key, value string
		not, any   bool
	}
	var terms []term
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		t := term{key: key, value: strings.TrimPrefix(value, "="), any: !ok}
		if before, ok0 := strings.CutSuffix(key, "!"); ok0 {
			t.key, t.not = before, true
		}
		t.key, t.value = strings.TrimSpace(t.key), strings.TrimSpace(t.value)
		if t.key == "" {
			return nil, fmt.Errorf("selector %q: want key=value, key!=value or key, separated by commas", text)
		}
		terms = append(terms, t)
	}
	return func(labels map[string]string) bool {
		for _, t := range terms {
			v, ok := labels[t.key]
			if t.any && !ok || !t.any && (ok && v == t.value) == t.not {
				return false
			}
		}
		return true
	}, nil
}

// listObjects is all objects of a kind that a filter lets through, by name.
func listObjects(ctx context.Context, c *client.Client, k v1.Descriptor, f v1.Filter) ([]v1.Object, error) {
	switch k.Kind() {
	case v1.KindService:
		return listOf(ctx, c, v1.Services, f)
	case v1.KindServiceRevision:
		return listOf(ctx, c, v1.ServiceRevisions, f)
	case v1.KindTask:
		return listOf(ctx, c, v1.Tasks, f)
	case v1.KindNode:
		return listOf(ctx, c, v1.Nodes, f)
	case v1.KindNetwork:
		return listOf(ctx, c, v1.Networks, f)
	case v1.KindSecret:
		return listOf(ctx, c, v1.Secrets, f)
	case v1.KindConfig:
		return listOf(ctx, c, v1.Configs, f)
	case v1.KindVolume:
		return listOf(ctx, c, v1.Volumes, f)
	case v1.KindRegistry:
		return listOf(ctx, c, v1.Registries, f)
	case v1.KindCluster:
		return listOf(ctx, c, v1.Clusters, f)
	case v1.KindUser:
		return listOf(ctx, c, v1.Users, f)
	case v1.KindMember:
		return listOf(ctx, c, v1.Members, f)
	case v1.KindAttachment:
		return listOf(ctx, c, v1.Attachments, f)
	}
	return nil, fmt.Errorf("%s objects cannot be listed", k.Kind())
}

func listOf[S, D, T any](ctx context.Context, c *client.Client, k v1.KindOf[S, D, T], f v1.Filter) ([]v1.Object, error) {
	all, err := client.List(ctx, c, k, f)
	if err != nil {
		return nil, err
	}
	objects := make([]v1.Object, len(all))
	for i, o := range all {
		objects[i] = o
	}
	slices.SortStableFunc(objects, func(x, y v1.Object) int { return naturalCompare(objectName(x), objectName(y)) })
	return objects, nil
}

// getObject finds one object by ID, name or the beginning of its ID.
func getObject(ctx context.Context, c *client.Client, k v1.Descriptor, ref string) (v1.Object, error) {
	switch k.Kind() {
	case v1.KindNode:
		n, err := getNode(ctx, c, ref)
		if err != nil {
			return nil, err
		}
		return n, nil
	case v1.KindTask:
		t, err := getTask(ctx, c, ref)
		if err != nil {
			return nil, err
		}
		return t, nil
	case v1.KindMember: // it has its node's ID, and people know the node
		n, err := getNode(ctx, c, ref)
		if err == nil {
			ref = n.Meta.ID
		} else if !notFound(err) {
			return nil, err
		}
	}
	o := k.New()
	if err := c.Do(ctx, http.MethodGet, "/v1/"+k.Plural()+"/"+url.PathEscape(ref), nil, o); err != nil {
		return nil, apiError(err, k.Kind(), ref)
	}
	return o, nil
}

func (a *app) completeKindAndNames(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		var kinds []string
		for _, d := range v1.Kinds {
			if !v1.Internal(d.Kind()) {
				kinds = append(kinds, d.Plural())
			}
		}
		return kinds, cobra.ShellCompDirectiveNoFileComp
	}
	k, err := parseKind(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, err := a.daemon()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	objects, err := listObjects(ctx, c, k, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var all []string
	for _, o := range objects {
		if name := objectName(o); !slices.Contains(args, name) {
			all = append(all, name)
		}
	}
	return slices.Compact(all), cobra.ShellCompDirectiveNoFileComp
}
