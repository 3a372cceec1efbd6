package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

const (
	// soon is how long after everything runs again the last pair should take to talk, and kernels to hold what is wanted; how often it took longer is
	// told: what only reading all back mends, now and then, does.
	soon = 2 * time.Second
	// madeAnew is after how many rounds each the hosts' networks are made from nothing, to compare them.
	madeAnew = 20
	// atLast is how long it may take on a machine that does much else. What only reading all back would mend takes longer.
	atLast = 20 * time.Second
)

// chaos is a swarm with networks, under faults.
type chaos struct {
	*swarm
	random   *rand.Rand
	services map[string]*chaosService
	vips     map[string]string // services, by network and virtual address
	// A round mends hosts, makes again what it removed, and then changes what is there.
	mending
	making, changing []func() error
	late             int // rounds in which a pair, or a kernel, took longer than soon
	slowest          time.Duration
	// addresses are those that tasks had when they were last looked at.
	addresses atomic.Pointer[[]string]
}

// chaosService is a service as it is wanted.
type chaosService struct {
	networks  []string
	dnsrr     bool
	replicas  int
	published int // 0 is no port
}

// chaosNetworks are networks by what they are made with. Two have the same subnet, one has hardly any addresses, and one is encrypted and has
// both versions of IP.
var chaosNetworks = map[string][]string{
	"red": {"--subnet", "10.20.0.0/24"}, "blue": {"--subnet", "10.20.0.0/24"}, "tiny": {"--subnet", "10.30.0.0/29"},
	"safe": {"--subnet", "10.40.0.0/24", "--ipv6", "--subnet", "fd40::/64", "--opt", "encrypted"},
}

// TestNetworkChaos does random things to hosts, daemons, links, tables, networks and services while tasks talk all the time. After each
// round every pair that should talk does, and none that should not, soon after everything runs again as "service ps" has it; and what the
// kernels hold of networks is what the API says, on every host.
//
// The seed and the round decide what is done: make chaos SEED=… FIRST=… ROUNDS=1 does a round again.
func TestNetworkChaos(t *testing.T) {
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64N(1_000_000)
	}
	t.Logf("seed %d, %d rounds", seed, *faultRounds)
	c := &chaos{swarm: form(t, 1, 2), services: map[string]*chaosService{
		"web":   {networks: []string{"red"}, replicas: 3, published: 8080},
		"db":    {networks: []string{"red"}, replicas: 2, dnsrr: true},
		"other": {networks: []string{"blue"}, replicas: 3},
		"both":  {networks: []string{"red", "tiny"}, replicas: 2},
		"vault": {networks: []string{"safe"}, replicas: 2},
	}}
	for name := range chaosNetworks {
		c.makeNetwork(name)
	}
	for name := range c.services {
		c.make(name)
	}
	stop := c.keepTalking()
	defer stop()
	for i := *faultFirst; i < *faultFirst+*faultRounds; i++ {
		c.random = rand.New(rand.NewPCG(seed, uint64(i)))
		c.round(i)
		if t.Failed() {
			t.Fatalf("round %d of seed %d", i, seed)
		}
		if i%madeAnew == madeAnew-1 {
			c.allSameWhenMade()
		}
	}
	c.allSameWhenMade()
	stop()
	t.Logf("%d rounds: the last pair talked %s after everything ran, or the last kernel held what is wanted so long after all was tried, at the latest; in %d rounds later than %s", *faultRounds, c.slowest.Round(time.Millisecond), c.late, soon)
	for name := range c.services {
		c.Hosts[0].Must("service", "rm", name)
	}
	for name := range chaosNetworks {
		c.Eventually(generous, "network "+name+" can go", func() error { return c.Hosts[0].Ctl("network", "rm", name).Err })
	}
	clear(c.services)
	c.Eventually(generous, "nothing is left of networks on any host", func() error { return c.asWanted(nil) })
	c.allSameWhenMade()
}

