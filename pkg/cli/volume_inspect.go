package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

const (
	// volumeWait bounds how long one node may take to tell of a volume, volumesAtOnce how many are asked at a time.
	volumeWait    = 5 * time.Second
	volumesAtOnce = 32
	// maxNodeVolume bounds what is read of a node's answer, in bytes.
	maxNodeVolume = 1 << 20
)

// volumeOnNode is what a volume is like on one node.
type volumeOnNode struct {
	Node       string
	CreatedAt  time.Time
	Labels     map[string]string
	Mountpoint string
	Options    map[string]string
}

var errNoVolume = errors.New("no such volume")

func (a *app) volumeInspectCommand() *cobra.Command {
	var f inspectFlags
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] VOLUME [VOLUME...]",
		Short: "Display detailed information on one or more volumes",
		Long: `Display detailed information on one or more volumes. Each node that has one is asked what it was made with and where it is, which OnNodes has; one
that does not answer is left out, with a warning. What is not of volume create is that of the first node.`,
		Args:                  minArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Volumes),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.daemon()
			if err != nil {
				return err
			}
			all, err := a.volumes(cmd.Context(), nil)
			if err != nil {
				return err
			}
			return inspect(a.Out, f.format, args, func(ref string) (any, error) {
				i := slices.IndexFunc(all, func(v *dockerVolume) bool { return v.Name == ref })
				if i < 0 {
					return nil, fmt.Errorf("get %s: %w", ref, errNoVolume)
				}
				told, warnings := askOfVolume(cmd.Context(), c, all[i].on, ref)
				a.warn(warnings)
				all[i].add(told)
				return all[i], cmd.Context().Err()
			})
		},
	}
	f.add(cmd, false)
	return cmd
}

// add puts in what nodes told. What the swarm itself says of volumes of the name goes before what a node has.
func (v *dockerVolume) add(told []volumeOnNode) {
	v.OnNodes = told
	if len(told) == 0 {
		return
	}
	v.Mountpoint = told[0].Mountpoint
	if !v.Described {
		v.CreatedAt, v.Labels, v.Options = told[0].CreatedAt, told[0].Labels, told[0].Options
	}
}

// askOfVolume asks nodes what a volume is like there, several at a time, and warns of those that do not say.
func askOfVolume(ctx context.Context, c *client.Client, nodes []*v1.Node, name string) (told []volumeOnNode, warnings []string) {
	slices.SortFunc(nodes, func(x, y *v1.Node) int { return strings.Compare(nodeName(x), nodeName(y)) })
	answers := make([]v1.NodeVolume, len(nodes))
	errs := ofEach(nodes, func(i int) (err error) {
		answers[i], err = inspectVolumeOf(ctx, c, nodes[i], name)
		return err
	})
	for i, n := range nodes {
		if errs[i] != nil {
			warnings = append(warnings, fmt.Sprintf("volume %s of node %s is left out: %v", name, nodeName(n), errs[i]))
			continue
		}
		v := answers[i]
		told = append(told, volumeOnNode{nodeName(n), v.CreatedAt, v.Labels, v.Mountpoint, v.Options})
	}
	return told, warnings
}

// ofEach has something asked of each node, by its place, several at a time, and returns what came of each.
func ofEach(nodes []*v1.Node, ask func(i int) error) []error {
	errs := make([]error, len(nodes))
	room := make(chan struct{}, volumesAtOnce)
	var work sync.WaitGroup
	for i := range nodes {
		work.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			errs[i] = ask(i)
		})
	}
	work.Wait()
	return errs
}

func inspectVolumeOf(ctx context.Context, c *client.Client, n *v1.Node, name string) (v v1.NodeVolume, err error) {
	if n.Status.State == v1.NodeDown {
		return v, errors.New("the node is down")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, volumeWait, fmt.Errorf("the node did not answer within %s", volumeWait))
	defer cancel()
	to, err := c.InspectVolume(ctx, n.Meta.ID, name)
	if err == nil {
		defer to.Close()
		answer, reading := io.ReadAll(io.LimitReader(&v1.FrameReader{From: to}, maxNodeVolume))
		if err = reading; err == nil {
			err = json.Unmarshal(answer, &v)
		}
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return v, err
}
