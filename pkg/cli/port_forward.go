package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// maxForwarded is how many connections are forwarded at a time.
const maxForwarded = 200

func (a *app) portForwardCommand() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "port-forward [OPTIONS] TASK|SERVICE [LOCAL:]PORT [[LOCAL:]PORT...]",
		Short: "Forward ports of this machine to ports inside a running task",
		Long: `Forward TCP ports of this machine to ports inside a running task, on whichever node it runs, published or not. Of a service it is
the first task that runs when a connection is made: one that was replaced is followed by another. The port of this machine is the same where none is given, and a free one for 0.`,
		Example: `  swarmctl port-forward db 5432
  swarmctl port-forward web.2 8080:80`,
		Args:                  minArgs(2),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.portForward(cmd.Context(), address, args[0], args[1:])
		},
	}
	cmd.Flags().StringVar(&address, "address", "127.0.0.1", "Address of this machine to listen on")
	return cmd
}

// forwarding is one port of this machine, and the task's that it leads to.
type forwarding struct {
	local, port uint16
}

func parseForwarding(text string) (forwarding, error) {
	local, port, given := strings.Cut(text, ":")
	if !given {
		local, port = text, text
	}
	l, err := strconv.ParseUint(local, 10, 16)
	p, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || p == 0 {
		return forwarding{}, fmt.Errorf("%q is no port to forward: want one such as 5432, or 8080:80", text)
	}
	return forwarding{uint16(l), uint16(p)}, nil
}

func (a *app) portForward(ctx context.Context, address, ref string, ports []string) error {
	var all []forwarding
	for _, text := range ports {
		f, err := parseForwarding(text)
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	task, err := runningTask(ctx, c, ref)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	room := make(chan struct{}, maxForwarded)
	for _, f := range all {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(f.local))))
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = listener.Close() })
		if err := reached(ctx, listener.(*net.TCPListener), f); err != nil {
			return err
		}
		a.printf("Forwarding from %s to port %d of %s\n", listener.Addr(), f.port, v1.TaskName(task.Desired)) // which shows that there is one
		serving.Go(func() {
			defer cancel()
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				select {
				case room <- struct{}{}:
				default:
					_ = conn.Close()
					fmt.Fprintf(a.Err, "a connection was refused: %d are open\n", maxForwarded)
					continue
				}
				serving.Go(func() {
					defer func() { <-room }()
					if err := forward(ctx, c, ref, f.port, conn); err != nil && ctx.Err() == nil {
						fmt.Fprintln(a.Err, err)
					}
				})
			}
		})
	}
	<-ctx.Done()
	return nil
}

// reachWithin is how long a connection to a port of this machine may take to come.
const reachWithin = time.Second

// patient is a listener that can give up.
type patient interface {
	net.Listener
	SetDeadline(t time.Time) error
}

// reached connects to a listener, to see whether that gets there: a port that the swarm publishes on this machine leads to tasks, whoever
// listens there. What else came meanwhile is closed.
func reached(ctx context.Context, listener patient, f forwarding) error {
	dialer := net.Dialer{Timeout: reachWithin}
	trial, err := dialer.DialContext(ctx, "tcp", listener.Addr().String())
	if err == nil {
		defer trial.Close()
		err = listener.SetDeadline(time.Now().Add(reachWithin))
	}
	for err == nil {
		var conn net.Conn
		if conn, err = listener.Accept(); err == nil {
			_ = conn.Close()
			if conn.RemoteAddr().String() == trial.LocalAddr().String() {
				return listener.SetDeadline(time.Time{})
			}
		}
	}
	return fmt.Errorf("what connects to %s does not come here: a port that a service publishes on this machine leads to its tasks, whoever else listens there. "+
		"Use another port of this machine, such as 0:%d for a free one", listener.Addr(), f.port)
}

// forward leads one connection to the port of the task that is meant now.
func forward(ctx context.Context, c *client.Client, ref string, port uint16, conn net.Conn) error {
	defer conn.Close()
	task, err := runningTask(ctx, c, ref)
	if err != nil {
		return err
	}
	to, err := c.Tunnel(ctx, task.Meta.ID, v1.TunnelStart{Forward: &v1.ForwardStart{Port: port}})
	if err != nil {
		return daemonError(err)
	}
	defer to.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go sendInput(to, conn)
	out, part := &v1.FrameReader{From: to}, make([]byte, v1.MaxFrame)
	for {
		n, err := out.Read(part)
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if _, err := conn.Write(part[:n]); err != nil {
			return nil // whoever connected is gone
		}
	}
}
