package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// taskRow is what a template of service ps, node ps and task lists sees.
type taskRow struct {
	CurrentState string
	DesiredState string
	Error        string
	ID           string
	Image        string
	Name         string
	Node         string
	Ports        string
}

var taskTable = table{
	columns: `{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}`,
	raw: `id: {{.ID}}\nname: {{.Name}}\nimage: {{.Image}}\nnode: {{.Node}}\ndesired_state: {{.DesiredState}}\n` +
		`current_state: {{.CurrentState}}\nerror: {{.Error}}\nports: {{.Ports}}\n`,
	headings: map[string]string{"ID": "ID", "Name": "NAME", "Image": "IMAGE", "Node": "NODE", "DesiredState": "DESIRED STATE",
		"CurrentState": "CURRENT STATE", "Error": "ERROR", "Ports": "PORTS"},
}

// maxErrorWidth is how much of an error a table shows.
const maxErrorWidth = 30

// psFlags are those of lists of tasks.
type psFlags struct {
	listFlags
	noResolve bool
}

func (f *psFlags) add(cmd *cobra.Command) {
	f.listFlags.add(cmd, v1.KindTask)
	s := cmd.Flags()
	s.Lookup("quiet").Usage = "Only display task IDs"
	s.BoolVar(&f.noTrunc, "no-trunc", false, "Do not truncate output")
	s.BoolVar(&f.noResolve, "no-resolve", false, "Do not map IDs to Names")
}

func (a *app) servicePsCommand() *cobra.Command {
	var f psFlags
	cmd := &cobra.Command{
		Use:   "ps [OPTIONS] SERVICE [SERVICE...]",
		Short: "List the tasks of one or more services",
		Long:  "List the tasks of services: those that run, and below each (\\_) those that were in its place before.",
		Example: `  swarmctl service ps web
  swarmctl service ps --no-trunc --filter desired-state=running web`,
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.servicePs(cmd.Context(), &f, args) },
	}
	f.add(cmd)
	return cmd
}

func (a *app) servicePs(ctx context.Context, f *psFlags, refs []string) error {
	c, filter, err := a.taskFilter(ctx, f)
	if err != nil {
		return err
	}
	var missing []error
	found := make(map[string]bool)
	for _, ref := range refs {
		svc, err := client.Get(ctx, c, v1.Services, ref)
		switch err := apiError(err, v1.KindService, ref); {
		case notFound(err):
			missing = append(missing, err)
		case err != nil:
			return err
		default:
			found[svc.Meta.ID] = true
		}
	}
	if len(found) > 0 {
		tasks, err := listTasks(ctx, c, filter, "service", found)
		if err != nil {
			return err
		}
		if err := a.printTasks(ctx, c, f, tasks); err != nil {
			return err
		}
	}
	return errors.Join(missing...)
}

// taskFilter is what --filter says of tasks, and the daemon that is to be asked for them.
func (a *app) taskFilter(ctx context.Context, f *psFlags) (*client.Client, v1.Filter, error) {
	filter, err := f.filters(v1.KindTask)
	if err != nil {
		return nil, nil, err
	}
	c, err := a.daemon()
	if err != nil {
		return nil, nil, err
	}
	return c, filter, resolveNodes(ctx, c, filter)
}

// resolveNodes puts IDs in the place of the names in a filter of nodes.
func resolveNodes(ctx context.Context, c *client.Client, filter v1.Filter) error {
	for i, ref := range filter["node"] {
		n, err := getNode(ctx, c, ref)
		if err != nil {
			return err
		}
		filter["node"][i] = n.Meta.ID
	}
	return nil
}

// listTasks is the tasks of services or of nodes. It asks for each on its own, since alternatives of one key that the user
// gave narrow the list.
func listTasks(ctx context.Context, c *client.Client, filter v1.Filter, key string, ids map[string]bool) ([]*v1.Task, error) {
	var all []*v1.Task
	for id := range ids {
		narrowed := v1.Filter{}
		maps.Copy(narrowed, filter)
		if len(filter[key]) > 0 && !slices.Contains(filter[key], id) {
			continue
		}
		narrowed[key] = []string{id}
		tasks, err := client.List(ctx, c, v1.Tasks, narrowed)
		if err != nil {
			return nil, daemonError(err)
		}
		all = append(all, tasks...)
	}
	return all, nil
}

