package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

func (a *app) waitCommand() *cobra.Command {
	var condition string
	var timeout time.Duration
	var quiet bool
	cmd := &cobra.Command{
		Use:   "wait KIND/NAME... --for=CONDITION",
		Short: "Wait until something is so",
		Long: `Wait until a condition holds for each of the objects, and exit with status 0 then. The conditions:

  converged    a service runs as it says (the default for services)
  exists       there is such an object
  deleted      there is no such object any more; a service's tasks have stopped, too
  state=STATE  a task or a node is in that state, such as running or ready, or a member of the managers' etcd is a voter, reachable or
               the leader`,
		Example: `  swarmctl wait service/web --timeout 1m
  swarmctl wait service/web --for=deleted
  swarmctl wait node/worker1 --for=state=ready
  swarmctl wait member/worker1 --for=state=voter`,
		Args:              minArgs(1),
		ValidArgsFunction: a.completeKindAndNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if timeout > 0 {
				var cancel func()
				ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("timed out after %s", timeout))
				defer cancel()
			}
			k, refs, err := kindAndNames(args)
			if err != nil {
				return err
			}
			if len(refs) == 0 {
				return usageError(cmd, "%s: '%s' wants the names of objects", cmd.Root().Name(), cmd.CommandPath())
			}
			for _, ref := range refs {
				if err := a.waitFor(ctx, k, ref, condition, quiet); err != nil {
					return err
				}
			}
			return nil
		},
	}
	s := cmd.Flags()
	s.StringVar(&condition, "for", "", "What to wait for: converged, exists, deleted or state=STATE")
	s.DurationVar(&timeout, "timeout", 5*time.Minute, "Stop waiting after this long and exit with status 1 (0 waits for ever)")
	s.BoolVarP(&quiet, "quiet", "q", false, "Suppress progress output")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"converged", "exists", "deleted", "state=running", "state=ready", "state=voter"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) waitFor(ctx context.Context, k v1.Descriptor, ref, condition string, quiet bool) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	what, state, _ := strings.Cut(condition, "=")
	switch {
	case what == "" && k.Kind() != v1.KindService:
		return errors.New("--for is missing: want exists, deleted or state=STATE")
	case what == "", what == "converged" && k.Kind() == v1.KindService:
		return a.waitConverged(ctx, c, ref, quiet)
	case what == "exists" || what == "deleted":
	case what == "state" && (k.Kind() == v1.KindTask || k.Kind() == v1.KindNode || k.Kind() == v1.KindMember):
		if err := checkState(k.Kind(), state); err != nil {
			return err
		}
	default:
		return fmt.Errorf("--for=%s is no condition of a %s: want converged (services), exists, deleted, or state=STATE (tasks, nodes and members)",
			condition, strings.ToLower(string(k.Kind())))
	}
	return a.waitCondition(ctx, c, k, ref, what, state)
}

// memberStates are what can be waited for of a manager as a member of the managers' etcd.
var memberStates = []string{"voter", "reachable", "leader"}

func checkState(k v1.Kind, state string) error {
	if k == v1.KindTask {
		if _, ok := v1.ParseTaskState(state); !ok {
			return fmt.Errorf("%q is no state of a task: want one such as running, complete or failed", state)
		}
		return nil
	}
	if k == v1.KindMember {
		if !slices.Contains(memberStates, state) {
			return fmt.Errorf("%q is no state of a member: want %s", state, strings.Join(memberStates, ", "))
		}
		return nil
	}
	switch v1.NodeState(state) {
	case v1.NodeReady, v1.NodeDown, v1.NodeUnknown, v1.NodeDisconnected:
		return nil
	}
	return fmt.Errorf("%q is no state of a node: want ready, down, unknown or disconnected", state)
}

