package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// dataRow is what a template of secret ls and config ls sees.
type dataRow struct {
	CreatedAt string
	Driver    string
	ID        string
	Labels    string
	Name      string
	UpdatedAt string
}

var dataHeadings = map[string]string{"ID": "ID", "Name": "NAME", "Driver": "DRIVER", "CreatedAt": "CREATED", "UpdatedAt": "UPDATED",
	"Labels": "LABELS"}

var secretTable = table{columns: `{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}`, headings: dataHeadings}

var configTable = table{columns: `{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}`, headings: dataHeadings}

func (a *app) secretCommand() *cobra.Command {
	k := dataKind[v1.SecretSpec]{a, v1.Secrets, secretTable, v1.MaxSecretSize, convertSecret}
	return group("secret", "Manage Swarm secrets", `  printf 's3cr3t' | swarmctl secret create db-password -
  swarmctl secret ls`,
		a.secretCreateCommand(), k.inspectCommand(), k.listCommand(),
		removeCommand(a, v1.Secrets, "secrets", "Remove one or more secrets. One that a service uses stays."))
}

func (a *app) configCommand() *cobra.Command {
	k := dataKind[v1.ConfigSpec]{a, v1.Configs, configTable, v1.MaxConfigSize, convertConfig}
	return group("config", "Manage Swarm configs", `  swarmctl config create nginx-conf ./nginx.conf
  swarmctl config inspect --pretty nginx-conf`,
		a.configCreateCommand(), k.inspectCommand(), k.listCommand(),
		removeCommand(a, v1.Configs, "configs", "Remove one or more configs. One that a service uses stays."))
}

// dataKind is what secrets and configs have in common.
type dataKind[S any] struct {
	*app
	kind    v1.KindOf[S, v1.None, v1.None]
	table   table
	limit   int64 // exclusive, in bytes
	convert func(*v1.Resource[S, v1.None, v1.None]) *dockerData
}

func (k dataKind[S]) name() string { return strings.ToLower(string(k.kind.Kind())) }

func (k dataKind[S]) listCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:                 "List " + k.name() + "s",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.filters(k.kind.Kind())
			if err != nil {
				return err
			}
			c, err := k.daemon()
			if err != nil {
				return err
			}
			all, err := client.List(cmd.Context(), c, k.kind, filter)
			if err != nil {
				return daemonError(err)
			}
			byName(all)
			rows := make([]any, len(all))
			for i, o := range all {
				rows[i] = newDataRow(k.convert(o), k.Now())
			}
			return k.table.write(k.Out, f.format, f.quiet, rows)
		},
	}
	f.add(cmd, k.kind.Kind())
	return cmd
}

func newDataRow(d *dockerData, now time.Time) dataRow {
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) + " ago" }
	row := dataRow{ID: d.ID, Name: d.Spec.Name, CreatedAt: ago(d.CreatedAt), UpdatedAt: ago(d.UpdatedAt), Labels: pairs(d.Spec.Labels)}
	if d.Spec.Driver != nil {
		row.Driver = d.Spec.Driver.Name
	}
	return row
}

func (k dataKind[S]) inspectCommand() *cobra.Command {
	var f inspectFlags
	upper := strings.ToUpper(k.name())
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] " + upper + " [" + upper + "...]",
		Short:                 "Display detailed information on one or more " + k.name() + "s",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(k.app, k.kind),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			c, err := k.daemon()
			if err != nil {
				return err
			}
			get := func(ref string) (any, error) {
				o, err := client.Get(cmd.Context(), c, k.kind, ref)
				if err != nil {
					return nil, apiError(err, k.kind.Kind(), ref)
				}
				return k.convert(o), nil
			}
			if f.pretty {
				return k.writePretty(dataPretty, args, get)
			}
			return inspect(k.Out, f.format, args, get)
		},
	}
	f.add(cmd, true)
	return cmd
}

func (a *app) secretCreateCommand() *cobra.Command {
	var driver, templating string
	labels := newList("list", parseLabel)
	cmd := &cobra.Command{
		Use:                   "create [OPTIONS] SECRET [file|-]",
		Short:                 "Create a secret from a file or STDIN as content",
		Example:               "  printf 's3cr3t' | swarmctl secret create db-password -",
		Args:                  rangeArgs(1, 2),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := &v1.SecretSpec{Driver: driverFlag(driver), Templating: driverFlag(templating)}
			switch {
			case driver != "" && len(args) == 2:
				return fmt.Errorf("when using secret driver secret data must be empty")
			case driver == "" && len(args) == 1:
				return usageError(cmd, "%s: '%s' requires 2 arguments without --driver", cmd.Root().Name(), cmd.CommandPath())
			case len(args) == 2:
				data, err := a.readData(args[1], v1.MaxSecretSize)
				if err != nil {
					return err
				}
				spec.Data = data
			}
			return createData(cmd.Context(), a, v1.Secrets, args[0], labels.all, spec)
		},
	}
	s := cmd.Flags()
	s.VarP(labels, "label", "l", "Secret labels")
	s.StringVarP(&driver, "driver", "d", "", "Secret driver")
	s.StringVar(&templating, "template-driver", "", "Template driver")
	return cmd
}

func (a *app) configCreateCommand() *cobra.Command {
	var templating string
	labels := newList("list", parseLabel)
	cmd := &cobra.Command{
		Use:                   "create [OPTIONS] CONFIG file|-",
		Short:                 "Create a config from a file or STDIN",
		Example:               "  swarmctl config create nginx-conf ./nginx.conf",
		Args:                  exactArgs(2),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := a.readData(args[1], v1.MaxConfigSize)
			if err != nil {
				return err
			}
			return createData(cmd.Context(), a, v1.Configs, args[0], labels.all, &v1.ConfigSpec{Data: data, Templating: driverFlag(templating)})
		},
	}
	s := cmd.Flags()
	s.VarP(labels, "label", "l", "Config labels")
	s.StringVar(&templating, "template-driver", "", "Template driver")
	return cmd
}

func driverFlag(name string) *v1.Driver {
	if name == "" {
		return nil
	}
	return &v1.Driver{Name: name}
}

func createData[S any](ctx context.Context, a *app, k v1.KindOf[S, v1.None, v1.None], name string, labels []string, spec *S) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	o := &v1.Resource[S, v1.None, v1.None]{Spec: spec}
	o.Meta.Name, o.Meta.Labels = name, toMap(labels)
	created, warnings, err := client.Create(ctx, c, k, o)
	if err != nil {
		return daemonError(err)
	}
	a.warn(warnings)
	a.printf("%s\n", created.Meta.ID)
	return nil
}

// readData reads a file, or In for "-", up to a limit in bytes.
func (a *app) readData(name string, limit int64) ([]byte, error) {
	in := a.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("error reading content from %q: %w", name, err)
	case int64(len(data)) >= limit:
		return nil, fmt.Errorf("content of %q is too large: want less than %d bytes", name, limit)
	case len(data) == 0:
		return nil, fmt.Errorf("error reading content from %q: data is empty", name)
	}
	return data, nil
}
