package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

var (
	benchNet  = flag.Bool("bench-net", false, "run TestNetBench, which measures and prints")
	netRounds = flag.Int("net-rounds", 15, "rounds of TestNetBench")
)

// measured is one path, with what was measured in each round: bytes a second with one stream and with eight, requests a second on sixteen
// connections, and seconds that a request takes alone.
type measured struct {
	name string
	road
	figures [4][]float64
}

var measures = [4]string{"1 stream", "8 streams", "requests/s", "latency"}

// slice is how long each figure of a path is measured at a time: short, so that paths which are compared are measured in the same conditions.
const slice = 250 * time.Millisecond

func (m *measured) measure(t *testing.T, figure int) {
	t.Helper()
	var v float64
	var err error
	switch figure {
	case 0:
		v, err = m.throughput(1, slice)
	case 1:
		v, err = m.throughput(8, slice)
	case 2:
		v, _, err = m.requests(16, slice)
	case 3:
		_, v, err = m.requests(1, slice)
	}
	if err != nil {
		t.Fatalf("%s: %s: %v", m.name, measures[figure], err)
	}
	m.figures[figure] = append(m.figures[figure], v)
}

// ratio is the median of what the rounds' ratios to another path are.
func (m *measured) ratio(to *measured, figure int) float64 {
	all := make([]float64, len(m.figures[figure]))
	for i, v := range m.figures[figure] {
		all[i] = v / to.figures[figure][i]
	}
	return middle(all)
}

// best is the ratio of the rounds that went best: a busy machine only ever takes away.
func (m *measured) best(to *measured, figure int) float64 {
	if figure == 3 {
		return slices.Min(m.figures[figure]) / slices.Min(to.figures[figure])
	}
	return slices.Max(m.figures[figure]) / slices.Max(to.figures[figure])
}

