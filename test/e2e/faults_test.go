package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

var (
	faultRounds = flag.Int("rounds", 4, "how many rounds of faults")
	faultSeed   = flag.Uint64("seed", 0, "seed of the faults; 0 is a new one")
	faultFirst  = flag.Int("first", 0, "round to begin with, of a seed that is replayed")
)

// wanted are the services that are to run through all faults, and their replicas.
var wanted = map[string]int{"web": 6, "api": 3}

// TestFaults does random things to a swarm, round after round, while clients write through all managers: hosts are killed, cut off, frozen,
// restarted and without power, alone and together, managers are made and unmade. After each round everything is mended, and then
// everything that was acknowledged is there, the history of the writes is one that a register can have, every service runs as it is wanted with
// one container for each slot on all hosts together, and the members of etcd are the managers of the node list.
//
// The seed and the round decide what is done, to which hosts and for how long: make faults SEED=… FIRST=… ROUNDS=1 does a round again.
func TestFaults(t *testing.T) {
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64N(1_000_000)
	}
	t.Logf("seed %d, %d rounds", seed, *faultRounds)
	s := form(t, 3, 2)
	for name, n := range wanted {
		s.serve(s.Hosts[0], name, n, "--restart-delay", "100ms")
	}
	f := &faults{swarm: s, clients: make(map[string]*client.Client), folder: filepath.Join(s.Bin, fmt.Sprintf("faults-%d", seed))}
	for _, h := range s.Hosts {
		f.clients[h.Name] = s.client(h)
	}
	began := time.Now()
	for i := *faultFirst; i < *faultFirst+*faultRounds; i++ {
		if err := f.round(i, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
			f.keepLogs()
			t.Fatalf("round %d of seed %d: %v\nthe logs of all hosts are in %s", i, seed, err, f.folder)
		}
	}
	t.Logf("%d rounds of seed %d took %s: writes by outcome: %v, configs created: %d", *faultRounds, seed, time.Since(began).Round(time.Second), f.outcomes, f.created)
	if f.outcomes[acknowledged] < 10**faultRounds {
		t.Errorf("only %v writes were acknowledged", f.outcomes)
	}
}

// faults is a swarm under faults.
type faults struct {
	*swarm
	mending
	clients  map[string]*client.Client
	folder   string
	outcomes map[outcomeState]int
	created  int
}

// round is one round.
func (f *faults) round(number int, random *rand.Rand) error {
	managers, err := f.managerHosts()
	if err != nil {
		return err
	}
	l, err := f.startLoad(f.clients, number, managers)
	if err != nil {
		return err
	}
	began := time.Now()
	var did []string
	for range 1 + random.IntN(2) {
		what, err := f.fault(random)
		if errors.Is(err, errNobody) {
			what, err = "nothing: there was nobody to "+what, nil
		}
		if err != nil {
			l.stop()
			return fmt.Errorf("%s: %w", what, err)
		}
		did = append(did, what)
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
	}
	time.Sleep(time.Duration(1000+random.IntN(3500)) * time.Millisecond)
	if err = f.mend(); err != nil {
		l.stop()
		return fmt.Errorf("mend: %w", err)
	}
	mended := time.Now()
	err = f.settles()
	l.stop()
	what := strings.Join(did, ", ")
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	took := time.Since(mended)
	if err := f.verify(l); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	f.t.Logf("round %d: %s; mended after %s, settled %s later; %v", number, what, mended.Sub(began).Round(100*time.Millisecond), took.Round(100*time.Millisecond), l.history.counts())
	return nil
}

// managerHosts are the hosts whose nodes are to be managers.
func (f *faults) managerHosts() ([]*lab.Host, error) {
	var found []*lab.Host
	err := lab.Await(generous, func() error {
		found = nil
		for _, h := range f.Hosts {
			ctx, cancel := context.WithTimeout(f.t.Context(), answerWithin)
			nodes, err := client.List(ctx, f.clients[h.Name], v1.Nodes, nil)
			cancel()
			if err != nil {
				continue // a worker, or one that is not there yet
			}
			for _, other := range f.Hosts {
				if slices.ContainsFunc(nodes, func(n *v1.Node) bool { return n.Meta.ID == f.nodes[other.Name] && n.Spec.Role == v1.RoleManager }) {
					found = append(found, other)
				}
			}
			return nil
		}
		return errors.New("no manager answers")
	})
	return found, err
}

