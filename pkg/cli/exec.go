package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

const (
	// resizeEvery is how often the terminal is asked for its size: not every system tells.
	resizeEvery = 250 * time.Millisecond
	// inputChunk is how much of the input is sent at a time, in bytes.
	inputChunk = 16 << 10
)

type execFlags struct {
	interactive, tty bool
	env, envFiles    *list[string]
	user, dir        string
}

func (a *app) execCommand() *cobra.Command {
	f := execFlags{env: newList("list", a.parseEnv), envFiles: newStrings()}
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] TASK|SERVICE COMMAND [ARG...]",
		Short: "Execute a command in a running task, on whichever node it runs",
		Long: `Execute a command in the container of a running task, on whichever node it runs. Of a service it is the first task that runs.

The exit status is that of the command; 126 or 127 where it cannot be started.`,
		Example: `  swarmctl exec -it web.1 sh
  swarmctl exec web cat /etc/hosts
  tar c site | swarmctl exec -i web.2 tar x -C /srv`,
		Args:                  minArgs(2),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := refusedOfExec(cmd.Flags()); err != nil {
				return err
			}
			return a.exec(cmd.Context(), &f, args[0], args[1:])
		},
	}
	s := cmd.Flags()
	s.SetInterspersed(false) // what follows the task is the command's
	s.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	s.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	s.VarP(f.env, "env", "e", "Set environment variables")
	s.Var(f.envFiles, "env-file", "Read in a file of environment variables")
	s.StringVarP(&f.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	s.StringVarP(&f.dir, "workdir", "w", "", "Working directory inside the container")
	// Known, and refused by name: see refusedOfExec.
	s.BoolP("detach", "d", false, "Run command in the background (not supported)")
	s.String("detach-keys", "", "Override the key sequence for detaching from the command (not supported)")
	s.Bool("privileged", false, "Give extended privileges to the command (not supported)")
	return cmd
}

// refusedOfExec says which of the flags given cannot be honoured, and what to do instead.
func refusedOfExec(given *pflag.FlagSet) error {
	const ends = `a command ends when whoever ran it leaves: have the task run it in the background, as with sh -c "COMMAND >/dev/null 2>&1 &"`
	if detach, _ := given.GetBool("detach"); detach {
		return errors.New("--detach: not supported: " + ends)
	}
	if given.Changed("detach-keys") {
		return errors.New("--detach-keys: not supported: " + ends)
	}
	if privileged, _ := given.GetBool("privileged"); privileged {
		return errors.New("--privileged: not supported: a command has the rights of its container: swarmctl service update --cap-add gives it more")
	}
	return nil
}

func (a *app) exec(ctx context.Context, f *execFlags, ref string, command []string) error {
	env, err := a.environment(f.envFiles.all, f.env.all)
	if err != nil {
		return err
	}
	start := v1.ExecStart{Command: command, TTY: f.tty, Stdin: f.interactive, Env: env, User: f.user, Dir: f.dir}
	terminal := a.inputTerminal()
	if f.tty && f.interactive && terminal == nil {
		return errNotTTY
	}
	if terminal != nil {
		start.Size = sizeOf(terminal)
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	task, err := runningTask(ctx, c, ref)
	if err != nil {
		return err
	}
	to, err := c.Tunnel(ctx, task.Meta.ID, v1.TunnelStart{Exec: &start})
	if err != nil {
		return daemonError(err)
	}
	defer to.Close()
	if f.tty && terminal != nil {
		restore, err := makeRaw(terminal)
		if err != nil {
			return err
		}
		defer restore()
		go followSize(ctx, to, terminal, start.Size)
	}
	if f.interactive {
		go sendInput(to, a.In)
	}
	return a.untilEnd(ctx, task, to)
}

// errNotTTY is Docker's.
var errNotTTY = errors.New("the input device is not a TTY")

// inputTerminal is the terminal that is the input; nil where it is none.
func (a *app) inputTerminal() *os.File {
	if in, ok := a.In.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		return in
	}
	return nil
}

