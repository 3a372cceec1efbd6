// Package runtime says what the agent needs of a container runtime, and has a fake that runs a thousand nodes in one
// process. runtime/containerd is the real one.
//
// It owns the contract. It never decides what should run, never talks to a manager, and knows nothing of networks but the
// path of a namespace.
package runtime

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/archive"
)

// Errors of a Runtime, to be tested with errors.Is.
var (
	// ErrNotFound says that there is no such image or container.
	ErrNotFound = errors.New("runtime: not found")
	// ErrInvalid says that what was asked for can never work as it stands: no such command, no such user, an image for
	// another platform. The text is for the user to read.
	ErrInvalid = errors.New("runtime: invalid")
)

// Runtime runs containers. All that it keeps survives the process that calls it: a new process finds the containers of the
// earlier one by List, running. Calls about different containers may be made at the same time; those about one container
// are made one after another. Every call but Wait, Events and Logs is idempotent.
type Runtime interface {
	Images
	Files
	Volumes

	// Info describes the machine's runtime.
	Info(ctx context.Context) (Info, error)

	// Create makes the container, ready to be started, with its image unpacked. A container that is there already is left
	// as it is.
	Create(ctx context.Context, c Container) error
	// Start starts a created container and returns its process ID. A container that runs already is left alone; one that
	// has ended is not started again: that is an error.
	Start(ctx context.Context, id string) (pid uint32, err error)
	// Signal sends a signal, such as SIGTERM, to the container's first process. An empty one is the container's own stop
	// signal: that of its spec, else of its image, else SIGTERM. A container that has ended is not an error.
	Signal(ctx context.Context, id, signal string) error
	// Exec runs a command in a container that runs, as the container's own process runs: with its user, environment, folder and
	// bounds. It waits for the command's end; when ctx ends first the command is killed, and the error is ctx's. What it writes is
	// kept up to limit bytes, and read to its end. ErrInvalid says that the command cannot be started, ErrNotFound that the container does not run.
	Exec(ctx context.Context, id string, command []string, limit int) (ExecResult, error)
	// Run is Exec for somebody who is there: its input and output are connected while it runs. It returns the exit code once all output was
	// written, or a second after the command's end.
	Run(ctx context.Context, id string, p Process) (exitCode int, err error)
	// Attach connects somebody to the container's own process, of which there may be many at once, until that ends, which gives the
	// exit code, or ctx does. What it writes is read from its log, so that nobody who is slow makes it wait. ErrInvalid says that there is
	// no input, or no log, to connect to, and ErrNotFound that the container does not run.
	Attach(ctx context.Context, id string, a Attachment) (exitCode int, err error)
	// CopyFrom writes the file or the tree at a path of a container that runs as a tar stream, and in notes what is left out. A path is as the
	// container sees it, its mounts included; a link leads nowhere else. With follow a link at its end is not what is meant, but what it leads to.
	CopyFrom(ctx context.Context, id, path string, follow bool, to, notes io.Writer) error
	// CopyTo unpacks a tar stream to such a path. ErrInvalid says that there cannot be such a thing there. Of what fails half of it may be there.
	CopyTo(ctx context.Context, id, path string, o archive.Options, from io.Reader, notes io.Writer) error
	// Remove kills the container if it runs, and removes all of it but its log and its files. One that is not there is not an error.
	Remove(ctx context.Context, id string) error
	// RemoveLog removes what Logs reads.
	RemoveLog(ctx context.Context, id string) error

	// List is the state of every container that this runtime made.
	List(ctx context.Context) ([]State, error)
	// State is that of one container, or ErrNotFound.
	State(ctx context.Context, id string) (State, error)
	// Events yields the state of each container that ends, from the time of the call on, until ctx ends or the runtime is
	// lost. Whoever calls it should List afterwards, for what ended before.
	Events(ctx context.Context) iter.Seq2[State, error]

	// Logs yields a container's output, oldest first; with Follow until the container is removed or ctx ends.
	Logs(ctx context.Context, id string, o v1.LogOptions) iter.Seq2[v1.LogRecord, error]

	// Close lets go of the runtime; containers stay.
	Close() error
}

// Info describes a runtime.
type Info struct {
	// Version is such as "containerd 2.4.2, runc 1.5.2".
	Version string
	// Cgroup is 1 or 2.
	Cgroup int
}

// Container is what to make. Everything in it is final: templates are expanded, defaults filled in.
type Container struct {
	// ID is the task's ID.
	ID string
	// Name is for people, such as web.1.<task ID>.
	Name string
	// Image is a reference that Pull returned.
	Image string
	// Spec says what to run. The runtime heeds what concerns processes and files; networks, whether it is healthy, and secrets,
	// which it has by KeepFiles, are the agent's business.
	Spec v1.ContainerSpec
	// Labels are set on the container, over those of Spec.
	Labels map[string]string
	// Limits bound the container.
	Limits v1.ResourceLimits
	// MemorySwap and MemorySwappiness are as in v1.Resources.
	MemorySwap       *v1.Bytes
	MemorySwappiness *int64
	// NetNS is the path of the network namespace to run in; empty for a new one without links.
	NetNS string
	// Files are mounted over those of the image, read-write: container path → host path, such as /etc/hosts. They are beside those
	// of KeepFiles.
	Files map[string]string
	Log   LogConfig
}

// LogConfig says how a container's output is kept.
type LogConfig struct {
	// Discard keeps nothing.
	Discard bool
	// MaxSize is that of one file in bytes, MaxFiles how many there are; 0 for the defaults of 10 MiB and 3.
	MaxSize  int64
	MaxFiles int
}

// State is that of one container.
type State struct {
	ID     string
	Labels map[string]string
	Status Status
	PID    uint32
	// Healthcheck is how the container is found to be healthy: by its spec, and where that is silent by its image, with CMD-SHELL
	// made a command. Nil where it is by nothing. Times that are 0 are for the agent to fill in.
	Healthcheck *v1.Healthcheck
	// ExitCode, OOMKilled and Ended are of a container that has ended; Ended is zero where nobody knows when that was.
	ExitCode  int
	OOMKilled bool
	Started   time.Time
	Ended     time.Time
}

// ExecResult is what came of a command.
type ExecResult struct {
	ExitCode int
	Output   []byte
}

// Process is a command to run in a container as its own process runs, but for what is said here.
type Process struct {
	Command []string
	// Env is added to the environment, User ("name", "uid", "name:group") and Dir take the place of the container's.
	Env  []string
	User string
	Dir  string
	// TTY gives it a terminal of the size, all output of which is Stdout; another size comes by Resize.
	TTY    bool
	Size   v1.WindowSize
	Resize <-chan v1.WindowSize
	// Stdin is read until its end, which the command sees; nil is no input. After the command's end it may be read once more.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Attachment is how somebody is connected to a container's own process.
type Attachment struct {
	// Stdin is written to the process's input, whose end it does not see: others may be attached. Nil is none. After the container's end
	// it may be read once more.
	Stdin io.Reader
	// Stdout and Stderr get what is written from the call on; of a terminal all is Stdout.
	Stdout, Stderr io.Writer
	// Resize gives the process's terminal another size.
	Resize <-chan v1.WindowSize
}

// Status is what a container does.
type Status string

// The statuses.
const (
	Created Status = "created"
	Running Status = "running"
	Ended   Status = "ended"
)
