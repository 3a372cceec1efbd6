package endpoints

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/swarmd/swarmd/pkg/agent"
	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/dnsplugin"
	"github.com/swarmd/swarmd/pkg/netplugin"
	engine "github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/test/bench/host"
)

const (
	endpoints = 10_000
	self      = "node0000000000000000000001"
)

var underlay = netip.MustParseAddr("192.0.2.1")

// manager is a session that says what it is given.
type manager struct {
	first    v1.Assignment
	messages chan []byte
}

// Session implements agent.Manager. It decodes each message as a client of the API does.
func (m *manager) Session(ctx context.Context, _ func() v1.NodeDescription) iter.Seq2[v1.Assignment, error] {
	return func(yield func(v1.Assignment, error) bool) {
		if !yield(m.first, nil) {
			return
		}
		for {
			select {
			case text := <-m.messages:
				var a v1.Assignment
				if err := json.Unmarshal(text, &a); !yield(a, err) {
					return
				}
			case <-ctx.Done():
				yield(v1.Assignment{}, ctx.Err())
				return
			}
		}
	}
}

// Report implements agent.Manager.
func (*manager) Report(context.Context, v1.StatusReport) (v1.StatusResult, error) {
	return v1.StatusResult{}, nil
}

// Followed implements agent.Manager.
func (*manager) Followed(uint64) {}

// Stream implements agent.Manager.
func (*manager) Stream(context.Context, string, iter.Seq2[v1.LogRecord, error]) error { return nil }

// Image implements agent.Manager.
func (*manager) Image(context.Context, string, string, int) (v1.Tunnel, error) {
	return nil, errors.ErrUnsupported
}

// Tunnel implements agent.Manager.
func (*manager) Tunnel(context.Context, string) (v1.Tunnel, error) {
	return nil, errors.New("nobody has a tunnel here")
}

// layout is how the endpoints are spread.
type layout struct {
	name      string
	services  int
	published bool
	six       bool // published over IPv6 too
	// connections are so many of each IP version that the node tracks besides.
	connections int
}

// peersOf are the tasks of a hundred other nodes, on one network, which a task of this one is on as well.
func peersOf(l layout) *v1.Peers {
	p := &v1.Peers{Networks: []v1.PeerNetwork{{ID: "net", Name: "back", VNI: 4097, Subnets: []v1.SubnetSpec{{Subnet: "10.0.0.0/16", Gateway: "10.0.0.1"}}}}}
	at := func(n int) string { return fmt.Sprintf("10.0.%d.%d/16", n>>8, n&255) }
	for i := range 100 {
		p.Nodes = append(p.Nodes, v1.PeerNode{ID: fmt.Sprintf("node%021d", 2+i), Index: uint32(2 + i), Addr: fmt.Sprint("192.0.2.", 2+i), IPv6: l.six})
	}
	for i := range l.services {
		s := v1.PeerService{ID: fmt.Sprintf("service%018d", i), Name: fmt.Sprint("name", i),
			Networks: []v1.PeerServiceNetwork{{Network: "net", VIPs: []string{at(60000 + i)}}}}
		if l.published {
			s.Ports = []v1.PortConfig{{Target: 80, Published: uint16(10000 + i), Mode: v1.PublishIngress}}
		}
		p.Services = append(p.Services, s)
	}
	for i := range endpoints {
		s := &p.Services[i%l.services]
		p.Tasks = append(p.Tasks, v1.PeerTask{ID: fmt.Sprintf("task%021d", i), Service: s.ID, Name: fmt.Sprintf("%s.%d", s.Name, 1+i/l.services),
			Node: p.Nodes[i%100].ID, Gateway: fmt.Sprintf("100.64.%d.%d", 2+i%100, 2+i/100), Ready: true,
			Networks: []v1.NetworkAddress{{Network: "net", Addresses: []string{at(2 + i)}}}, Ports: append([]v1.PortConfig{}, s.Ports...)})
	}
	return p
}

