package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/swarmd/swarmd/pkg/compose"
)

// composeFlags say which compose files are meant, and how strictly.
type composeFlags struct {
	files   []string
	lenient bool
}

func (f *composeFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringSliceVarP(&f.files, "compose-file", "c", nil, `Path to a Compose file, or "-" to read from stdin`)
	s.BoolVar(&f.lenient, "lenient", false, "Leave out what is not supported, with a warning, where that runs nothing but what the files say")
	_ = cmd.MarkFlagFilename("compose-file", "yml", "yaml")
}

// project reads the compose files. Variables are those of the environment, and of the file .env beside the first of the files.
func (a *app) project(f *composeFlags, o compose.Options) (*compose.Project, error) {
	if len(f.files) == 0 {
		return nil, errors.New("please specify a Compose file (with --compose-file)")
	}
	var files []compose.Source
	for i, path := range f.files {
		if path == "-" && slices.Contains(f.files[:i], "-") {
			return nil, errors.New("--compose-file - is given twice: standard input can be read once")
		}
		data, err := a.readCompose(path)
		if err != nil {
			return nil, err
		}
		name := path
		if path == "-" {
			name = "standard input"
		}
		files = append(files, compose.Source{Name: name, Data: data})
	}
	dir := "."
	if f.files[0] != "-" {
		dir = filepath.Dir(f.files[0])
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	vars, err := a.dotEnv(filepath.Join(dir, ".env"))
	if err != nil {
		return nil, err
	}
	o.Dir, o.Read, o.Lenient = dir, readRegular, f.lenient
	o.Env = func(name string) (string, bool) {
		if value, ok := a.LookupEnv(name); ok {
			return value, true
		}
		value, ok := vars[name]
		return value, ok
	}
	return compose.Load(files, o)
}

// readCompose reads a compose file, or In for "-". It need not be a regular file: many are the output of a command.
func (a *app) readCompose(path string) ([]byte, error) { return a.readSome(path, compose.MaxFile+1) }

// dotEnv are the variables of the file, none where there is no such file.
func (a *app) dotEnv(path string) (map[string]string, error) {
	data, err := readRegular(path, compose.MaxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return compose.ParseEnv(path, data, a.LookupEnv)
}

// readRegular reads a regular file of less than limit bytes. Others may never end, or do something when they are opened.
func readRegular(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", path, err)
	case int64(len(data)) >= limit:
		return nil, fmt.Errorf("%s is too large: want less than %d bytes", path, limit)
	}
	return data, nil
}

func (a *app) stackConfigCommand() *cobra.Command {
	var f composeFlags
	var raw bool
	cmd := &cobra.Command{
		Use:   "config [OPTIONS]",
		Short: "Outputs the final config file, after doing merges and interpolations",
		Long: `Print what compose files say together, with variables filled in. It asks no daemon, and reads no file that the compose files
name: the content of secrets is not in it.`,
		Example: `  swarmctl stack config -c compose.yml -c production.yml
  swarmctl stack config -c compose.yml | swarmctl stack deploy -c - shop`,
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.project(&f, compose.Options{Stack: "stack", Raw: raw})
			if err != nil {
				return err
			}
			a.warn(p.Warnings)
			text, err := p.YAML()
			if err != nil {
				return err
			}
			_, err = a.Out.Write(text)
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&raw, "skip-interpolation", false, "Skip interpolation and output only merged config")
	return cmd
}