func middle(all []float64) float64 {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// TestNetBench prints how fast tasks on two hosts talk to each other: beside plain links between the hosts, and beside a network that is laid out as
// Docker does. The paths take turns, so that whatever else the machine does falls on all.
func TestNetBench(t *testing.T) {
	if !*benchNet {
		t.Skip("measures only: make bench-net")
	}
	s := form(t, 1, 1)
	first, second := s.Hosts[0], s.Hosts[1]
	const port, published = 9001, 9000
	s.network(first, "back")
	s.network(first, "sealed", "--opt", "encrypted")
	s.serve(first, "from", 1, "--network", "back", "--constraint", "node.hostname=="+first.Name)
	s.serve(first, "to", 1, "--network", "back", "--publish", fmt.Sprintf("%d:%d", published, published), "--constraint", "node.hostname=="+second.Name)
	s.serve(first, "sealedfrom", 1, "--network", "sealed", "--constraint", "node.hostname=="+first.Name)
	s.serve(first, "sealedto", 1, "--network", "sealed", "--constraint", "node.hostname=="+second.Name)
	from, to := s.tasksOf(first, "from", 1)[0], s.tasksOf(first, "to", 1)[0]
	sealedFrom, sealedTo := s.tasksOf(first, "sealedfrom", 1)[0], s.tasksOf(first, "sealedto", 1)[0]
	docker := layDocker(t, first, second, published+10)

	at := func(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	plainSink, ours, oursMesh := listenIn(t, second.Namespace, port), listenIn(t, to.Namespace, port), listenIn(t, to.Namespace, published)
	theirs, theirsMesh := listenIn(t, docker.to.Namespace, port), listenIn(t, docker.to.Namespace, published+10)
	plain := &measured{name: "plain links", road: road{first.Namespace, at(second.Addr.String(), port), plainSink}}
	rows := [][2]*measured{
		{{name: "task to task", road: road{from.Namespace, at(to.address(0), port), ours}},
			{name: "task to task, Docker's layout", road: road{docker.from.Namespace, at(docker.to.addr.String(), port), theirs}}},
		{{name: "virtual address", road: road{from.Namespace, at(s.vip(first, "to"), port), ours}},
			{name: "virtual address, Docker's layout", road: road{docker.from.Namespace, at(docker.vip.String(), port), theirs}}},
		{{name: "published port, task elsewhere", road: road{s.Client, at(first.Addr.String(), published), oursMesh}},
			{name: "published port, Docker's layout", road: road{s.Client, at(first.Addr.String(), published+10), theirsMesh}}},
	}
	sealed := &measured{name: "task to task, encrypted", road: road{sealedFrom.Namespace, at(sealedTo.address(0), port), listenIn(t, sealedTo.Namespace, port)}}
	paths := []*measured{plain, sealed}
	for _, row := range rows {
		paths = append(paths, row[0], row[1])
	}
	takeTurns(t, paths, *netRounds)
	s.bareForwarding(plain, rows[0][0])
	printNet(t, plain, sealed, rows)
}

// takeTurns measures every path in each round, and once before to warm up.
func takeTurns(t *testing.T, paths []*measured, rounds int) {
	t.Helper()
	for round := range rounds + 1 {
		for figure := range measures {
			for i := range paths {
				if round%2 == 1 {
					i = len(paths) - 1 - i
				}
				paths[i].measure(t, figure)
			}
		}
		if round == 0 {
			for _, m := range paths {
				m.figures = [4][]float64{}
			}
		}
	}
}

// bareForwarding measures what is left of the way from task to task without rules and without the tracking of connections: with the daemons frozen,
// which would mend it, their routers' tables are flushed.
func (s *swarm) bareForwarding(plain, task *measured) {
	s.t.Helper()
	for _, h := range s.Hosts {
		h.Pause()
		defer h.Resume()
		routers, err := filepath.Glob(filepath.Join(h.Root, "network", "router", "*"))
		if err != nil || len(routers) < 2 {
			s.t.Fatalf("routers of %s are %v, %v", h.Name, routers, err)
		}
		for _, path := range routers {
			if filepath.Base(path) == "gw" {
				continue
			}
			n, err := lab.Inside(path)
			if err != nil {
				s.t.Fatal(err)
			}
			defer n.Leave()
			if err := n.Do(func() error {
				c, err := nftables.New()
				if err != nil {
					return err
				}
				c.FlushRuleset()
				return c.Flush()
			}); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	link, bare := &measured{road: plain.road}, &measured{road: task.road}
	takeTurns(s.t, []*measured{link, bare}, *netRounds)
	s.t.Logf("task to task without tables and tracking: latency %.2f of plain links', requests/s %.2f", bare.ratio(link, 3), bare.ratio(link, 2))
}

// printNet prints the table, and one JSON object.
func printNet(t *testing.T, plain, sealed *measured, rows [][2]*measured) {
	var b strings.Builder
	fmt.Fprintf(&b, "\n| ratio to plain links | %s |\n|---|---|---|---|---|\n", strings.Join(measures[:], " | "))
	fmt.Fprintf(&b, "| plain links: | %.1f Gbit/s | %.1f Gbit/s | %.0f | %.1f µs |\n", 8*middle(plain.figures[0])/1e9, 8*middle(plain.figures[1])/1e9,
		middle(plain.figures[2]), 1e6*middle(plain.figures[3]))
	result := map[string]map[string]float64{}
	for _, row := range rows {
		for i, m := range row {
			fmt.Fprintf(&b, "| %s |", m.name)
			result[m.name] = map[string]float64{}
			for f, name := range measures {
				fmt.Fprintf(&b, " %.2f |", m.ratio(plain, f))
				result[m.name][name] = m.ratio(plain, f)
			}
			b.WriteString("\n")
			if i == 1 {
				fmt.Fprint(&b, "| … ours to Docker's |")
				for f, name := range measures {
					fmt.Fprintf(&b, " %.2f, best %.2f |", row[0].ratio(row[1], f), row[0].best(row[1], f))
					result[row[0].name]["docker "+name] = row[0].ratio(row[1], f)
				}
				b.WriteString("\n")
			}
		}
	}
	fmt.Fprintf(&b, "| %s |", sealed.name)
	result[sealed.name] = map[string]float64{}
	for f, name := range measures {
		fmt.Fprintf(&b, " %.2f |", sealed.ratio(plain, f))
		result[sealed.name][name] = sealed.ratio(plain, f)
	}
	b.WriteString("\n")
	t.Log(b.String())
	line, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(string(line))
}