// printTasks prints tasks in Docker's order: by name, and those of one slot newest first.
func (a *app) printTasks(ctx context.Context, c *client.Client, f *psFlags, tasks []*v1.Task) error {
	tasks = slices.DeleteFunc(tasks, func(t *v1.Task) bool { return t.Desired == nil })
	if f.quiet {
		f.noTrunc = true
	}
	images, err := taskImages(ctx, c, tasks, f.quiet)
	if err != nil {
		return err
	}
	hosts := map[string]string{}
	if !f.noResolve && !f.quiet {
		if hosts, err = hostnames(ctx, c); err != nil {
			return err
		}
	}
	sortTasks(tasks)
	indent := ""
	if f.format == "" || strings.HasPrefix(f.format, "table") {
		indent = ` \_ `
	}
	rows := make([]any, len(tasks))
	previous := ""
	for i, t := range tasks {
		row := newTaskRow(t, images[t.Desired.Revision], !f.noTrunc, a.Now())
		if host := hosts[v1.TaskNode(t)]; host != "" {
			row.Node = host
		}
		if f.noResolve {
			row.Name = t.Desired.Service + strings.TrimPrefix(row.Name, t.Desired.ServiceName)
		}
		if row.Name == previous {
			row.Name = indent + row.Name
		} else {
			previous = row.Name
		}
		rows[i] = row
	}
	return taskTable.write(a.Out, f.format, f.quiet, rows)
}

func sortTasks(tasks []*v1.Task) {
	slices.SortStableFunc(tasks, func(x, y *v1.Task) int {
		if c := naturalCompare(v1.TaskName(x.Desired), v1.TaskName(y.Desired)); c != 0 {
			return c
		}
		return int(int64(y.Desired.Attempt) - int64(x.Desired.Attempt))
	})
}

func newTaskRow(t *v1.Task, image string, trunc bool, now time.Time) taskRow {
	d := convertTask(t, nil, names{})
	row := taskRow{
		ID: t.Meta.ID, Name: v1.TaskName(t.Desired), Image: image, Node: v1.TaskNode(t), DesiredState: pretty(d.DesiredState),
		CurrentState: fmt.Sprintf("%s %s ago", pretty(d.Status.State), strings.ToLower(units.HumanDuration(now.Sub(d.Status.Timestamp)))),
		Error:        d.Status.Err,
	}
	if trunc {
		row.ID, row.Image, row.Error = shortID(row.ID), familiarImage(image), ellipsis(row.Error, maxErrorWidth)
	}
	if row.Error != "" {
		row.Error = `"` + row.Error + `"`
	}
	ports := make([]string, len(d.Status.PortStatus.Ports))
	for i, p := range d.Status.PortStatus.Ports {
		ports[i] = fmt.Sprintf("%s:%d->%d/%s", p.place(), p.PublishedPort, p.TargetPort, p.Protocol)
	}
	row.Ports = strings.Join(ports, ",")
	return row
}

// taskImages finds the images that tasks run, by revision.
func taskImages(ctx context.Context, c *client.Client, tasks []*v1.Task, skip bool) (map[string]string, error) {
	images := make(map[string]string)
	if skip {
		return images, nil
	}
	services := make(map[string]bool)
	for _, t := range tasks {
		services[t.Desired.Service] = true
	}
	for id := range services {
		revisions, err := client.List(ctx, c, v1.ServiceRevisions, v1.Filter{"service": {id}})
		if err != nil {
			return nil, daemonError(err)
		}
		for _, r := range revisions {
			images[r.Meta.ID] = r.Spec.Task.Container.Image
		}
	}
	return images, nil
}

// hostnames are those of the nodes, by ID.
func hostnames(ctx context.Context, c *client.Client) (map[string]string, error) {
	nodes, err := client.List(ctx, c, v1.Nodes, nil)
	if err != nil {
		return nil, daemonError(err)
	}
	hosts := make(map[string]string, len(nodes))
	for _, n := range nodes {
		hosts[n.Meta.ID] = nodeName(n)
	}
	return hosts, nil
}

// nodeName is what people call a node: its name if it was given one, else its host's.
func nodeName(n *v1.Node) string {
	if n.Meta.Name != "" {
		return n.Meta.Name
	}
	if n.Status != nil && n.Status.Description.Hostname != "" {
		return n.Status.Description.Hostname
	}
	return n.Meta.ID
}