// fault does one random thing, and notes what undoes it.
func (f *faults) fault(random *rand.Rand) (string, error) {
	pair := random.Perm(len(f.Hosts))[:2]
	h, other := f.Hosts[pair[0]], f.Hosts[pair[1]]
	switch random.IntN(12) {
	case 0, 1:
		return "cut off " + h.Name, f.do(f.Cut(h), f.Heal)
	case 2:
		return "cut " + h.Name + " from " + other.Name, f.do(f.CutBetween(h, other), f.Heal)
	case 3:
		rest := slices.DeleteFunc(slices.Clone(f.Hosts), func(x *lab.Host) bool { return x == h || x == other })
		return "partition off " + h.Name + " and " + other.Name, f.do(f.Partition([]*lab.Host{h, other}, rest), f.Heal)
	case 4:
		return "kill swarmd of " + h.Name, f.down(h, sure(h.Kill))
	case 5:
		return "kill everything on " + h.Name, f.down(h, sure(h.KillAll))
	case 6:
		return "cut the power of " + h.Name, f.down(h, h.PowerOff)
	case 7:
		return "restart swarmd of " + h.Name, f.down(h, func() error {
			h.Resume() // a frozen one would not hear
			h.Stop()
			return nil
		})
	case 8:
		if !h.Alive() {
			return "nothing", nil
		}
		h.Pause()
		return "freeze swarmd of " + h.Name, f.do(nil, func() error {
			if h.Alive() {
				h.Resume()
			}
			return nil
		})
	case 9:
		if h.Namespace == nil {
			return "nothing", nil
		}
		d := time.Duration(1+random.IntN(200)) * time.Millisecond
		return fmt.Sprintf("slow the link of %s down by %s", h.Name, d), f.do(f.Delay(h, d), func() error { return f.Delay(h, 0) })
	default:
		return f.changeRole(random)
	}
}

// changeRole promotes a worker or demotes a manager, so that there are three to five managers. Where the swarm cannot decide just now,
// that is as good.
func (f *faults) changeRole(random *rand.Rand) (string, error) {
	up, pick := random.IntN(2) == 0, random.IntN(len(f.Hosts))
	for _, at := range f.Hosts {
		ctx, cancel := context.WithTimeout(f.t.Context(), answerWithin)
		nodes, err := client.List(ctx, f.clients[at.Name], v1.Nodes, nil)
		cancel()
		if err == nil {
			return f.changeRoleBy(at, nodes, up, pick)
		}
	}
	return "nothing", nil
}

func (f *faults) changeRoleBy(at *lab.Host, nodes []*v1.Node, up bool, pick int) (string, error) {
	var managers, workers []*lab.Host
	byHost := make(map[*lab.Host]*v1.Node)
	for _, h := range f.Hosts {
		i := slices.IndexFunc(nodes, func(n *v1.Node) bool { return n.Meta.ID == f.nodes[h.Name] })
		if i < 0 {
			return "", fmt.Errorf("%s is no node", h.Name)
		}
		if byHost[h] = nodes[i]; nodes[i].Spec.Role == v1.RoleManager {
			managers = append(managers, h)
		} else {
			workers = append(workers, h)
		}
	}
	from, role, what := workers, v1.RoleManager, "promote "
	if len(workers) == 0 || !up && len(managers) > 3 {
		from, role, what = managers, v1.RoleWorker, "demote "
	}
	h := from[pick%len(from)]
	node := byHost[h]
	node.Spec.Role = role
	ctx, cancel := context.WithTimeout(f.t.Context(), answerWithin)
	defer cancel()
	if _, _, err := client.Update(ctx, f.clients[at.Name], v1.Nodes, node); err != nil {
		return what + h.Name + " (refused, or not decided in time)", nil
	}
	return what + h.Name, nil
}

// settles waits until the swarm is well: all nodes ready, the members of etcd the managers of the node list, every service as it is
// wanted, and the containers on all hosts exactly those of the tasks.
func (f *faults) settles() error {
	return lab.Await(generous, func() error {
		for _, h := range f.Hosts {
			if !h.Alive() {
				return fmt.Errorf("swarmd of %s ended", h.Name)
			}
		}
		managers, err := f.managerHosts()
		if err != nil {
			return err
		}
		for _, h := range managers {
			if err := f.wellBy(h, managers); err != nil {
				return fmt.Errorf("by %s: %w", h.Name, err)
			}
		}
		return nil
	})
}

