// Package cli is swarmctl: its commands, tables and progress.
//
// It owns how people speak to a swarm: Docker's command lines with their flags, words, columns and errors, and beside them
// manifests (apply, get, describe, diff, wait). It turns what is written into objects of api/v1, hands them to the API
// through pkg/client, and prints what comes back.
//
// It never decides what runs where, keeps no state between two commands but the contexts of login, and has no rules of its
// own about what an object may hold: those of api/v1 are asked before a manifest is sent, and the API server asks them again.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/swarmd/swarmd/pkg/client"
)

// DefaultHost is the socket of a daemon that was started without flags.
const DefaultHost = "unix:///run/swarmd/swarmd.sock"

// HostEnv names the environment variable that picks the daemon where --host is not given.
const HostEnv = "SWARM_HOST"

// Options are what a command needs of the world around it. The zero value is the process's own.
type Options struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
	// Getenv reads the environment.
	Getenv func(string) string
	// LookupEnv reads the environment and tells whether the variable is set; variables named by --env NAME come from here.
	LookupEnv func(string) (string, bool)
	// Terminal tells how wide Out is where it is a terminal, and 0 where it is not.
	Terminal func() int
	// Ask asks the person at the terminal, and gives errNoTerminal where there is none. What is answered to a secret
	// question is not shown.
	Ask func(question string, secret bool) (string, error)
	// Signals has the signals to this process come by a channel, until stop.
	Signals func() (signals <-chan os.Signal, stop func())
	// Now is the clock that ages are told by.
	Now func() time.Time
}

// app is one invocation of swarmctl: the world around it, and the daemon once it was asked for.
type app struct {
	Options
	host    string
	context string
	client  *client.Client
	// used is the context that client speaks to; nil for a daemon that --host or the environment names.
	used *swarmContext
}

// New is the whole command tree of swarmctl. Run executes it; tests may execute it themselves.
func New(o Options) *cobra.Command {
	a := &app{Options: withDefaults(o)}
	root := &cobra.Command{
		Use:   "swarmctl",
		Short: "Run services on a swarm of machines",
		Long: `swarmctl speaks to a swarm.

The lines of Docker Swarm work with docker replaced by swarmctl: service, stack, node, network, secret, config, swarm, info. Beside them,
manifests say what should run, and swarmctl shows what does: apply, get, describe, diff, wait, events.

It speaks to the daemon of this machine, as root, or to a swarm anywhere that somebody logged in to: login, context.`,
		Example: `  # Make this machine a swarm of one, and run three replicas of a web server
  swarmctl swarm init
  swarmctl service create --name web --replicas 3 --publish 8080:80 nginx:1.27
  swarmctl service ps web

  # The same from a file, which can be applied again and again
  swarmctl apply -f web.yaml`,
		Version:       buildVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		// Flags before the command are the root's alone: service create has a --host of its own, as Docker's.
		TraverseChildren: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetVersionTemplate("swarmctl version {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.PersistentFlags().StringVarP(&a.host, "host", "H", "", "Daemon `address` to speak to (default $"+HostEnv+", else "+DefaultHost+")")
	root.PersistentFlags().StringVar(&a.context, "context", "", "Context to speak to: a `name` of swarmctl context ls (default $"+ContextEnv+", else what swarmctl context use chose)")
	_ = root.RegisterFlagCompletionFunc("host", cobra.NoFileCompletions)
	_ = root.RegisterFlagCompletionFunc("context", a.completeContexts)
	root.PersistentPostRun = func(cmd *cobra.Command, _ []string) { a.learnHosts(cmd.Context()) }
	root.AddGroup(&cobra.Group{ID: "manifest", Title: "Manifests and objects:"}, &cobra.Group{ID: "docker", Title: "Docker's commands:"},
		&cobra.Group{ID: "people", Title: "People:"})
	addGroup(root, "manifest", a.applyCommand(), a.getCommand(), a.describeCommand(), a.deleteCommand(), a.diffCommand(),
		a.waitCommand(), a.eventsCommand())
	addGroup(root, "docker", a.serviceCommand(), a.nodeCommand(), a.taskCommand(), a.networkCommand(), a.secretCommand(), a.configCommand(),
		a.volumeCommand(), a.stackCommand(), a.swarmCommand(), a.registryCommand(), a.imageCommand(), a.execCommand(), a.attachCommand(), a.copyCommand(), a.portForwardCommand(), a.infoCommand(), a.versionCommand())
	addGroup(root, "people", a.loginCommand(), a.contextCommand(), a.userCommand(), a.auditCommand())
	return root
}

func addGroup(root *cobra.Command, id string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// Run executes swarmctl with args (without the program's name) and returns its exit status: 0 when what was asked for is
// so, 125 for a line that makes no sense, 1 for everything else. Errors are written to Err.
func Run(ctx context.Context, o Options, args []string) int {
	o = withDefaults(o)
	root := New(o)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		if exit.text != "" {
			fmt.Fprintln(o.Err, exit.text)
		}
		return exit.code
	}
	text := paragraph(err.Error())
	if !strings.HasPrefix(text, daemonPrefix) {
		text = "Error: " + text
	}
	fmt.Fprintln(o.Err, text)
	return 1
}

// exitError ends swarmctl with a status, saying text, which may be empty.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

func withDefaults(o Options) Options {
	if o.In == nil {
		o.In = os.Stdin
	}
	if o.Out == nil {
		o.Out = os.Stdout
	}
	if o.Err == nil {
		o.Err = os.Stderr
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	if o.Terminal == nil {
		o.Terminal = func() int { return terminalWidth(o.Out) }
	}
	if o.Ask == nil {
		o.Ask = func(question string, secret bool) (string, error) { return askTerminal(o.In, o.Err, question, secret) }
	}
	if o.Signals == nil {
		o.Signals = processSignals
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.Out, format, args...) }

func (a *app) warn(warnings []string) {
	for _, w := range warnings {
		fmt.Fprintln(a.Err, "WARNING: "+w)
	}
}

// buildVersion is the module's version and the commit that it was built from, as the go command recorded them.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	var commit, modified string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = ", build " + s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+changes"
		}
	}
	return strings.Trim(info.Main.Version, "()") + commit + modified
}
