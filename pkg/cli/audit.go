package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// auditRow is what a template of audit sees.
type auditRow struct {
	From   string
	Object string
	Result string
	Time   string
	What   string
	Who    string
}

var auditTable = table{
	columns:  `{{.Time}}\t{{.Who}}\t{{.What}}\t{{.Object}}\t{{.Result}}\t{{.From}}`,
	headings: map[string]string{"Time": "TIME", "Who": "WHO", "What": "WHAT", "Object": "OBJECT", "Result": "RESULT", "From": "FROM"},
}

// maxAudit bounds how many records are asked for.
const maxAudit = 10_000

func (a *app) auditCommand() *cobra.Command {
	var format, since string
	var tail int
	cmd := &cobra.Command{
		Use:   "audit [OPTIONS]",
		Short: "Show who changed what",
		Long: `Show the audit log of the manager that answers: every request that changes something or that tells a key or a token, who made
it, and what came of it, newest last. What was sent is not in it. Each manager keeps the records of what it was asked.`,
		Example: `  swarmctl audit --tail 20
  swarmctl audit --since 1h --format json`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if tail < 1 || tail > maxAudit {
				return fmt.Errorf("--tail %d: want 1 to %d", tail, maxAudit)
			}
			var from time.Time
			if since != "" {
				var err error
				if from, err = parseTime(since, a.Now()); err != nil {
					return fmt.Errorf("invalid --since %q: %w", since, err)
				}
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			log, err := c.Audit(cmd.Context(), from, tail)
			if err != nil {
				return daemonError(err)
			}
			rows := make([]any, len(log.Items))
			for i := range log.Items {
				rows[i] = newAuditRow(&log.Items[i])
				if format == "json" {
					rows[i] = log.Items[i]
				}
			}
			return auditTable.write(a.Out, format, false, rows)
		},
	}
	s := cmd.Flags()
	s.StringVar(&since, "since", "", `Show what happened since a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	s.IntVarP(&tail, "tail", "n", 100, "Number of records to show, the newest")
	s.StringVar(&format, "format", "", `Format output: "table", "table TEMPLATE", "json", or a Go template`)
	return cmd
}

func newAuditRow(r *v1.AuditRecord) auditRow {
	row := auditRow{From: r.From, Time: r.Time.UTC().Format(time.RFC3339), Who: r.Who.Kind, What: r.Method + " " + r.Path}
	if r.Query != "" {
		row.What += "?" + r.Query
	}
	switch {
	case r.Who.Kind == "":
		row.Who = "nobody"
	case r.Who.Name != "":
		row.Who += " " + r.Who.Name
	}
	if r.Kind != "" {
		name := r.Name
		if name == "" {
			name = r.ID
		}
		row.Object = ref(r.Kind, name)
	}
	row.Result = strings.TrimSpace(strconv.Itoa(r.Status) + " " + r.Error)
	return row
}
