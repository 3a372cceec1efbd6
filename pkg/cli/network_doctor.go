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
	// doctorsAtOnce is how many nodes are examined at a time, so that what they send each other is no load.
	doctorsAtOnce = 8
	// doctorWait bounds how long one may take.
	doctorWait = 90 * time.Second
	// doctorPause is before a node is asked again whose answer was cut off, as it is where a manager that carries it ends.
	doctorPause = time.Second
	// maxExamination bounds what is read of a node's answer, in bytes.
	maxExamination = 8 << 20
)

type doctorFlags struct {
	nodes  []string
	output string
}

func (a *app) networkDoctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [OPTIONS] [NETWORK]",
		Short: "Examine networks from every node, and say in a sentence what is wrong where",
		Long: `Examine networks from every node: whether the other nodes and the tasks on them are reached, with packets as large as the network's, whether
encrypted networks have sessions, whether the kernel has the links, routes and rules that it should, and whether tasks get names answered.
It changes nothing. The exit status is 0 where all is well, and 1 where anything was found.`,
		Example: `  swarmctl network doctor
  swarmctl network doctor backend --node worker1
  swarmctl network doctor -o json`,
		Args:                  cobra.MaximumNArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Networks),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.output != "text" && f.output != "json" {
				return fmt.Errorf("invalid argument %q for --output: want text or json", f.output)
			}
			return a.networkDoctor(cmd.Context(), &f, args)
		},
	}
	s := cmd.Flags()
	s.StringSliceVar(&f.nodes, "node", nil, "Examine from this `node` alone (may be given several times)")
	s.StringVarP(&f.output, "output", "o", "text", "How to print: text or json")
	_ = cmd.RegisterFlagCompletionFunc("node", completeNames(a, v1.Nodes))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// diagnosis is what was found in all, as JSON.
type diagnosis struct {
	// Nodes is how many were examined, Checks how many things were looked at.
	Nodes    int          `json:"nodes"`
	Checks   int          `json:"checks"`
	Findings []v1.Finding `json:"findings"`
}

func (a *app) networkDoctor(ctx context.Context, f *doctorFlags, args []string) error {
	c, err := a.daemon()
	if err != nil {
		return err
	}
	networks, err := newNetworkBook(ctx, c)
	if err != nil {
		return err
	}
	var start v1.DoctorStart
	if len(args) > 0 {
		n := networks.find(args[0])
		if n == nil {
			return &notFoundError{v1.KindNetwork, args[0]}
		}
		start.Network = n.Meta.ID
	}
	all, err := client.List(ctx, c, v1.Nodes, nil)
	if err != nil {
		return daemonError(err)
	}
	chosen := all
	if len(f.nodes) > 0 {
		chosen = nil
		for _, ref := range f.nodes {
			n, err := client.Get(ctx, c, v1.Nodes, ref)
			if err != nil {
				return apiError(err, v1.KindNode, ref)
			}
			if !slices.ContainsFunc(chosen, func(one *v1.Node) bool { return one.Meta.ID == n.Meta.ID }) {
				chosen = append(chosen, n)
			}
		}
	}
	d := examineAll(ctx, c, chosen, start)
	if err := ctx.Err(); err != nil {
		return err
	}
	dead := make(map[string]bool)
	for _, n := range all {
		dead[n.Meta.ID] = n.Status == nil || n.Status.State != v1.NodeReady
	}
	d.Findings = causes(d.Findings, dead)
	if f.output == "json" {
		return a.writeDiagnosis(d)
	}
	names := make(map[string]string)
	for _, n := range all {
		names[n.Meta.ID] = nodeName(n)
	}
	if now, err := newNetworkBook(ctx, c); err == nil { // some may have been made meanwhile
		networks = append(networks, now...)
	}
	for _, n := range networks {
		names[n.Meta.ID] = n.Meta.Name
	}
	return a.printDiagnosis(d, names)
}

// causes are findings without those that follow from others: that who is down is not reached is no news, and where a node does not have a network
// whole, or cannot encrypt it, nothing comes through there from or to it, whatever ports are open; and whoever could not be put on it there does not answer.
func causes(all []v1.Finding, dead map[string]bool) []v1.Finding {
	type part struct{ node, network string }
	mute, away := make(map[part]bool), make(map[part][]string)
	for _, f := range all {
		if f.At != "" && f.Peer == "" {
			away[part{f.Node, f.Network}] = append(away[part{f.Node, f.Network}], strings.Split(f.At, ",")...)
		}
		if (f.Check == v1.CheckEncrypted || f.Check == v1.CheckNetwork) && f.Peer == "" {
			mute[part{f.Node, f.Network}] = true
		}
	}
	return slices.DeleteFunc(all, func(f v1.Finding) bool {
		if f.Peer == "" || f.Check == v1.CheckNode {
			return false
		}
		through := f.Check == v1.CheckLink || f.Check == v1.CheckMTU || f.Check == v1.CheckEncrypted
		there := part{f.Peer, f.Network}
		return dead[f.Peer] || through && (mute[part{f.Node, f.Network}] || mute[there] || slices.Contains(away[there], f.At))
	})
}

