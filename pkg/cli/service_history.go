package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// revisionRow is what a template of service history sees.
type revisionRow struct {
	Created  string
	ID       string
	Image    string
	Note     string
	Revision string
}

var historyTable = table{
	columns:  `{{.Revision}}\t{{.Created}}\t{{.Image}}\t{{.Note}}`,
	raw:      `revision: {{.Revision}}\nid: {{.ID}}\ncreated: {{.Created}}\nimage: {{.Image}}\nnote: {{.Note}}\n`,
	headings: map[string]string{"Revision": "REVISION", "Created": "CREATED", "Image": "IMAGE", "Note": "NOTE", "ID": "ID"},
}

func (a *app) serviceHistoryCommand() *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "history [OPTIONS] SERVICE",
		Short: "List the revisions of a service",
		Long: `List what the tasks of a service ran, the latest first: each change of task or endpoint is a revision. The last ten are kept, and
those that tasks still run. A revision that the service came back to keeps its number.`,
		Example: `  swarmctl service history web
  swarmctl service rollback --to 3 web`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.serviceHistory(cmd.Context(), args[0], format, quiet)
		},
	}
	s := cmd.Flags()
	s.StringVar(&format, "format", "", `Format output: "table", "table TEMPLATE", "json", or a Go template`)
	s.BoolVarP(&quiet, "quiet", "q", false, "Only display IDs")
	return cmd
}

func (a *app) serviceHistory(ctx context.Context, ref, format string, quiet bool) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	svc, err := client.Get(ctx, c, v1.Services, ref)
	if err != nil {
		return apiError(err, v1.KindService, ref)
	}
	h, err := historyOf(ctx, c, svc)
	if err != nil {
		return err
	}
	rows := make([]any, len(h.revisions))
	for i, r := range h.revisions {
		rows[i] = revisionRow{Revision: strconv.FormatUint(r.Spec.Number, 10), ID: r.Meta.ID, Created: ago(a.Now(), r.Meta.CreatedAt),
			Image: familiarImage(r.Spec.Task.Container.Image), Note: h.note(r)}
	}
	return historyTable.write(a.Out, format, quiet, rows)
}

// note says what a revision is to its service.
func (h *history) note(r *v1.ServiceRevision) string {
	back := (*v1.RolledBack)(nil)
	if d := h.service.Desired; d != nil {
		back = d.RolledBack
	}
	switch {
	case r.Meta.ID == h.current:
		return "current"
	case back != nil && back.From == r.Meta.ID:
		return "failed, rolled back"
	case r == h.previous():
		return "previous"
	}
	return ""
}
