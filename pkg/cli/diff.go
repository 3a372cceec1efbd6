package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) diffCommand() *cobra.Command {
	var f fileFlags
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what apply would change",
		Long: `Show what apply would change, line by line, with defaults filled in. Nothing is changed.

Exits with status 0 where there is no difference, 1 where there is one, and 2 where it could not be found out.`,
		Example: "  swarmctl diff -f web.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			different, err := a.diff(cmd.Context(), &f)
			switch {
			case err != nil:
				return &exitError{code: 2, text: "Error: " + err.Error()}
			case different:
				return &exitError{code: 1}
			}
			return nil
		},
	}
	f.add(cmd, "to compare with what there is")
	return cmd
}

func (a *app) diff(ctx context.Context, f *fileFlags) (different bool, err error) {
	docs, err := a.readManifests(f.files, f.recursive)
	if err != nil {
		return false, err
	}
	c, err := a.daemon()
	if err != nil {
		return false, err
	}
	for _, d := range docs {
		text, err := diffOne(ctx, c, d)
		if err != nil {
			return different, located(d.where, fmt.Errorf("%s: %w", d.name(), daemonError(err)))
		}
		if len(text) > 0 {
			different = true
			a.printf("%s", text)
		}
	}
	return different, nil
}

// diffOne asks the daemon what would become of a manifest and compares that with what there is.
func diffOne(ctx context.Context, c *client.Client, d document) ([]byte, error) {
	r, err := applyOne(ctx, c, d, true)
	if err != nil {
		return nil, err
	}
	after, err := written(d.Kind, r.object)
	if err != nil {
		return nil, err
	}
	var before []byte
	if r.before != nil {
		if before, err = written(d.Kind, r.before); err != nil {
			return nil, err
		}
	}
	return bytes.TrimPrefix(diff.Diff("swarm/"+d.name(), before, d.where+"/"+d.name(), after), []byte("diff ")), nil
}

// written is the part of an object that users write, as YAML. Of a secret's data, which the daemon never shows, there is
// nothing.
func written(k v1.Kind, o v1.Object) ([]byte, error) {
	describer, _ := v1.Describe(k)
	m := o.GetMeta()
	meta := map[string]any{"name": m.Name}
	if len(m.Labels) > 0 {
		meta["labels"] = m.Labels
	}
	data, err := json.Marshal(map[string]any{"apiVersion": v1.APIVersion, "kind": k, "metadata": meta,
		"spec": describer.Section(o, v1.SectionSpec)})
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(data)
}
