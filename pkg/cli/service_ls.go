package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// serviceRow is what a template of service ls sees.
type serviceRow struct {
	ID       string
	Image    string
	Mode     string
	Name     string
	Ports    string
	Replicas string
}

var serviceTable = table{
	columns: `{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}`,
	raw:     `id: {{.ID}}\nname: {{.Name}}\nmode: {{.Mode}}\nreplicas: {{.Replicas}}\nimage: {{.Image}}\nports: {{.Ports}}\n`,
	headings: map[string]string{"ID": "ID", "Name": "NAME", "Mode": "MODE", "Replicas": "REPLICAS", "Image": "IMAGE",
		"Ports": "PORTS"},
}

func (f *listFlags) add(cmd *cobra.Command, kind v1.Kind) {
	f.filter = newStrings()
	s := cmd.Flags()
	s.VarP(f.filter, "filter", "f", "Filter output based on conditions provided ("+strings.Join(v1.FilterKeys(kind), ", ")+")")
	s.StringVar(&f.format, "format", "", `Format output: "table", "table TEMPLATE", "json", or a Go template`)
	s.BoolVarP(&f.quiet, "quiet", "q", false, "Only display IDs")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("filter", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var keys []string
		for _, k := range v1.FilterKeys(kind) {
			keys = append(keys, k+"=")
		}
		return keys, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	})
}

// filters are what --filter says of a kind.
func (f *listFlags) filters(kind v1.Kind) (v1.Filter, error) {
	filter, err := v1.ParseFilters(f.filter.all)
	if err == nil {
		err = filter.Check(kind)
	}
	return filter, err
}

func (a *app) serviceListCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short: "List services",
		Example: `  swarmctl service ls
  swarmctl service ls --filter mode=global --format '{{.Name}}: {{.Replicas}}'`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.listServices(cmd.Context(), &f) },
	}
	f.add(cmd, v1.KindService)
	return cmd
}

func (a *app) listServices(ctx context.Context, f *listFlags) error {
	filter, err := f.filters(v1.KindService)
	if err != nil {
		return err
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	services, err := client.List(ctx, c, v1.Services, filter)
	if err != nil {
		return daemonError(err)
	}
	return a.printServices(ctx, c, f, services)
}

// printServices prints services in Docker's order: by name.
func (a *app) printServices(ctx context.Context, c *client.Client, f *listFlags, services []*v1.Service) error {
	var statuses map[string]v1.ServiceStatus
	if !f.quiet && len(services) > 0 {
		var err error
		if statuses, err = c.ServiceStatuses(ctx); err != nil {
			return daemonError(err)
		}
	}
	byName(services)
	rows := make([]any, len(services))
	for i, s := range services {
		row := newServiceRow(s, statuses[s.Meta.ID])
		if f.quiet {
			row.ID = shortID(s.Meta.ID)
		}
		rows[i] = row
	}
	return serviceTable.write(a.Out, f.format, f.quiet, rows)
}

// byName sorts objects by name, the way people count.
func byName[S, D, T any](all []*v1.Resource[S, D, T]) {
	slices.SortStableFunc(all, func(x, y *v1.Resource[S, D, T]) int {
		return cmp.Or(naturalCompare(x.Meta.Name, y.Meta.Name), strings.Compare(x.Meta.ID, y.Meta.ID))
	})
}

func newServiceRow(s *v1.Service, status v1.ServiceStatus) serviceRow {
	s = v1.Effective(s)
	ports := convertService(s, nil, names{}).Endpoint.Ports
	return serviceRow{
		ID: shortID(s.Meta.ID), Name: s.Meta.Name, Mode: strings.ReplaceAll(string(s.Spec.Mode), "-", " "),
		Replicas: replicasText(s, status), Image: familiarImage(s.Spec.Task.Container.Image), Ports: portsText(ports),
	}
}

func replicasText(service *v1.Service, status v1.ServiceStatus) string {
	s := service.Spec
	text := fmt.Sprintf("%d/%d", status.RunningTasks, status.DesiredTasks)
	switch {
	case s.Mode == v1.ModeCron:
		return fmt.Sprintf("%s (%s)", text, nextRun(service))
	case s.Mode == v1.ModeReplicatedJob:
		var total uint64
		if s.Replicas != nil {
			total = *s.Replicas
		}
		return fmt.Sprintf("%s (%d/%d completed)", text, status.CompletedTasks, total)
	case s.Mode == v1.ModeGlobalJob:
		return fmt.Sprintf("%s (%d/%d completed)", text, status.CompletedTasks, status.DesiredTasks+status.CompletedTasks)
	case s.Mode == v1.ModeReplicated && s.Task.Placement != nil && s.Task.Placement.MaxReplicas > 0:
		return fmt.Sprintf("%s (max %d per node)", text, s.Task.Placement.MaxReplicas)
	}
	return text
}

// familiarImage is a reference as people write it, without a digest where it has a tag too.
func familiarImage(image string) string {
	ref, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	tagged, ok := ref.(reference.NamedTagged)
	if !ok {
		return image
	}
	short, err := reference.WithTag(reference.TrimNamed(tagged), tagged.Tag())
	if err != nil {
		return image
	}
	return reference.FamiliarString(short)
}

// portsText is the published ingress ports, consecutive ones as ranges: *:80-81->80-81/tcp, 127.0.0.1:82->80/tcp.
func portsText(ports []dockerPort) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(x, y dockerPort) int {
		return cmp.Or(strings.Compare(x.Protocol, y.Protocol), strings.Compare(x.place(), y.place()), cmp.Compare(x.PublishedPort, y.PublishedPort), cmp.Compare(x.TargetPort, y.TargetPort))
	})
	type span struct {
		protocol, place            string
		pubLow, pubHigh, low, high uint32
	}
	var spans []span
	for _, p := range ports {
		if p.PublishMode != string(v1.PublishIngress) || p.PublishedPort == 0 { // 0 is not chosen yet
			continue
		}
		if n := len(spans); n > 0 {
			last := &spans[n-1]
			next := p.PublishedPort == last.pubHigh+1 && p.Protocol == last.protocol && p.place() == last.place
			parallel := p.TargetPort == last.high+1 && last.pubHigh-last.pubLow == last.high-last.low
			many := p.TargetPort == last.high && last.low == last.high
			if next && (parallel || many) {
				last.pubHigh, last.high = p.PublishedPort, p.TargetPort
				continue
			}
		}
		spans = append(spans, span{p.Protocol, p.place(), p.PublishedPort, p.PublishedPort, p.TargetPort, p.TargetPort})
	}
	texts := make([]string, len(spans))
	for i, s := range spans {
		texts[i] = fmt.Sprintf("%s:%s->%s/%s", s.place, rangeText(s.pubLow, s.pubHigh), rangeText(s.low, s.high), s.protocol)
	}
	return strings.Join(texts, ", ")
}

// place is where the port answers, as it stands before one.
func (p dockerPort) place() string {
	if strings.Contains(p.HostIP, ":") {
		return "[" + p.HostIP + "]"
	}
	return cmp.Or(p.HostIP, p.Interface, "*")
}

func rangeText(low, high uint32) string {
	if low == high {
		return fmt.Sprint(low)
	}
	return fmt.Sprintf("%d-%d", low, high)
}