// allSameWhenMade does sameWhenMade with each host, after which everybody talks.
func (c *chaos) allSameWhenMade() {
	for _, h := range c.Hosts {
		c.sameWhenMade(h)
	}
	var tasks []chaosTask
	c.Eventually(generous, "everything runs once all was made anew", func() (err error) {
		tasks, err = c.running()
		return err
	})
	defer func() {
		for _, t := range tasks {
			t.inside.Leave()
		}
	}()
	if _, err := c.matrix(tasks); err != nil {
		c.t.Fatalf("everybody talks once all was made anew: %v", err)
	}
}

func (c *chaos) makeNetwork(name string) {
	c.network(c.Hosts[0], name, chaosNetworks[name]...)
}

func (c *chaos) make(name string) {
	s := c.services[name]
	args := []string{"--replicas-max-per-node", "1", "--restart-delay", "100ms", "--stop-grace-period", "1s"}
	for _, n := range s.networks {
		args = append(args, "--network", n)
	}
	if s.dnsrr {
		args = append(args, "--endpoint-mode", "dnsrr")
	}
	if s.published > 0 {
		args = append(args, "--publish", fmt.Sprintf("%d:8080", s.published))
	}
	// A manager's daemon that was just started again may not answer yet; one that answered knows the name.
	c.Eventually(generous, "service "+name+" is made", func() error {
		r := c.Hosts[0].Ctl(serving(name, s.replicas, args...)...)
		if r.Err != nil && !strings.Contains(r.Stderr, "Cannot connect") {
			c.t.Fatalf("%v\nswarmd:\n%s", r.Err, c.Hosts[0].Log())
		}
		return r.Err
	})
}

// round does a few things, mends what has to be mended, and sees that all is well.
func (c *chaos) round(number int) {
	var did []string
	kinds := c.random.Perm(len(c.faults()))
	for _, kind := range kinds[:1+c.random.IntN(2)] {
		one := c.faults()[kind]
		if one.asks && !c.Hosts[0].Alive() {
			did = append(did, "nothing, as another fault keeps the manager from it")
			continue
		}
		what, err := one.do()
		if errors.Is(err, errNobody) {
			what, err = "nothing: there was nobody to "+what, nil
		}
		did = append(did, what)
		if err != nil {
			c.t.Errorf("%s: %v", what, err)
			return
		}
		time.Sleep(time.Duration(c.random.IntN(1000)) * time.Millisecond)
	}
	err := c.mend()
	for _, again := range slices.Concat(c.making, c.changing) {
		err = errors.Join(err, again())
	}
	if c.making, c.changing = nil, nil; err != nil {
		c.t.Errorf("mend: %v", err)
		return
	}
	what := strings.Join(did, ", ")
	mended := time.Now()
	c.Eventually(generous, "the nodes are ready after: "+what, func() error { return readyNodes(c.Hosts[0], "manager1", "worker1", "worker2") })
	var tasks []chaosTask
	c.Eventually(generous, "everything runs after: "+what, func() (err error) {
		tasks, err = c.running()
		return err
	})
	runs := time.Now()
	talks, err := c.matrix(tasks)
	if errors.Is(err, errReplaced) { // a node may be missed just then, which was back too late: everything runs once more, and no oftener
		for _, t := range tasks {
			t.inside.Leave()
		}
		c.Eventually(generous, "everything runs again after: "+what, func() (err error) {
			tasks, err = c.running()
			return err
		})
		runs = time.Now()
		c.t.Logf("tasks were replaced while they were looked at, after: %s", what)
		talks, err = c.matrix(tasks)
	}
	if err != nil {
		c.t.Fatalf("everybody talks after: %s: %v", what, err)
	}
	if err := c.strangers(tasks); err != nil {
		c.t.Errorf("after %s: %v", what, err)
	}
	began := time.Now()
	c.Eventually(atLast, "the kernels hold what is wanted after: "+what, func() error { return c.asWanted(tasks) })
	held := time.Since(began)
	for _, t := range tasks {
		t.inside.Leave()
	}
	c.slowest = max(c.slowest, talks, held)
	if max(talks, held) > soon {
		c.late++
	}
	c.t.Logf("round %d: %s; ran %s after it was mended, everybody talked %s later, and %s after all was tried the kernels held what is wanted", number, what,
		runs.Sub(mended).Round(10*time.Millisecond), talks.Round(10*time.Millisecond), held.Round(10*time.Millisecond))
}