// bench is a node that follows what it is told.
type bench struct {
	*testing.B
	manager    *manager
	programmed chan time.Duration
	revision   int64
}

func start(b *testing.B, l layout) *bench {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root: it makes network namespaces")
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	network, err := host.NewNetwork(underlay, l.connections, netplugin.Options{Dir: b.TempDir(), Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	const own = "own0000000000000000000001"
	desired := &v1.TaskDesired{Service: "client", ServiceName: "client", Slot: 1, Attempt: 1, Revision: "r", State: v1.TaskRunning,
		Placement: &v1.TaskPlacement{Node: self}, Networks: []v1.NetworkAddress{{Network: "net", Addresses: []string{"10.0.200.1/16"}}}}
	revision := &v1.ServiceRevision{Meta: v1.Meta{ID: "r"}, Spec: &v1.ServiceRevisionSpec{Service: "client", Number: 1}}
	revision.Spec.Task.Container.Image = "hello:1"
	x := &bench{B: b, programmed: make(chan time.Duration, 16), revision: 1, manager: &manager{messages: make(chan []byte), first: v1.Assignment{
		Revision: 1, Complete: true, Node: &v1.Node{Meta: v1.Meta{ID: self}, Spec: &v1.NodeSpec{Index: 1}}, Peers: peersOf(l),
		Tasks: []*v1.Task{{Meta: v1.Meta{ID: own}, Desired: desired}}, Services: []*v1.ServiceRevision{revision}}}}
	if l.six {
		x.manager.first.GatewayPrefix6 = v1.GatewayPrefix6("bench").String()
	}
	a := agent.New(agent.Options{NodeID: self, Dir: dir, Runtime: engine.NewFake(engine.FakeOptions{}), Network: network, Underlay: underlay,
		Names: dnsplugin.New(dnsplugin.Options{Log: quiet}), Manager: x.manager, Log: quiet, ResolvConf: "/nonexistent",
		Applied: func(took time.Duration) { x.programmed <- took }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := network.Teardown(context.Background()); err != nil {
			b.Error(err)
		}
		_ = network.Close()
	})
	<-x.programmed
	for _, task := range []bool{true, false} { // until the own task is linked, nobody else on the network is looked at
		x.change(task)
	}
	return x
}

// change takes a task away, or brings it back, and returns once the network and the names follow.
func (x *bench) change(there bool) {
	x.revision++
	changed := x.manager.first.Peers.Tasks[endpoints/2]
	p := &v1.Peers{Gone: []string{changed.ID}}
	if there {
		p = &v1.Peers{Tasks: []v1.PeerTask{changed}}
	}
	text, err := json.Marshal(v1.Assignment{Revision: x.revision, Peers: p})
	if err != nil {
		x.Fatal(err)
	}
	x.manager.messages <- text
	<-x.programmed
}

// BenchmarkOneEndpoint changes one of ten thousand: in a row, and one each second, as on a swarm where little happens; then the state on disk
// is written after each.
func BenchmarkOneEndpoint(b *testing.B) {
	for _, l := range []layout{{name: "1000services", services: 1000}, {name: "1service", services: 1}, {name: "1000ports", services: 1000, published: true},
		{name: "1000ports6", services: 1000, published: true, six: true},
		{name: "1000ports6and10000connections", services: 1000, published: true, six: true, connections: 10_000}} {
		for _, pause := range []time.Duration{0, 1200 * time.Millisecond} {
			b.Run(fmt.Sprintf("%s/pause=%s", l.name, pause), func(b *testing.B) {
				x := start(b, l)
				time.Sleep(3 * time.Second) // the first state is on disk
				runtime.GC()
				before, n := host.ProcessorTime(), 0
				for b.Loop() {
					x.change(n%2 == 1)
					n++
					time.Sleep(pause)
				}
				b.ReportMetric(float64(host.ProcessorTime()-before)/float64(n)/1e6, "cpu-ms/op")
			})
		}
	}
}