// makeRaw has a terminal hand on every key as it comes.
func makeRaw(terminal *os.File) (restore func(), err error) {
	before, err := term.MakeRaw(int(terminal.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the terminal: %w", err)
	}
	return func() { _ = term.Restore(int(terminal.Fd()), before) }, nil
}

// untilEnd prints what comes from a task, until the end, which is swarmctl's own.
func (a *app) untilEnd(ctx context.Context, task *v1.Task, from io.Reader) error {
	end, err := a.receive(from)
	switch {
	case err != nil && ctx.Err() != nil:
		return &exitError{code: 130}
	case err != nil:
		return fmt.Errorf("the connection to task %s was lost: %w", v1.TaskName(task.Desired), err)
	case end.ExitCode != nil && *end.ExitCode != 0:
		return &exitError{code: *end.ExitCode}
	case end.Error != "":
		return &exitError{cannotStart(end), "Error: " + end.Error}
	}
	return nil
}

// cannotStart is the exit status of a command that could not be run, as a shell's and Docker's: 127 where there is none of that name.
func cannotStart(end v1.TunnelEnd) int {
	switch {
	case !end.Invalid:
		return 1
	case strings.Contains(end.Error, "no such file") || strings.Contains(end.Error, "not found"):
		return 127
	}
	return 126
}

// runningTask is the task that is meant, or of a service the first one that runs.
func runningTask(ctx context.Context, c *client.Client, ref string) (*v1.Task, error) {
	svc, err := client.Get(ctx, c, v1.Services, ref)
	if err != nil {
		if err := apiError(err, v1.KindService, ref); !notFound(err) {
			return nil, err
		}
		task, err := getTask(ctx, c, ref)
		if notFound(err) {
			return nil, fmt.Errorf("no such task or service: %v", ref)
		}
		return task, err
	}
	tasks, err := client.List(ctx, c, v1.Tasks, v1.Filter{"service": {svc.Meta.ID}})
	if err != nil {
		return nil, daemonError(err)
	}
	tasks = slices.DeleteFunc(tasks, func(t *v1.Task) bool {
		return t.Desired == nil || t.Desired.State != v1.TaskRunning || v1.Observed(t) != v1.TaskRunning
	})
	if len(tasks) == 0 {
		return nil, fmt.Errorf("no task of service %s runs", svc.Meta.Name)
	}
	return slices.MinFunc(tasks, func(x, y *v1.Task) int { return cmp.Compare(x.Desired.Slot, y.Desired.Slot) }), nil
}

// receive prints what comes, until the end.
func (a *app) receive(from io.Reader) (end v1.TunnelEnd, err error) {
	for {
		kind, data, err := v1.ReadFrame(from)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return end, err
		}
		switch kind {
		case v1.FrameOutput:
			_, err = a.Out.Write(data)
		case v1.FrameErrors:
			_, err = a.Err.Write(data)
		case v1.FrameEnd:
			return end, json.Unmarshal(data, &end)
		}
		if err != nil {
			return end, err
		}
	}
}

// sendInput sends what there is to read, and its end.
func sendInput(to io.Writer, from io.Reader) {
	buffer := make([]byte, inputChunk)
	for {
		n, err := from.Read(buffer)
		if n > 0 && v1.WriteFrame(to, v1.FrameInput, buffer[:n]) != nil {
			return
		}
		if err != nil {
			_ = v1.WriteFrame(to, v1.FrameInput, nil) // who is gone needs no end
			return
		}
	}
}

func sizeOf(f *os.File) (size v1.WindowSize) {
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return size
	}
	return v1.WindowSize{Rows: uint16(height), Columns: uint16(width)}
}

// followSize tells when the terminal gets another size.
func followSize(ctx context.Context, to io.Writer, f *os.File, told v1.WindowSize) {
	tick := time.NewTicker(resizeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if size := sizeOf(f); size != told {
			if v1.WriteFrameJSON(to, v1.FrameSize, size) != nil {
				return
			}
			told = size
		}
	}
}