// errNobody is of a fault that found nothing to hurt.
var errNobody = errors.New("there is nobody to do it to")

// fault is one random thing; one that asks the manager is left out where another fault keeps it from answering.
type fault struct {
	asks bool
	do   func() (what string, err error)
}

// faults are all kinds, each on a random host.
func (c *chaos) faults() []fault {
	first := c.Hosts[0]
	h := c.Hosts[c.random.IntN(len(c.Hosts))]
	worker := c.Hosts[1+c.random.IntN(2)]
	on := func(what string, do func() error) fault {
		return fault{do: func() (string, error) { return what, do() }}
	}
	asking := func(what string, do func() error) fault {
		return fault{asks: true, do: func() (string, error) { return what, do() }}
	}
	return []fault{
		on("cut off "+worker.Name, func() error { return c.do(c.Cut(worker), c.Heal) }),
		on("kill swarmd of "+h.Name, func() error { return c.down(h, sure(h.Kill)) }),
		on("restart swarmd of "+h.Name, func() error { return c.down(h, sure(h.Stop)) }),
		on("cut the power of "+worker.Name, func() error { return c.down(worker, worker.PowerOff) }),
		on("flush all tables of "+h.Name, func() error { return c.hurtHost(h, flushRuleset) }),
		on("flush the tables of a router on "+h.Name, func() error { return c.hurtOneOf(h, "router", flushRuleset) }),
		on("delete a route of a router on "+h.Name, func() error { return c.hurtOneOf(h, "router", c.deleteRoute) }),
		on("delete a link of a router on "+h.Name, func() error { return c.hurtOneOf(h, "router", c.deleteLink) }),
		on("delete the neighbours of a router on "+h.Name, func() error { return c.hurtOneOf(h, "router", deleteNeighbours) }),
		on("delete a route of a task on "+h.Name, func() error { return c.hurtOneOf(h, "netns", c.deleteRoute) }),
		on("delete a link of a task on "+h.Name, func() error { return c.hurtOneOf(h, "netns", c.deleteLink) }),
		on("kill what encrypts on "+h.Name, func() error { return c.killWires(h) }),
		asking("have more tasks than addresses", func() error { return c.exhaust(first) }),
		asking("make a network anew with the same subnet", func() error { return c.replaceNetwork(first) }),
		asking("give a service another's name", func() error { return c.swap(first) }),
		{asks: true, do: func() (string, error) { return c.scaleOrMove(first) }},
	}
}

func (c *chaos) hurtHost(h *lab.Host, how func() error) error {
	if h.Namespace == nil {
		return errNobody
	}
	return h.Do(how)
}

// hurtOneOf does something in a random mounted namespace of a host: a router's ("router") or a task's ("netns").
func (c *chaos) hurtOneOf(h *lab.Host, kind string, how func() error) error {
	spaces := spacesOf(h, kind)
	if h.Namespace == nil || len(spaces) == 0 {
		return errNobody
	}
	n, err := lab.Inside(spaces[c.random.IntN(len(spaces))])
	if errors.Is(err, os.ErrNotExist) {
		return errNobody // it went meanwhile
	}
	if err != nil {
		return err
	}
	defer n.Leave()
	return n.Do(how)
}

// gateway is the way out that a host's networks share, and where published ports come in; it is among its routers.
const gateway = "gw"

// routersOf are the mounted namespaces of the routers on a host.
func routersOf(h *lab.Host) []string { return spacesOf(h, "router") }

func spacesOf(h *lab.Host, kind string) []string {
	all, _ := filepath.Glob(filepath.Join(h.Root, "network", kind, "*"))
	return all
}

func flushRuleset() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.FlushRuleset()
	return conn.Flush()
}

