package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// imageRow is what a template of image ls sees.
type imageRow struct {
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	Size         string
	Tag          string
}

var imageTable = table{
	columns: `{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}`,
	headings: map[string]string{"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED",
		"CreatedAt": "CREATED AT", "Size": "SIZE", "Digest": "DIGEST"},
}

func (a *app) imageCommand() *cobra.Command {
	return group("image", "Manage the images on the daemon's machine", `  swarmctl image load --input hello.tar
  swarmctl image ls`, a.imageListCommand(), a.imageLoadCommand())
}

func (a *app) imageListCommand() *cobra.Command {
	var format string
	var quiet, noTrunc bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:                 "List images",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			images, err := c.Images(cmd.Context())
			if err != nil {
				return daemonError(err)
			}
			slices.SortStableFunc(images, func(x, y v1.Image) int {
				return cmp.Or(y.Created.Compare(x.Created), strings.Compare(x.Name, y.Name))
			})
			rows := make([]any, len(images))
			for i, image := range images {
				rows[i] = a.newImageRow(&image, !noTrunc)
			}
			return imageTable.write(a.Out, format, quiet, rows)
		},
	}
	s := cmd.Flags()
	s.StringVar(&format, "format", "", `Format output: "table", "table TEMPLATE", "json", or a Go template`)
	s.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	s.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	return cmd
}

func (a *app) newImageRow(image *v1.Image, trunc bool) imageRow {
	row := imageRow{Repository: image.Name, Tag: "<none>", ID: image.Digest, Digest: image.Digest, Size: units.HumanSizeWithPrecision(float64(image.Size), 3),
		CreatedSince: "N/A", CreatedAt: "N/A"}
	if ref, err := reference.ParseNormalizedNamed(image.Name); err == nil {
		row.Repository = reference.FamiliarName(ref)
		if tagged, ok := ref.(reference.Tagged); ok {
			row.Tag = tagged.Tag()
		}
	}
	if !image.Created.IsZero() {
		row.CreatedSince = units.HumanDuration(a.Now().Sub(image.Created)) + " ago"
		row.CreatedAt = image.Created.String()
	}
	if _, hex, ok := strings.Cut(row.ID, ":"); ok && trunc {
		row.ID = shortID(hex)
	}
	return row
}

func (a *app) imageLoadCommand() *cobra.Command {
	var input string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "load [OPTIONS]",
		Short: "Load an image from a tar archive or STDIN",
		Long:  "Give the daemon's machine the images of an OCI or docker archive, compressed or not.",
		Example: `  swarmctl image load --input hello.tar
  docker save nginx:1.27 | swarmctl image load`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			in, done, err := a.archive(input)
			if err != nil {
				return err
			}
			defer done()
			c, err := a.daemon()
			if err != nil {
				return err
			}
			images, err := c.LoadImages(cmd.Context(), in)
			if err != nil {
				return daemonError(err)
			}
			for _, image := range images {
				a.printf("Loaded image: %s\n", familiarImage(image.Name))
			}
			if len(images) == 0 {
				return fmt.Errorf("the archive holds no image")
			}
			return nil
		},
	}
	s := cmd.Flags()
	s.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	s.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	_ = cmd.MarkFlagFilename("input", "tar", "tgz", "tar.gz", "oci")
	return cmd
}

// archive opens what image load reads.
func (a *app) archive(name string) (io.Reader, func(), error) {
	if name != "" && name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, err
		}
		return f, func() { f.Close() }, nil
	}
	if f, ok := a.In.(*os.File); ok && terminalWidth(f) > 0 {
		return nil, nil, fmt.Errorf("requested load from stdin, but stdin is empty: want an archive there, or --input FILE")
	}
	return a.In, func() {}, nil
}