func (a *app) waitConverged(ctx context.Context, c *client.Client, ref string, quiet bool) error {
	svc, err := client.Get(ctx, c, v1.Services, ref)
	if err != nil {
		return apiError(err, v1.KindService, ref)
	}
	p := a.newProgress(quiet)
	err = a.await(ctx, c, &waitFlags{quiet: quiet}, a.Now(), svc, p)
	p.end()
	return a.ended(ctx, err, v1.KindService, ref)
}

// ended is the error of waiting that was cut short: by the timeout, or by the user.
func (a *app) ended(ctx context.Context, err error, k v1.Kind, name string) error {
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", ref(k, name), context.Cause(ctx))
	}
	return &exitError{code: 130}
}

// waitCondition follows an object by its name, or by its ID once it was found, until the condition holds.
func (a *app) waitCondition(ctx context.Context, c *client.Client, k v1.Descriptor, name, what, state string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	shown := name
	if k.Kind() == v1.KindMember { // it has its node's ID
		n, err := getNode(ctx, c, name)
		if err != nil {
			return err
		}
		name = n.Meta.ID
	}
	o, err := getObject(ctx, c, k, name)
	switch {
	case notFound(err) && what == "state" && k.Kind() == v1.KindMember: // it may come to be one
	case notFound(err) && what == "deleted":
		return a.tasksGone(ctx, c, k, shown, nil)
	case notFound(err) && what == "state":
		return err
	case err != nil && !notFound(err):
		return err
	case err == nil && holds(o, false, what, state):
		a.printf("%s condition met\n", ref(k.Kind(), shown))
		return nil
	}
	for s, err := range watchAny(ctx, c, k, nil) {
		if err != nil {
			return a.ended(ctx, daemonError(err), k.Kind(), shown)
		}
		m := s.object.GetMeta()
		if o != nil && m.ID != o.GetMeta().ID || o == nil && m.ID != name && objectName(s.object) != name {
			continue
		}
		if holds(s.object, s.gone, what, state) {
			a.printf("%s condition met\n", ref(k.Kind(), shown))
			return nil
		}
		if s.gone {
			return fmt.Errorf("%s was removed", ref(k.Kind(), shown))
		}
	}
	return a.ended(ctx, context.Canceled, k.Kind(), shown)
}

// tasksGone tells that an object which cannot be found is gone. A service that was removed goes on existing, without its
// name, while its tasks stop.
func (a *app) tasksGone(ctx context.Context, c *client.Client, k v1.Descriptor, name string, _ v1.Object) error {
	if k.Kind() != v1.KindService {
		a.printf("%s condition met\n", ref(k.Kind(), name))
		return nil
	}
	left := make(map[string]bool)
	tasks, err := client.List(ctx, c, v1.Tasks, nil)
	if err != nil {
		return daemonError(err)
	}
	for _, t := range tasks {
		if t.Desired != nil && t.Desired.ServiceName == name && !v1.Observed(t).Terminal() {
			left[t.Meta.ID] = true
		}
	}
	if len(left) > 0 {
		for event, err := range client.Watch(ctx, c, v1.Tasks, nil, -1) {
			if err != nil {
				return a.ended(ctx, daemonError(err), k.Kind(), name)
			}
			if event.Type == client.EventDelete || v1.Observed(event.Object).Terminal() {
				delete(left, event.Object.Meta.ID)
			}
			if len(left) == 0 {
				break
			}
		}
	}
	a.printf("%s condition met\n", ref(k.Kind(), name))
	return nil
}

// holds tells whether a condition holds for an object.
func holds(o v1.Object, gone bool, what, state string) bool {
	switch what {
	case "deleted":
		return gone
	case "exists":
		return !gone
	}
	if gone {
		return false
	}
	switch o := o.(type) {
	case *v1.Task:
		return v1.Observed(o).String() == state
	case *v1.Node:
		return convertNode(o).Status.State == state
	case *v1.Member:
		m := o.Status
		return m != nil && (state == "voter" && m.Voter || state == "reachable" && m.Reachable || state == "leader" && m.Leader)
	}
	return false
}
