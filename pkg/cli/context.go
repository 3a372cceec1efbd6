package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/swarmd/swarmd/pkg/ca"
)

func (a *app) contextCommand() *cobra.Command {
	return group("context", "Manage the swarms that swarmctl speaks to", `  swarmctl context ls
  swarmctl context use prod
  swarmctl --context prod node ls`,
		a.contextListCommand(), a.contextUseCommand(), a.contextShowCommand(), a.contextImportCommand(), a.contextRemoveCommand())
}

// contextRow is what a template of context ls sees.
type contextRow struct {
	Current bool
	Hosts   string
	Name    string
	User    string
}

var contextTable = table{
	columns:  `{{.Name}}{{if .Current}} *{{end}}\t{{.User}}\t{{.Hosts}}`,
	headings: map[string]string{"Name": "NAME", "Current": "", "User": "USER", "Hosts": "HOSTS"},
}

func (a *app) contextListCommand() *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"},
		Short:                 "List contexts",
		Long:                  "List contexts. The current one has a star; default is the daemon of this machine.",
		Args:                  noArgs,
		DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			config, err := a.readConfig()
			if err != nil {
				return err
			}
			current := a.context
			for _, name := range []string{a.Getenv(ContextEnv), config.Current, localContext} {
				if current == "" {
					current = name
				}
			}
			rows := []any{contextRow{Name: localContext, User: "root", Hosts: DefaultHost, Current: current == localContext}}
			for _, x := range config.sorted() {
				rows = append(rows, contextRow{Name: x.Name, User: x.User, Hosts: strings.Join(x.all(), ","), Current: x.Name == current})
			}
			if quiet && format == "" {
				format = "{{.Name}}"
			}
			return contextTable.write(a.Out, format, false, rows)
		},
	}
	s := cmd.Flags()
	s.StringVar(&format, "format", "", `Format output: "table", "table TEMPLATE", "json", or a Go template`)
	s.BoolVarP(&quiet, "quiet", "q", false, "Only display names")
	return cmd
}

// sorted are the contexts by name.
func (c *config) sorted() []*swarmContext {
	all := slices.Clone(c.Contexts)
	slices.SortFunc(all, func(x, y *swarmContext) int { return naturalCompare(x.Name, y.Name) })
	return all
}

func (a *app) completeContexts(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	config, err := a.readConfig()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := []string{localContext}
	for _, x := range config.sorted() {
		names = append(names, x.Name)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) })
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) contextUseCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "use CONTEXT",
		Short:                 "Choose the context that commands speak to",
		Long:                  "Choose the context that commands speak to from now on. The context default is the daemon of this machine.",
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			err := a.changeConfig(func(c *config) error {
				if args[0] == localContext {
					c.Current = ""
					return nil
				}
				if c.find(args[0]) == nil {
					return noContext(args[0])
				}
				c.Current = args[0]
				return nil
			})
			if err != nil {
				return err
			}
			a.printf("%s\nCurrent context is now %q\n", args[0], args[0])
			for _, env := range []string{HostEnv, ContextEnv} {
				if a.Getenv(env) != "" {
					a.warn([]string{env + " is set and overrides it"})
				}
			}
			return nil
		},
	}
}

func noContext(name string) error {
	return fmt.Errorf("context %q: there is no such context: `swarmctl context ls` lists them, `swarmctl login` makes one", name)
}

func (a *app) contextShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:                   "show [CONTEXT]",
		Short:                 "Show a context without its secrets, or the current one",
		Args:                  rangeArgs(0, 1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				a.context = args[0]
			}
			x, err := a.chosen()
			if err != nil {
				return err
			}
			if x == nil {
				a.printf("Name:       %s\nHosts:      %s\n", localContext, DefaultHost)
				return nil
			}
			how := "token"
			if x.Certificate != "" {
				how = "certificate"
			}
			a.printf("Name:       %s\nUser:       %s\nHosts:      %s\nCA digest:  %s\nProof:      %s\n",
				x.Name, x.User, strings.Join(x.all(), ", "), ca.Digest([]byte(x.Roots)), how)
			return nil
		},
	}
}

func (a *app) contextImportCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "import [OPTIONS] FILE|-",
		Short: "Add the context of a file that somebody handed over",
		Long: `Add the context of a file that "swarmctl user cert" wrote, and make it the current one where there is none. The file is a
key: remove it afterwards.`,
		Example:               "  swarmctl context import alice.yaml",
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := a.readData(args[0], maxConfig)
			if err != nil {
				return err
			}
			given, err := parseConfig(args[0], data)
			if err != nil {
				return err
			}
			if len(given.Contexts) != 1 {
				return fmt.Errorf("%s has %d contexts: want exactly one", args[0], len(given.Contexts))
			}
			x := given.Contexts[0]
			if name != "" {
				x.Name = name
			}
			return a.keepContext(x, false)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "What to call the context here")
	return cmd
}

// keepContext writes a context down. Only login replaces one, and where there was none that commands speak to, it is that
// from now on.
func (a *app) keepContext(x *swarmContext, replace bool) error {
	if err := x.check(); err != nil {
		return err
	}
	current := false
	err := a.changeConfig(func(c *config) error {
		if !replace && c.find(x.Name) != nil {
			return fmt.Errorf("there is a context %q already: choose another name with --name, or remove it with `swarmctl context rm %[1]s`", x.Name)
		}
		c.put(x)
		if c.Current == "" || replace {
			c.Current = x.Name
		}
		current = c.Current == x.Name
		return nil
	})
	if err != nil {
		return err
	}
	if current {
		a.printf("Current context is now %q\n", x.Name)
	} else {
		a.printf("Context %q added: `swarmctl context use %[1]s` makes it the current one\n", x.Name)
	}
	return nil
}

func (a *app) contextRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm CONTEXT [CONTEXT...]", Aliases: []string{"remove"},
		Short:                 "Forget one or more contexts",
		Long:                  "Forget contexts, and the keys and tokens in them. What the swarm knows of the user stays: see user rm and user token rm.",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			var errs []error
			err := a.changeConfig(func(c *config) error {
				for _, name := range args {
					if name == localContext {
						errs = append(errs, fmt.Errorf("context %q is this machine's daemon: it cannot be removed", name))
						continue
					}
					i := slices.IndexFunc(c.Contexts, func(x *swarmContext) bool { return x.Name == name })
					if i < 0 {
						errs = append(errs, noContext(name))
						continue
					}
					c.Contexts = slices.Delete(c.Contexts, i, i+1)
					if c.Current == name {
						c.Current = ""
					}
					a.printf("%s\n", name)
				}
				return nil
			})
			return errors.Join(append(errs, err)...)
		},
	}
}

// yaml is the file of this context alone.
func (x *swarmContext) yaml() ([]byte, error) {
	return yaml.Marshal(&config{Current: x.Name, Contexts: []*swarmContext{x}})
}
