package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

const (
	// attachWait bounds how long attach and detach wait for the node.
	attachWait = time.Minute
	// resolverAddress is where names are answered in an attached namespace; it is the same on every node.
	resolverAddress = "169.254.77.53"
)

// attachmentFlags are those of network attach.
type attachmentFlags struct {
	node, netns, name string
	pid               uint32
	aliases, labels   *list[string]
	detach            bool
}

func (a *app) networkAttachCommand() *cobra.Command {
	var f attachmentFlags
	cmd := &cobra.Command{
		Use:   "attach [OPTIONS] NETWORK [NETWORK...]",
		Short: "Put a network namespace of a node's on attachable networks",
		Long: `Put a network namespace that is not the swarm's own, such as one that "ip netns add" made or that of a container of yours, on networks that
were made with --attachable. What runs in it reaches the services and tasks there, and is found by its name. It gets links named swarm0, swarm1
and so on, an address on each network, and an address by which it asks for names at ` + resolverAddress + `; what else is in it stays as it is.

It lasts until it is detached or the namespace is gone, also over restarts of the daemon, and not over one of the machine.`,
		Example: `  ip netns add blue
  swarmctl network attach backend --netns blue --name blue
  ip netns exec blue curl http://10.0.0.5/
  swarmctl network attach backend --node worker1 --pid 4711 --name tool --alias debug`,
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Networks),
		RunE: func(cmd *cobra.Command, args []string) error {
			namespace, err := f.namespace()
			if err != nil {
				return err
			}
			return a.attachNetwork(cmd.Context(), &f, namespace, args)
		},
	}
	f.aliases, f.labels = newStrings(), newList("list", parseLabel)
	s := cmd.Flags()
	s.StringVar(&f.node, "node", "", "The `node` that the namespace is on; without it, this one")
	s.StringVar(&f.netns, "netns", "", `The namespace: a name of "ip netns", or a path on the node`)
	s.Uint32Var(&f.pid, "pid", 0, "The namespace of the process with this ID on the node")
	s.StringVar(&f.name, "name", "", "The name that it is found by; without it, one is made")
	s.Var(f.aliases, "alias", "Another name that it is found by (may be given several times)")
	s.Var(f.labels, "label", "Set metadata on the attachment")
	s.BoolVarP(&f.detach, "detach", "d", false, "Exit immediately instead of waiting for the node")
	_ = cmd.RegisterFlagCompletionFunc("node", completeNames(a, v1.Nodes))
	return cmd
}

// namespace is the path of the namespace that the flags name.
func (f *attachmentFlags) namespace() (string, error) {
	switch {
	case f.netns != "" && f.pid != 0:
		return "", errors.New("--netns and --pid: want one of them, for they name the namespace")
	case f.pid != 0:
		return "/proc/" + strconv.FormatUint(uint64(f.pid), 10) + "/ns/net", nil
	case f.netns != "":
		return v1.NamespacePath(f.netns), nil
	}
	return "", errors.New(`which namespace? Name it with --netns, or a process in it with --pid; "ip netns add NAME" makes one`)
}

// attachTo is the node that is meant: without a name the one that answers over its own socket.
func (a *app) attachTo(ctx context.Context, c *client.Client, node string) (*v1.Node, error) {
	if node == "" {
		if !strings.HasPrefix(c.Host(), "unix://") {
			return nil, errors.New("--node is missing: the namespace is on one of the nodes, and it is not known which is meant from here")
		}
		node = "self"
	}
	return getNode(ctx, c, node)
}

func (a *app) attachNetwork(ctx context.Context, f *attachmentFlags, namespace string, networks []string) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	node, err := a.attachTo(ctx, c, f.node)
	if err != nil {
		return err
	}
	book, err := newNetworkBook(ctx, c)
	if err != nil {
		return err
	}
	name := f.name
	if name == "" {
		name = "attached-" + strings.ToLower(rand.Text()[:10])
	}
	o := &v1.Attachment{Meta: v1.Meta{Name: name, Labels: toMap(f.labels.all)},
		Spec: &v1.AttachmentSpec{Node: node.Meta.ID, Namespace: namespace, Aliases: f.aliases.all}}
	for _, ref := range networks {
		n := book.find(ref)
		if n == nil {
			return &notFoundError{v1.KindNetwork, ref}
		}
		o.Spec.Networks = append(o.Spec.Networks, n.Meta.ID)
	}
	made, warnings, err := client.Create(ctx, c, v1.Attachments, o)
	if err != nil {
		return daemonError(err)
	}
	a.warn(warnings)
	if f.detach {
		a.printf("%s\n", name)
		return nil
	}
	return a.awaitAttachment(ctx, c, made, book)
}

