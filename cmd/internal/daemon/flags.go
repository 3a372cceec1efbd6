package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Main is the frame of every daemon's main: flags, --version, logging, signals, and the error that a person reads.
type Main struct {
	// Name is the program's.
	Name string
	// About is what --help says before the flags.
	About string
	// Flags declares the program's own flags.
	Flags func(*flag.FlagSet)
	// Run is the program, until ctx ends.
	Run func(ctx context.Context, log *slog.Logger) error
}

// Execute runs the program with the arguments (without its name), and returns its exit code: 0 when it was told to stop or
// only asked something, 1 for an error, 2 for wrong usage.
func (m Main) Execute(args []string, out, errOut io.Writer) int {
	flags := flag.NewFlagSet(m.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	version := flags.Bool("version", false, "print the version and end")
	level := flags.String("log-level", "info", "`LEVEL` from which on is logged: debug, info, warn or error")
	format := flags.String("log-format", "text", "`FORMAT` of the log: text or json")
	m.Flags(flags)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		m.help(out, flags)
		return 0
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("%s takes no arguments, only flags: %q is one too many", m.Name, flags.Arg(0))
	}
	var log *slog.Logger
	if err == nil {
		log, err = logger(errOut, *level, *format)
	}
	if err != nil {
		fmt.Fprintf(errOut, "%s: %v\nTry %s --help\n", m.Name, err, m.Name)
		return 2
	}
	if *version {
		fmt.Fprintf(out, "%s version %s\n", m.Name, Version())
		return 0
	}
	slog.SetDefault(log)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := m.Run(ctx, log); err != nil {
		fmt.Fprintf(errOut, "%s: %v\n", m.Name, err)
		return 1
	}
	return 0
}

func (m Main) help(out io.Writer, flags *flag.FlagSet) {
	fmt.Fprintf(out, "%s\n\nUsage: %s [FLAGS]\n\nFlags:\n", strings.TrimSpace(m.About), m.Name)
	flags.VisitAll(func(f *flag.Flag) {
		name, usage := flag.UnquoteUsage(f)
		head := strings.TrimSpace("--" + f.Name + " " + name)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" {
			usage += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(out, "  %-32s %s\n", head, usage)
	})
}

func logger(out io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(out, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(out, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}

// list is a flag that may be given several times, or once with commas.
type list struct{ values *[]string }

// String implements flag.Value.
func (l list) String() string {
	if l.values == nil {
		return ""
	}
	return strings.Join(*l.values, ",")
}

// Set implements flag.Value.
func (l list) Set(text string) error {
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" && !slices.Contains(*l.values, part) {
			*l.values = append(*l.values, part)
		}
	}
	return nil
}

// labels is a flag that may be given several times, each KEY=VALUE. Values may have commas in them.
type labels struct{ values *map[string]string }

// String implements flag.Value.
func (l labels) String() string { return "" }

// Set implements flag.Value.
func (l labels) Set(text string) error {
	key, value, ok := strings.Cut(text, "=")
	if key = strings.TrimSpace(key); !ok || key == "" {
		return fmt.Errorf("%q is no label: want KEY=VALUE", text)
	}
	if before, ok := (*l.values)[key]; ok && before != value {
		return fmt.Errorf("label %s is given twice, as %q and as %q", key, before, value)
	}
	if *l.values == nil {
		*l.values = make(map[string]string)
	}
	(*l.values)[key] = value
	return nil
}

// DefaultRoot is the data directory unless another is named; its socket is DefaultSocket.
const (
	DefaultRoot   = "/var/lib/swarmd"
	DefaultSocket = "/run/swarmd/swarmd.sock"
)

// NodeFlags declares the flags of whatever runs containers.
func (o *Options) NodeFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.Root, "root", DefaultRoot, "`DIR` that everything is kept in")
	flags.StringVar(&o.RuntimeDir, "runtime-dir", "", "`DIR` with containerd, its shim and runc (default: the folder \"runtime\" beside this program)")
	flags.StringVar(&o.ContainerdAddress, "containerd-address", "", "use the containerd at this `SOCKET` instead of one of swarmd's own")
	flags.StringVar(&o.RegistryConfig, "registry-config", "/root/.docker/config.json", "`FILE` with logins to registries, as docker login writes it; read anew for each pull")
	flags.Var(labels{&o.Labels}, "label", "`KEY=VALUE` that constraints know as engine.labels.KEY; may be repeated")
	flags.Var(list{&o.InsecureRegistries}, "insecure-registry", "`HOST:PORT` of a registry that is spoken to without TLS; may be repeated")
	flags.Var(list{&o.GenericResources}, "node-generic-resource", "`KIND=VALUE` of something that tasks can reserve, such as GPU=UUID1 for each one, or SSD=3; may be repeated")
}

// EtcdFlags declares the flags of what works on an etcd of one's own.
func (o *EtcdOptions) EtcdFlags(flags *flag.FlagSet) {
	flags.Var(list{&o.Endpoints}, "etcd-endpoints", "`URL`s of your etcd, such as http://127.0.0.1:2379")
	flags.StringVar(&o.KeyFile, "key-file", filepath.Join(DefaultRoot, "keyring.json"), "`FILE` with the keys that values are sealed with; the same for all parts of a swarm")
}

// RuntimeDirBeside is the folder with the container runtime that "make build runtime" puts beside the program.
func RuntimeDirBeside() (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(program), "runtime"), nil
}

// DaemonFlags declares the flags of swarmd itself.
func (o *Options) DaemonFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.Socket, "socket", "", "`PATH` of the API's unix socket (default: "+DefaultSocket+", or swarmd.sock in another --root)")
	flags.Var(list{&o.EtcdEndpoints}, "etcd-endpoints", "`URL`s of an etcd of your own, instead of the one that is built in")
	flags.StringVar(&o.MetricsAddr, "metrics-addr", "", "serve Prometheus metrics at this `HOST:PORT` too, without authentication")
}
