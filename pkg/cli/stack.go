package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/pkg/compose"
)

// stackRow is what a template of stack ls sees.
type stackRow struct {
	Name     string
	Services string
}

var stackTable = table{
	columns:  `{{.Name}}\t{{.Services}}`,
	raw:      `name: {{.Name}}\nservices: {{.Services}}\n`,
	headings: map[string]string{"Name": "NAME", "Services": "SERVICES"},
}

func (a *app) stackCommand() *cobra.Command {
	return group("stack", "Manage stacks: what compose files describe", `  swarmctl stack deploy -c compose.yml shop
  swarmctl stack services shop
  swarmctl stack ps shop
  swarmctl stack rm shop`,
		a.stackConfigCommand(), a.stackDeployCommand(), a.stackListCommand(), a.stackPsCommand(), a.stackRemoveCommand(),
		a.stackServicesCommand())
}

// inStack is the filter for what belongs to a stack.
func inStack(stack string) v1.Filter {
	return v1.Filter{"label": {compose.LabelNamespace + "=" + stack}}
}

// checkStackName refuses a name that cannot begin the names of services.
func checkStackName(stack string) error {
	if err := v1.ValidateName(v1.KindService, stack); err != nil {
		return fmt.Errorf("invalid stack name: %w", err)
	}
	return nil
}

func (a *app) stackListCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:                 "List stacks",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			counts, err := a.stacks(cmd.Context())
			if err != nil {
				return err
			}
			var rows []any
			for _, name := range slices.SortedFunc(maps.Keys(counts), naturalCompare) {
				rows = append(rows, stackRow{name, fmt.Sprint(counts[name])})
			}
			return stackTable.write(a.Out, format, false, rows)
		},
	}
	cmd.Flags().StringVar(&format, "format", "", `Format output: "table", "table TEMPLATE", "json", or a Go template`)
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// stacks are how many services each stack has, by its name.
func (a *app) stacks(ctx context.Context) (map[string]int, error) {
	c, err := a.daemon()
	if err != nil {
		return nil, err
	}
	services, err := client.List(ctx, c, v1.Services, v1.Filter{"label": {compose.LabelNamespace}})
	if err != nil {
		return nil, daemonError(err)
	}
	counts := make(map[string]int)
	for _, s := range services {
		counts[s.Meta.Labels[compose.LabelNamespace]]++
	}
	return counts, nil
}

// completeStacks completes names of stacks, those that are not on the line yet.
func (a *app) completeStacks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	counts, err := a.stacks(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := slices.SortedFunc(maps.Keys(counts), naturalCompare)
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) }), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) stackServicesCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:   "services [OPTIONS] STACK",
		Short: "List the services in the stack",
		Example: `  swarmctl stack services shop
  swarmctl stack services --filter name=shop_web --format '{{.Name}}: {{.Replicas}}' shop`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeStacks,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.stackServices(cmd.Context(), &f, args[0])
		},
	}
	f.add(cmd, v1.KindService)
	return cmd
}

func (a *app) stackServices(ctx context.Context, f *listFlags, stack string) error {
	filter, err := f.filters(v1.KindService)
	if err != nil {
		return err
	}
	if err := checkStackName(stack); err != nil {
		return err
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	services, err := client.List(ctx, c, v1.Services, filter.Add("label", compose.LabelNamespace+"="+stack))
	if err != nil {
		return daemonError(err)
	}
	if len(services) == 0 {
		fmt.Fprintf(a.Err, "Nothing found in stack: %s\n", stack)
		return nil
	}
	return a.printServices(ctx, c, f, services)
}

func (a *app) stackPsCommand() *cobra.Command {
	var f psFlags
	cmd := &cobra.Command{
		Use:   "ps [OPTIONS] STACK",
		Short: "List the tasks in the stack",
		Example: `  swarmctl stack ps shop
  swarmctl stack ps --no-trunc --filter desired-state=running shop`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeStacks,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.stackPs(cmd.Context(), &f, args[0]) },
	}
	f.add(cmd)
	return cmd
}

func (a *app) stackPs(ctx context.Context, f *psFlags, stack string) error {
	if err := checkStackName(stack); err != nil {
		return err
	}
	c, filter, err := a.taskFilter(ctx, f)
	if err != nil {
		return err
	}
	services, err := client.List(ctx, c, v1.Services, inStack(stack))
	if err != nil {
		return daemonError(err)
	}
	ids := make(map[string]bool)
	for _, s := range services {
		ids[s.Meta.ID] = true
	}
	tasks, err := listTasks(ctx, c, filter, "service", ids)
	if err != nil {
		return err
	}
	if len(tasks) == 0 {
		return errors.New("nothing found in stack: " + stack)
	}
	return a.printTasks(ctx, c, f, tasks)
}