// awaitAttachment waits until an attachment is there, and says with which addresses. One that cannot be is removed again.
func (a *app) awaitAttachment(ctx context.Context, c *client.Client, made *v1.Attachment, book networkBook) error {
	t, err := attachmentTask(ctx, c, made.Meta.ID, func(t *v1.Task) bool { return t != nil && v1.Observed(t) >= v1.TaskRunning })
	if err != nil {
		return fmt.Errorf("attachment %s is made, but not there yet: %w: it goes on by itself, and \"swarmctl network detach %s\" gives it up", made.Meta.Name, err, made.Meta.Name)
	}
	if v1.Observed(t).Terminal() {
		why := t.Desired.Reason
		if t.Status != nil {
			why = strings.TrimSpace(t.Status.Err + why)
			if why == "" {
				why = t.Status.Message
			}
		}
		err := fmt.Errorf("not attached: %s", why)
		return errors.Join(err, daemonError(client.Delete(ctx, c, v1.Attachments, made.Meta.ID)))
	}
	var at []string
	for _, on := range t.Desired.Networks {
		name := on.Network
		if n := book.exact(name); n != nil {
			name = n.Meta.Name
		}
		at = append(at, strings.Join(on.Addresses, " ")+" on "+name)
	}
	a.printf("%s: %s; names are answered at %s\n", made.Meta.Name, strings.Join(at, ", "), resolverAddress)
	return nil
}

// attachmentTask looks at an attachment's task, nil while there is none, until it is as it should be.
func attachmentTask(ctx context.Context, c *client.Client, id string, until func(*v1.Task) bool) (*v1.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, attachWait)
	defer cancel()
	var p patience
	why := "the managers have not looked at it yet"
	for {
		t, err := client.Get(ctx, c, v1.Tasks, v1.AttachmentTask(id))
		if err = apiError(err, v1.KindTask, id); notFound(err) {
			t, err = nil, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w: %s", context.Cause(ctx), why)
		case !p.bears(err):
			return nil, err
		case err == nil && until(t):
			return t, nil
		case t != nil:
			why = pendingText(t)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// pendingText is what a task waits for, for people.
func pendingText(t *v1.Task) string {
	if t.Desired.Pending != "" {
		return t.Desired.Pending
	}
	if t.Status != nil && t.Status.Err != "" {
		return t.Status.Err
	}
	return "it is " + v1.Observed(t).String()
}

func (a *app) networkDetachCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:                   "detach [OPTIONS] ATTACHMENT [ATTACHMENT...]",
		Short:                 "Take network namespaces off the networks that they were attached to",
		Long:                  "Take network namespaces off the networks that they were attached to, and wait until the links are gone.",
		Example:               "  swarmctl network detach blue",
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Attachments),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			var errs []error
			for _, ref := range args {
				err := a.detachNetwork(cmd.Context(), c, ref)
				if err != nil && (!force || !notFound(err)) {
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the attachment does not exist")
	return cmd
}

func (a *app) detachNetwork(ctx context.Context, c *client.Client, ref string) error {
	o, err := client.Get(ctx, c, v1.Attachments, ref)
	if err == nil {
		err = client.Delete(ctx, c, v1.Attachments, o.Meta.ID)
	}
	if err != nil {
		return apiError(err, v1.KindAttachment, ref)
	}
	node, err := getNode(ctx, c, o.Spec.Node)
	if notFound(err) || err == nil && v1.NodeLost(node) {
		a.printf("%s\n", o.Meta.Name) // it does so when the node is back
		return nil
	}
	_, err = attachmentTask(ctx, c, o.Meta.ID, func(t *v1.Task) bool { return t == nil || v1.Observed(t).Terminal() })
	if err != nil {
		return fmt.Errorf("attachment %s is given up, but its links may still be there: %w", o.Meta.Name, err)
	}
	a.printf("%s\n", o.Meta.Name)
	return nil
}

// attachmentRows are the table of attachments: where each is, and what became of it.
func (p *printer) attachmentRows(ctx context.Context, objects []v1.Object) ([]string, [][]string, error) {
	tasks, err := client.List(ctx, p.client, v1.Tasks, nil)
	if err != nil {
		return nil, nil, daemonError(err)
	}
	nodes, err := client.List(ctx, p.client, v1.Nodes, nil)
	if err != nil {
		return nil, nil, daemonError(err)
	}
	var rows [][]string
	for _, o := range objects {
		at := o.(*v1.Attachment)
		row := []string{at.Meta.Name, at.Meta.ID, at.Spec.Node, at.Spec.Namespace, "", "new", p.ago(at.Meta.CreatedAt), ""}
		if i := slices.IndexFunc(nodes, func(n *v1.Node) bool { return n.Meta.ID == at.Spec.Node }); i >= 0 {
			row[2] = nodeName(nodes[i])
		}
		if i := slices.IndexFunc(tasks, func(t *v1.Task) bool { return t.Meta.ID == v1.AttachmentTask(at.Meta.ID) }); i >= 0 {
			t := tasks[i]
			var addresses []string
			for _, on := range t.Desired.Networks {
				addresses = append(addresses, on.Addresses...)
			}
			row[4], row[5] = strings.Join(addresses, ","), v1.Observed(t).String()
			switch {
			case v1.Observed(t).Terminal() && t.Status != nil:
				row[7] = strings.TrimSpace(t.Status.Err + t.Desired.Reason)
				if row[7] == "" {
					row[7] = t.Status.Message
				}
			case v1.Observed(t) < v1.TaskRunning:
				row[7] = pendingText(t)
			case t.Status != nil: // one that runs may have lost a link that cannot be made again
				row[7] = t.Status.Err
			}
		}
		rows = append(rows, row)
	}
	return []string{"NAME", "ID", "NODE", "NAMESPACE", "ADDRESSES", "STATE", "CREATED", "NOTE"}, rows, nil
}
