package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// standardRegistry is the one that Docker means where none is named.
const standardRegistry = "docker.io"

// maxPassword bounds what is read of a registry's password, in bytes.
const maxPassword = 64 << 10

// registryRow is what a template of registry ls sees.
type registryRow struct {
	CreatedAt string
	ID        string
	Labels    string
	Name      string
	UpdatedAt string
	Username  string
}

var registryTable = table{
	columns: `{{.Name}}\t{{.Username}}\t{{.UpdatedAt}}`,
	headings: map[string]string{"ID": "ID", "Name": "SERVER", "Username": "USERNAME", "CreatedAt": "CREATED", "UpdatedAt": "RENEWED",
		"Labels": "LABELS"},
}

func (a *app) registryCommand() *cobra.Command {
	return group("registry", "Manage the swarm's logins to registries", `  swarmctl registry login --username anna registry.example.org:5000
  swarmctl registry ls`,
		a.registryLoginCommand(), a.registryLogoutCommand(), a.registryListCommand())
}

type registryLoginFlags struct {
	username  string
	fromStdin bool
	docker    bool
}

func (a *app) registryLoginCommand() *cobra.Command {
	var f registryLoginFlags
	cmd := &cobra.Command{
		Use:   "login [OPTIONS] [SERVER]",
		Short: "Log the swarm in to a registry",
		Long: `Give the swarm a login to a registry, or renew it. Every image of that registry is pulled with it from then on, on any node, also by tasks of
services that are there already. The password is sealed like a secret, sent to nodes that run an image of that registry, and
shown to nobody. The manager that answers tries it first, where it reaches the registry.

SERVER is the registry's host, and where other repositories of it need another login a part of the path: the longest that fits an image is meant.
Without one it is ` + standardRegistry + `.`,
		Example: `  swarmctl registry login --username anna registry.example.org:5000
  pass show ghcr | swarmctl registry login --username anna --password-stdin ghcr.io/team
  swarmctl registry login --from-docker ghcr.io`,
		Args:                  rangeArgs(0, 1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Registries),
		RunE: func(cmd *cobra.Command, args []string) error {
			server := standardRegistry
			if len(args) > 0 {
				server = args[0]
			}
			return a.registryLogin(cmd.Context(), &f, server)
		},
	}
	s := cmd.Flags()
	s.StringVarP(&f.username, "username", "u", "", "Username")
	s.BoolVar(&f.fromStdin, "password-stdin", false, "Take the password from STDIN, all of it but the newline at its end")
	s.BoolVar(&f.docker, "from-docker", false, `Take the login that "docker login" has kept for this user, from a credential helper too`)
	return cmd
}

func (a *app) registryLogin(ctx context.Context, f *registryLoginFlags, server string) error {
	name, err := v1.RegistryName(server)
	if err != nil {
		return err
	}
	spec, err := a.registrySpec(f, name)
	if err != nil {
		return err
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	warnings, err := putLogin(ctx, c, name, spec)
	if err != nil {
		return err
	}
	a.warn(warnings)
	if len(warnings) == 0 {
		a.printf("Login Succeeded\n")
	}
	return nil
}

// registrySpec is the login that the flags, the person at the terminal or Docker's configuration say.
func (a *app) registrySpec(f *registryLoginFlags, name string) (*v1.RegistrySpec, error) {
	if f.docker {
		if f.username != "" || f.fromStdin {
			return nil, errors.New("--from-docker takes username and password from Docker: want no other flags")
		}
		spec, err := dockerLogin(name)
		if err == nil && spec == nil {
			err = fmt.Errorf(`"docker login" has kept no login to %s for this user`, name)
		}
		return spec, err
	}
	spec := &v1.RegistrySpec{Username: f.username}
	if spec.Username == "" {
		if f.fromStdin {
			return nil, errors.New("must provide --username with --password-stdin")
		}
		user, err := a.Ask("Username: ", false)
		if errors.Is(err, errNoTerminal) {
			return nil, errors.New("nobody can be asked for the user's name: give it with --username")
		}
		if err != nil {
			return nil, err
		}
		spec.Username = strings.TrimSpace(user)
	}
	var err error
	if f.fromStdin {
		spec.Password, err = a.passwordFromStdin()
	} else {
		spec.Password, err = a.readSecret("Password: ", "password")
	}
	return spec, err
}

func (a *app) passwordFromStdin() (string, error) {
	data, err := io.ReadAll(io.LimitReader(a.In, maxPassword+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read the password from STDIN: %w", err)
	case len(data) > maxPassword:
		return "", fmt.Errorf("the password on STDIN is longer than %d bytes", maxPassword)
	}
	password := strings.TrimRight(string(data), "\r\n")
	if password == "" {
		return "", errors.New("the password on STDIN is empty")
	}
	return password, nil
}

// putLogin creates or renews a login.
func putLogin(ctx context.Context, c *client.Client, name string, spec *v1.RegistrySpec) (warnings []string, err error) {
	for try := 1; ; try++ {
		r, err := client.Get(ctx, c, v1.Registries, name)
		switch {
		case client.Status(err) == http.StatusNotFound, err == nil && r.Meta.Name != name: // found by the beginning of an ID
			_, warnings, err = client.Create(ctx, c, v1.Registries, &v1.Registry{Meta: v1.Meta{Name: name}, Spec: spec})
		case err == nil:
			r.Spec = spec
			_, warnings, err = client.Update(ctx, c, v1.Registries, r)
		}
		if client.Status(err) == http.StatusConflict && try < maxConflicts && ctx.Err() == nil {
			continue
		}
		return warnings, apiError(err, v1.KindRegistry, name)
	}
}

func (a *app) registryLogoutCommand() *cobra.Command {
	cmd := removeCommand(a, v1.Registries, "registries", `Take the swarm's logins to registries away. Nodes forget them at once. Containers that run go on; an image that a node does not
have yet is asked for as nobody, or with what the node's own --registry-config says.`)
	cmd.Use, cmd.Aliases = "logout SERVER [SERVER...]", []string{"rm"}
	cmd.Short = "Log the swarm out of one or more registries"
	remove := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for i, server := range args {
			if name, err := v1.RegistryName(server); err == nil { // else it may be an ID
				args[i] = name
			}
		}
		return remove(cmd, args)
	}
	return cmd
}

func (a *app) registryListCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:                 "List the swarm's logins to registries",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := f.filters(v1.KindRegistry)
			if err != nil {
				return err
			}
			c, err := a.daemon()
			if err != nil {
				return err
			}
			all, err := client.List(cmd.Context(), c, v1.Registries, filter)
			if err != nil {
				return daemonError(err)
			}
			byName(all)
			rows := make([]any, len(all))
			for i, r := range all {
				rows[i] = registryRow{CreatedAt: ago(a.Now(), r.Meta.CreatedAt), ID: r.Meta.ID, Labels: pairs(r.Meta.Labels), Name: r.Meta.Name,
					UpdatedAt: ago(a.Now(), r.Meta.UpdatedAt), Username: registryUser(r)}
			}
			return registryTable.write(a.Out, f.format, f.quiet, rows)
		},
	}
	f.add(cmd, v1.KindRegistry)
	return cmd
}

// registryUser is who a login is; an identity token does not say.
func registryUser(r *v1.Registry) string {
	if r.Spec == nil || r.Spec.Username == "" {
		return "<token>"
	}
	return r.Spec.Username
}
