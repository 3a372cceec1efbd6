package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/dnsplugin"
	"github.com/swarmd/swarmd/pkg/netplugin"
)

const (
	// doctorPatience bounds an examination, with the time that it waits for another one to end: one goes on at a time.
	doctorPatience = 60 * time.Second
	// namesPatience is how long the resolver may take to answer a task.
	namesPatience = 3 * time.Second
	askAgain      = time.Second
	// mostAsking is how many networks' names are asked for, mostFindings how many findings are told.
	mostAsking, mostFindings = 64, 1000
)

// asking is a task of this node that asks for a name on a network, as a check.
type asking struct {
	task, network, name string
}

// subject is what is examined, as the loop knows it.
type subject struct {
	names    map[string]string // of networks and of this node's tasks, by ID
	networks map[string]*v1.PeerNetwork
	nodes    map[uint32]string // IDs by index
	asking   []asking          // one of each network
}

// subject is what there is to examine.
func (a *Agent) subject(only string) *subject {
	p := &subject{names: a.names(), networks: maps.Clone(a.peers.networks), nodes: make(map[uint32]string)}
	for id, n := range a.peers.nodes {
		p.nodes[n.Index] = id
	}
	seen := make(map[string]bool)
	for _, t := range a.tasks {
		if !t.linked || !t.published || t.assigned == nil || t.stop() {
			continue
		}
		for _, n := range t.networks() {
			if known := p.networks[n.Network]; known != nil && !seen[n.Network] && (only == "" || only == n.Network) && len(p.asking) < mostAsking {
				seen[n.Network] = true
				p.asking = append(p.asking, asking{t.id, n.Network, v1.TaskName(t.assigned.Desired) + "." + known.Name})
			}
		}
	}
	return p
}

// tunnelDoctor examines this node's part of the network, and sends what it found.
func (a *Agent) tunnelDoctor(ctx context.Context, to v1.Tunnel, d *v1.DoctorStart) v1.TunnelEnd {
	if a.o.Network == nil {
		return v1.TunnelEnd{Error: "the tasks of this node have no network"}
	}
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	select {
	case a.doctor <- struct{}{}:
		defer func() { <-a.doctor }()
	case <-ctx.Done():
		return v1.TunnelEnd{Error: "the node is being examined for others: try again in a minute"}
	}
	about := make(chan *subject, 1)
	if !a.post(func() { about <- a.subject(d.Network) }) {
		return v1.TunnelEnd{Error: "the node's agent stops"}
	}
	var p *subject
	select {
	case p = <-about:
	case <-ctx.Done():
		return v1.TunnelEnd{Error: "the node's agent is too busy"}
	}
	found, checks, err := a.o.Network.Examine(ctx, d.Network)
	if err != nil && len(found) == 0 {
		return v1.TunnelEnd{Error: err.Error()}
	}
	findings := make([]v1.Finding, 0, len(found))
	for _, f := range found {
		findings = append(findings, v1.Finding{Check: checkOf(f), Node: a.o.NodeID, Network: f.Overlay, Peer: p.nodes[f.Node], At: f.At, Text: named(f.Text, func(id string) string { return p.names[id] })})
	}
	if err != nil {
		findings = append(findings, v1.Finding{Check: v1.CheckNode, Node: a.o.NodeID, Text: fmt.Sprintf("it cannot be examined wholly (%v): mend what is found, and ask again", err)})
	}
	findings = append(findings, a.examineNames(ctx, p.asking)...)
	slices.SortStableFunc(findings, func(x, y v1.Finding) int {
		return cmp.Or(cmp.Compare(x.Network, y.Network), cmp.Compare(x.Peer, y.Peer), cmp.Compare(x.Check, y.Check))
	})
	return sendFindings(to, findings, checks+len(p.asking))
}

// sendFindings sends findings, a frame for each as one may be long; those that are too many are counted.
func sendFindings(to v1.Tunnel, findings []v1.Finding, checks int) v1.TunnelEnd {
	if more := len(findings) - mostFindings; more > 0 {
		findings = append(findings[:mostFindings:mostFindings], v1.Finding{Check: v1.CheckNode, Node: findings[0].Node, Text: fmt.Sprintf("there are %d findings more: mend some, and ask again", more)})
	}
	out := json.NewEncoder(v1.FrameWriter{To: to, Kind: v1.FrameOutput})
	for part := range slices.Chunk(append(findings, v1.Finding{}), 1) {
		e := v1.Examination{Findings: part}
		if part[0] == (v1.Finding{}) {
			e = v1.Examination{Checks: checks}
		}
		if err := out.Encode(e); err != nil {
			return v1.TunnelEnd{Error: err.Error()}
		}
	}
	return v1.TunnelEnd{}
}

// checkOf is the kind of a finding.
func checkOf(f netplugin.Finding) string {
	kinds := map[string]string{netplugin.AboutUnderlay: v1.CheckUnderlay, netplugin.AboutMTU: v1.CheckMTU, netplugin.AboutLink: v1.CheckLink,
		netplugin.AboutSession: v1.CheckEncrypted, netplugin.AboutRules: v1.CheckRules, netplugin.AboutWhole: v1.CheckNetwork}
	return kinds[f.About]
}

// examineNames has a task of each network ask for its own name there. Where one gets no answer it asks once more, after a while: tasks come and go
// meanwhile, and their names with them.
func (a *Agent) examineNames(ctx context.Context, all []asking) (findings []v1.Finding) {
	if a.o.Names == nil {
		return nil
	}
	failed := slices.DeleteFunc(slices.Clone(all), func(one asking) bool { return a.askName(ctx, one) == nil })
	if len(failed) == 0 {
		return nil
	}
	select {
	case <-time.After(askAgain):
	case <-ctx.Done():
	}
	for _, one := range failed {
		if err := a.askName(ctx, one); err != nil && ctx.Err() == nil && a.asks(ctx, one) {
			findings = append(findings, v1.Finding{Check: v1.CheckNames, Node: a.o.NodeID, Network: one.network,
				Text: fmt.Sprintf("a task that asks the resolver at %s for %s gets no answer (%v): see whether something drops it, what the daemon's log says of names, and whether another program has that port", netplugin.Resolver, one.name, err)})
		}
	}
	return findings
}

// asks tells whether a task is still one that is to get answers.
func (a *Agent) asks(ctx context.Context, one asking) bool {
	answer := make(chan bool, 1)
	if !a.post(func() { t := a.tasks[one.task]; answer <- t != nil && t.linked && t.published && !t.stop() }) {
		return false
	}
	select {
	case still := <-answer:
		return still
	case <-ctx.Done():
		return false
	}
}

func (a *Agent) askName(ctx context.Context, one asking) error {
	for _, network := range []string{"udp", "tcp"} {
		if err := a.askNameBy(ctx, network, one); err != nil {
			return fmt.Errorf("by %s: %w", strings.ToUpper(network), err)
		}
	}
	return nil
}

func (a *Agent) askNameBy(ctx context.Context, network string, one asking) error {
	ctx, cancel := context.WithTimeout(ctx, namesPatience)
	defer cancel()
	c, err := a.o.Network.Dial(ctx, one.task, network, netplugin.Resolver.String())
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	found, err := dnsplugin.Ask(c, one.name)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("none within %s", namesPatience)
	case err == nil && !found:
		return errors.New("it is not known")
	}
	return err
}