// wellBy tells what one manager finds missing.
func (f *faults) wellBy(h *lab.Host, managers []*lab.Host) error {
	ctx, cancel := context.WithTimeout(f.t.Context(), answerWithin)
	defer cancel()
	c := f.clients[h.Name]
	nodes, err := client.List(ctx, c, v1.Nodes, nil)
	if err != nil {
		return err
	}
	members, err := client.List(ctx, c, v1.Members, nil)
	if err != nil {
		return err
	}
	if err := membersAre(nodes, members); err != nil {
		return err
	}
	tasks := make(map[string]string)
	for service, replicas := range wanted {
		running, err := live(ctx, c, service)
		if err != nil {
			return err
		}
		slots := make(map[uint64]bool)
		for _, task := range running {
			tasks[task.Meta.ID] = v1.TaskNode(task)
			slots[task.Desired.Slot] = true
		}
		if len(running) != replicas || len(slots) != replicas {
			return fmt.Errorf("%d tasks of %s run in %d slots, want %d", len(running), service, len(slots), replicas)
		}
	}
	return f.containersAre(tasks)
}

// membersAre tells where the node list and the members of etcd differ, or a node is not ready.
func membersAre(nodes []*v1.Node, members []*v1.Member) error {
	managers, voters := make(map[string]bool), make(map[string]bool)
	for _, n := range nodes {
		if v1.NodeLost(n) || n.Status == nil || n.Status.State != v1.NodeReady {
			return fmt.Errorf("node %s is not ready", n.Meta.ID)
		}
		if n.Spec.Role == v1.RoleManager {
			managers[n.Meta.ID] = true
		}
	}
	leaders := 0
	for _, m := range members {
		if m.Status == nil || !m.Status.Voter || !m.Status.Reachable {
			return fmt.Errorf("member %s is no voter, or not reachable: %+v", m.Meta.ID, m.Status)
		}
		voters[m.Meta.ID] = true
		if m.Status.Leader {
			leaders++
		}
	}
	if fmt.Sprint(managers) != fmt.Sprint(voters) || leaders != 1 {
		return fmt.Errorf("the managers are %v, the members %v, with %d leaders", managers, voters, leaders)
	}
	return nil
}

// containersAre tells where what runs on the hosts is not what is wanted: a task, which stands for its slot, has one container on its node.
func (f *faults) containersAre(tasks map[string]string) error {
	found := make(map[string]string)
	for _, h := range f.Hosts {
		containers, err := h.Containers()
		if err != nil {
			return err
		}
		for id := range containers {
			if where := found[id]; where != "" {
				return fmt.Errorf("task %s has a container on %s and on %s", id, where, h.Name)
			}
			if found[id] = h.Name; tasks[id] != f.nodes[h.Name] {
				return fmt.Errorf("on %s runs a container of task %s, which is wanted on node %q", h.Name, id, tasks[id])
			}
		}
	}
	for id, node := range tasks {
		if found[id] == "" {
			return fmt.Errorf("task %s has no container on node %s", id, node)
		}
	}
	return nil
}

// verify holds what the clients saw to what is there, at every manager.
func (f *faults) verify(l *load) error {
	managers, err := f.managerHosts()
	if err != nil {
		return err
	}
	for _, h := range managers {
		if err := f.readAll(l, h); err != nil {
			return err
		}
	}
	if err := l.history.check(f.folder); err != nil {
		return err
	}
	if f.outcomes == nil {
		f.outcomes = make(map[outcomeState]int)
	}
	for state, n := range l.history.counts() {
		f.outcomes[state] += n
	}
	f.created += len(l.created)
	return f.forget(l, managers[0])
}

// forget removes what the round wrote, so that the swarm does not grow from round to round.
func (f *faults) forget(l *load, h *lab.Host) error {
	ctx, cancel := context.WithTimeout(f.t.Context(), generous)
	defer cancel()
	all, err := client.List(ctx, f.clients[h.Name], v1.Configs, nil)
	if err != nil {
		return err
	}
	for _, config := range all {
		if err := client.Delete(ctx, f.clients[h.Name], v1.Configs, config.Meta.ID); err != nil && client.Status(err) != 404 {
			return err
		}
	}
	return nil
}

// keepLogs copies what the daemons logged to where it outlives the lab.
func (f *faults) keepLogs() {
	if err := os.MkdirAll(f.folder, 0o755); err != nil {
		f.t.Error(err)
	}
	for _, h := range f.Hosts {
		if err := os.WriteFile(filepath.Join(f.folder, h.Name+".log"), []byte(h.WholeLog()), 0o600); err != nil {
			f.t.Error(err)
		}
	}
}
