package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

type attachFlags struct {
	noStdin, sigProxy bool
	detachKeys        string
}

func (a *app) attachCommand() *cobra.Command {
	var f attachFlags
	cmd := &cobra.Command{
		Use:   "attach [OPTIONS] TASK|SERVICE",
		Short: "Attach local standard input, output, and error streams to a running task",
		Long: `Attach to the process that a task's container was made for, on whichever node it runs: what it writes from now on is shown, and, where
the service has its input open (service create --interactive), what is typed goes there. Of a service it is the first task that runs.

Several may be attached at once. The detach keys end it and leave the task as it is. Without a terminal (service create --tty) Ctrl-C is a
signal to the task, as in Docker; with --sig-proxy=false it ends attach alone. The exit status is that of the task, if it ends.`,
		Example: `  swarmctl service create --name shell --tty --interactive alpine sh
  swarmctl attach shell.1
  swarmctl attach --no-stdin --sig-proxy=false web.2`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.attach(cmd.Context(), &f, args[0]) },
	}
	s := cmd.Flags()
	s.StringVar(&f.detachKeys, "detach-keys", "ctrl-p,ctrl-q", "Override the key sequence for detaching a task")
	s.BoolVar(&f.noStdin, "no-stdin", false, "Do not attach STDIN")
	s.BoolVar(&f.sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	return cmd
}

func (a *app) attach(ctx context.Context, f *attachFlags, ref string) error {
	keys, err := parseKeys(f.detachKeys)
	if err != nil {
		return err
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	task, err := runningTask(ctx, c, ref)
	if err != nil {
		return err
	}
	spec, err := containerOf(ctx, c, task)
	if err != nil {
		return err
	}
	start := v1.AttachStart{Stdin: spec.OpenStdin && !f.noStdin}
	terminal := a.inputTerminal()
	if spec.TTY && start.Stdin && terminal == nil {
		return errNotTTY
	}
	if spec.TTY && terminal != nil {
		start.Size = sizeOf(terminal)
	}
	proxy := f.sigProxy && !spec.TTY
	if proxy {
		ctx = context.WithoutCancel(ctx) // Ctrl-C is the task's
	}
	to, err := c.Tunnel(ctx, task.Meta.ID, v1.TunnelStart{Attach: &start})
	if err != nil {
		return daemonError(err)
	}
	defer to.Close()
	if proxy {
		signals, stop := a.Signals()
		defer stop()
		go sendSignals(to, signals)
	}
	var left atomic.Bool
	if start.Stdin {
		input := a.In
		if spec.TTY {
			restore, err := makeRaw(terminal)
			if err != nil {
				return err
			}
			defer restore()
			input = &keysReader{from: a.In, keys: keys, found: func() { left.Store(true); _ = to.Close() }}
		}
		go sendInput(to, input)
	}
	if start.Size != (v1.WindowSize{}) {
		go followSize(ctx, to, terminal, start.Size)
	}
	err = a.untilEnd(ctx, task, to)
	if left.Load() {
		fmt.Fprint(a.Err, "read escape sequence\r\n")
		return nil
	}
	return err
}

// containerOf is what a task's container was made of.
func containerOf(ctx context.Context, c *client.Client, task *v1.Task) (*v1.ContainerSpec, error) {
	if task.Desired == nil {
		return nil, fmt.Errorf("task %s has not been decided on yet", task.Meta.ID)
	}
	if task.Desired.Attachment != nil {
		return nil, fmt.Errorf("%s is attached to networks by hand, and has no container of the swarm's", v1.TaskName(task.Desired))
	}
	revision, err := client.Get(ctx, c, v1.ServiceRevisions, task.Desired.Revision)
	if err != nil {
		return nil, apiError(err, v1.KindServiceRevision, task.Desired.Revision)
	}
	return &revision.Spec.Task.Container, nil
}

// processSignals are those that come to this process.
func processSignals() (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, slices.Collect(maps.Keys(proxied))...)
	return signals, func() { signal.Stop(signals); close(signals) }
}

// sendSignals passes on the signals that come.
func sendSignals(to io.Writer, signals <-chan os.Signal) {
	for s := range signals {
		if name := proxied[s]; name != "" && v1.WriteFrame(to, v1.FrameSignal, []byte(name)) != nil {
			return
		}
	}
}

// parseKeys reads a sequence of keys, such as ctrl-p,ctrl-q: single characters, and those with ctrl.
func parseKeys(text string) ([]byte, error) {
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		letter, ctrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case len(key) == 1:
			keys = append(keys, key[0])
		case ctrl && len(letter) == 1 && (letter[0] >= 'a' && letter[0] <= 'z' || strings.Contains(`@[\]^_`, letter)):
			keys = append(keys, strings.ToUpper(letter)[0]-'@')
		default:
			return nil, fmt.Errorf("invalid detach keys (%s): want keys such as a or ctrl-a, separated by commas", text)
		}
	}
	return keys, nil
}

// errKeys is the end of an input whose user has typed the keys.
var errKeys = errors.New("read escape sequence")

// keysReader looks for keys in what is typed, and ends there. What is only their beginning is held back until it is known to be no more.
type keysReader struct {
	from  io.Reader
	keys  []byte
	held  []byte // the beginning of the keys
	ready []byte // what is none of them
	found func()
	err   error
}

// Read implements io.Reader.
func (k *keysReader) Read(p []byte) (int, error) {
	for len(k.ready) == 0 {
		if k.err == errKeys {
			k.found()
		}
		if k.err != nil {
			return 0, k.err
		}
		n, err := k.from.Read(p)
		k.err = err
		for _, key := range p[:n] {
			k.held = append(k.held, key)
			for !bytes.HasPrefix(k.keys, k.held) {
				k.ready, k.held = append(k.ready, k.held[0]), k.held[1:]
			}
			if len(k.held) == len(k.keys) {
				k.err = errKeys
				break
			}
		}
	}
	n := copy(p, k.ready)
	k.ready = k.ready[n:]
	return n, nil
}
