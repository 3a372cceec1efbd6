package cli

import (
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func (a *app) eventsCommand() *cobra.Command {
	var format string
	filters := newStrings()
	cmd := &cobra.Command{
		Use:   "events [OPTIONS]",
		Short: "Show what happens, as it happens",
		Example: `  swarmctl events --filter type=service
  swarmctl events --format '{{.Type}} {{.Action}} {{index .Actor.Attributes "name"}}'`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := v1.ParseFilters(filters.all)
			if err == nil {
				err = filter.Check(v1.KindEvent)
			}
			if err != nil {
				return err
			}
			if format == "json" {
				format = "{{json .}}"
			}
			tmpl, err := parseTemplate(format)
			if err != nil {
				return err
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			for e, err := range c.Events(ctx, filter, -1) {
				if err != nil {
					if ctx.Err() != nil {
						return nil
					}
					return daemonError(err)
				}
				if format == "" {
					a.printf("%s\n", cell(eventLine(&e)))
					continue
				}
				if err := tmpl.Execute(a.Out, convertEvent(&e)); err != nil {
					return err
				}
				a.printf("\n")
			}
			return nil
		},
	}
	s := cmd.Flags()
	s.VarP(filters, "filter", "f", "Filter output based on conditions provided ("+strings.Join(v1.FilterKeys(v1.KindEvent), ", ")+")")
	s.StringVar(&format, "format", "", `Format output: "json", or a Go template`)
	return cmd
}

// dockerEvent is an event as docker events prints it.
type dockerEvent struct {
	Type     string
	Action   string
	Actor    dockerActor
	Scope    string `json:"scope"`
	Time     int64  `json:"time"`
	TimeNano int64  `json:"timeNano"`
}

type dockerActor struct {
	ID         string
	Attributes map[string]string
}

func convertEvent(e *v1.Event) dockerEvent {
	return dockerEvent{e.Type, e.Action, dockerActor{e.ID, e.Attributes}, "swarm", e.Time.Unix(), e.Time.UnixNano()}
}

func eventLine(e *v1.Event) string {
	attributes := make([]string, 0, len(e.Attributes))
	for _, k := range slices.Sorted(maps.Keys(e.Attributes)) {
		attributes = append(attributes, k+"="+e.Attributes[k])
	}
	line := e.Time.Format("2006-01-02T15:04:05.000000000Z07:00") + " " + e.Type + " " + e.Action + " " + e.ID
	if len(attributes) > 0 {
		line += " (" + strings.Join(attributes, ", ") + ")"
	}
	return line
}