func (c *chaos) deleteRoute() error {
	routes, err := routesIn(unix.RT_TABLE_MAIN)
	if err != nil || len(routes) == 0 {
		return cmp.Or(err, errNobody)
	}
	return ignoreGone(netlink.RouteDel(&routes[c.random.IntN(len(routes))]))
}

func (c *chaos) deleteLink() error {
	links, err := whole(netlink.LinkList)
	links = slices.DeleteFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == "lo" })
	if err != nil || len(links) == 0 {
		return cmp.Or(err, errNobody)
	}
	return ignoreGone(netlink.LinkDel(links[c.random.IntN(len(links))]))
}

func deleteNeighbours() error {
	all, err := whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, netlink.FAMILY_ALL) })
	for i := range all {
		err = errors.Join(err, ignoreGone(netlink.NeighDel(&all[i])))
	}
	return err
}

// ignoreGone is for what went between a look and the deed.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// killWires kills the processes that encrypt on a host.
func (c *chaos) killWires(h *lab.Host) error {
	wires := wiresOn(c.t, h)
	if len(wires) == 0 {
		return errNobody
	}
	for _, pid := range wires {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// exhaust asks for more tasks than the tiny network has addresses: the user is told so, and what has one runs.
func (c *chaos) exhaust(h *lab.Host) error {
	r := h.Ctl("service", "create", "--quiet", "--detach", "--name", "many", "--replicas", "9", "--network", "tiny", "--endpoint-mode", "dnsrr",
		"--restart-delay", "100ms", "hello:1")
	if r.Err != nil {
		return errNobody // another fault keeps the manager from it
	}
	told := lab.Await(generous, func() error {
		if out := h.Ctl("service", "ps", "--no-trunc", "many"); !strings.Contains(out.Stdout, "are in use") {
			return fmt.Errorf("nobody is told that addresses are short: %v\n%s", out.Err, out.Stdout)
		}
		return nil
	})
	return errors.Join(told, lab.Await(generous, func() error { return h.Ctl("service", "rm", "many").Err }))
}

// replaceNetwork removes a network with its service, and makes both again.
func (c *chaos) replaceNetwork(h *lab.Host) error {
	if err := lab.Await(generous, func() error { return h.Ctl("service", "rm", "other").Err }); err != nil {
		return err
	}
	c.making = append(c.making, func() error {
		// Not before all hosts are back: on one that is away a task may go on, with an address of the network.
		if err := lab.Await(generous, func() error { return h.Ctl("network", "rm", "blue").Err }); err != nil {
			return err
		}
		c.makeNetwork("blue")
		c.make("other")
		return nil
	})
	return nil
}

// swap removes two services, and makes them again with each other's names.
func (c *chaos) swap(h *lab.Host) error {
	for _, name := range []string{"db", "both"} {
		if err := lab.Await(generous, func() error { return h.Ctl("service", "rm", name).Err }); err != nil {
			return err
		}
	}
	c.services["db"], c.services["both"] = c.services["both"], c.services["db"]
	c.making = append(c.making, func() error {
		c.make("db")
		c.make("both")
		return nil
	})
	return nil
}

// scaleOrMove changes the number of a service's tasks, or moves its published port.
func (c *chaos) scaleOrMove(h *lab.Host) (string, error) {
	if c.random.IntN(2) == 0 {
		s := c.services["web"]
		s.replicas = 5 - s.replicas
		what := fmt.Sprintf("scale web to %d", s.replicas)
		return what, lab.Await(generous, func() error {
			return h.Ctl("service", "scale", "--detach", fmt.Sprintf("web=%d", s.replicas)).Err
		})
	}
	from, to := "web", "other"
	if c.services[to].published > 0 {
		from, to = to, from
	}
	c.changing = append(c.changing, func() error {
		c.services[from].published, c.services[to].published = 0, 8080
		return lab.Await(generous, func() error {
			return errors.Join(h.Ctl("service", "update", "--quiet", "--publish-rm", "8080", from).Err,
				h.Ctl("service", "update", "--quiet", "--publish-add", "8080:8080", to).Err)
		})
	})
	return "move the published port to " + to, nil
}