// foundErr ends a command that found something.
func foundErr(d *diagnosis) error {
	if len(d.Findings) == 0 {
		return nil
	}
	return &exitError{code: 1}
}

func (a *app) writeDiagnosis(d *diagnosis) error {
	out := json.NewEncoder(a.Out)
	out.SetIndent("", "  ")
	if err := out.Encode(d); err != nil {
		return err
	}
	return foundErr(d)
}

func (a *app) printDiagnosis(d *diagnosis, names map[string]string) error {
	name := func(id string) string {
		if names[id] != "" {
			return cell(names[id])
		}
		return id
	}
	node := func(id string) string {
		if names[id] == "" { // the others learn of it a moment later
			return fmt.Sprintf("node %s, which left", id)
		}
		return "node " + name(id)
	}
	for _, f := range d.Findings {
		var where []string
		if f.Node != "" {
			where = append(where, node(f.Node))
		}
		if f.Network != "" {
			where = append(where, "network "+name(f.Network))
		}
		if f.Peer != "" {
			where = append(where, "to "+node(f.Peer))
		}
		a.printf("%s: %s\n", strings.Join(where, ", "), cell(f.Text))
	}
	if len(d.Findings) == 0 {
		a.printf("All is well: %d things were looked at on %d %s\n", d.Checks, d.Nodes, plural("node", d.Nodes))
	}
	return foundErr(d)
}

// examineAll has nodes examine themselves, several at a time.
func examineAll(ctx context.Context, c *client.Client, nodes []*v1.Node, start v1.DoctorStart) *diagnosis {
	var mu sync.Mutex
	var work sync.WaitGroup
	d := &diagnosis{Findings: []v1.Finding{}}
	room := make(chan struct{}, doctorsAtOnce)
	results := make([]v1.Examination, len(nodes))
	for i, n := range nodes {
		work.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			one, err := examineTwice(ctx, c, n, start)
			if err != nil {
				one = v1.Examination{Findings: []v1.Finding{{Check: v1.CheckNode, Node: n.Meta.ID, Text: "it cannot be examined: " + strings.ReplaceAll(err.Error(), n.Meta.ID, nodeName(n))}}}
			}
			results[i] = one
			mu.Lock()
			defer mu.Unlock()
			if d.Checks += one.Checks; err == nil {
				d.Nodes++
			}
		})
	}
	work.Wait()
	for _, one := range results {
		d.Findings = append(d.Findings, one.Findings...)
	}
	return d
}

// examineTwice examines a node, and once more if the answer was cut off.
func examineTwice(ctx context.Context, c *client.Client, n *v1.Node, start v1.DoctorStart) (v1.Examination, error) {
	e, err := examineNode(ctx, c, n, start)
	if !errors.Is(err, errCutOff) {
		return e, err
	}
	select {
	case <-time.After(doctorPause):
		return examineNode(ctx, c, n, start)
	case <-ctx.Done():
		return e, err
	}
}

func examineNode(ctx context.Context, c *client.Client, n *v1.Node, start v1.DoctorStart) (e v1.Examination, err error) {
	if n.Status != nil && n.Status.State == v1.NodeDown {
		return e, fmt.Errorf("it is down")
	}
	ctx, cancel := context.WithTimeout(ctx, doctorWait)
	defer cancel()
	to, err := c.Examine(ctx, n.Meta.ID, start)
	if err != nil {
		return e, err
	}
	defer to.Close()
	output := &io.LimitedReader{R: &v1.FrameReader{From: to}, N: maxExamination}
	if e, err = readExamination(output); output.N == 0 {
		err = fmt.Errorf("it says more than %d bytes", maxExamination)
	}
	return e, err
}

// errCutOff is of an answer that has no end.
var errCutOff = errors.New("the connection to it was cut off while it was examined: ask again")

// readExamination adds up the parts of an answer.
func readExamination(from io.Reader) (e v1.Examination, err error) {
	for in := json.NewDecoder(from); ; {
		var part v1.Examination
		switch err := in.Decode(&part); {
		case err == io.EOF:
			return e, nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return e, errCutOff
		case err != nil:
			return e, err
		}
		e.Checks += part.Checks
		e.Findings = append(e.Findings, part.Findings...)
	}
}
