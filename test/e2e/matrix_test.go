package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
	"github.com/swarmd/swarmd/test/e2e/lab"
)

// chaosTask is a task that runs, as the API has it, and its container's network.
type chaosTask struct {
	inside
	service string
	// at are its addresses, by the names of networks, and at6 those of IPv6.
	at, at6 map[string]string
}

// running are the tasks of all services, if they run just as they are wanted and their containers are there.
func (c *chaos) running() ([]chaosTask, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), answerWithin)
	defer cancel()
	api := c.client(c.Hosts[0])
	networks, err := client.List(ctx, api, v1.Networks, nil)
	if err != nil {
		return nil, err
	}
	names := make(map[string]string)
	for _, n := range networks {
		names[n.Meta.ID] = n.Meta.Name
	}
	pids := make(map[string]map[string]int)
	for _, h := range c.Hosts {
		if pids[h.Name], err = h.Containers(); err != nil {
			return nil, err
		}
	}
	c.vips = make(map[string]string)
	var all []chaosTask
	leave := func(err error) ([]chaosTask, error) {
		for _, t := range all {
			t.inside.Leave()
		}
		return nil, err
	}
	for name, s := range c.services {
		tasks, err := live(ctx, api, name)
		if err != nil {
			return leave(err)
		}
		if len(tasks) != s.replicas {
			return leave(fmt.Errorf("%d tasks of %s run, want %d: %s", len(tasks), name, s.replicas, c.Hosts[0].Ctl("service", "ps", "--no-trunc", name).Stdout))
		}
		o, err := client.Get(ctx, api, v1.Services, name)
		if err != nil {
			return leave(err)
		}
		for _, v := range vipsOf(o) {
			for _, a := range v.Addresses {
				c.vips[names[v.Network]+" "+a] = name
			}
		}
		for _, task := range tasks {
			if task.Desired.Revision != v1.RevisionID(o) {
				return leave(fmt.Errorf("%s is not updated yet", v1.TaskName(task.Desired)))
			}
			t := chaosTask{service: name, at: make(map[string]string), at6: make(map[string]string)}
			for _, a := range task.Desired.Networks {
				t.at[names[a.Network]], _, _ = strings.Cut(a.Addresses[0], "/")
				if len(a.Addresses) > 1 {
					t.at6[names[a.Network]], _, _ = strings.Cut(a.Addresses[1], "/")
				}
			}
			i := slices.IndexFunc(c.Hosts, func(h *lab.Host) bool { return c.nodes[h.Name] == v1.TaskNode(task) })
			pid := pids[c.Hosts[i].Name][task.Meta.ID]
			if pid == 0 {
				return leave(fmt.Errorf("%s has no container", v1.TaskName(task.Desired)))
			}
			n, err := lab.InsideOf(pid)
			if err != nil {
				return leave(err)
			}
			t.inside = inside{Namespace: n, name: v1.TaskName(task.Desired), host: c.Hosts[i], task: task}
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b chaosTask) int { return cmp.Compare(a.name, b.name) })
	var addresses []string
	for _, t := range all {
		addresses = slices.AppendSeq(slices.AppendSeq(addresses, maps.Values(t.at)), maps.Values(t.at6))
	}
	c.addresses.Store(&addresses)
	return all, nil
}

// vipsOf are a service's virtual addresses, without the lengths of the subnets, on the networks where it has any.
func vipsOf(o *v1.Service) (all []v1.NetworkAddress) {
	if o.Desired == nil {
		return nil
	}
	for _, v := range o.Desired.VIPs {
		vip := v1.NetworkAddress{Network: v.Network}
		for _, a := range v.Addresses {
			a, _, _ = strings.Cut(a, "/")
			vip.Addresses = append(vip.Addresses, a)
		}
		all = append(all, vip)
	}
	return all
}

// matrix has every task try every other and all services by address, and every service by name, and a client every published port on every host, until each
// that should gets through, to where it should, and nobody else does. Last is when the last one did that should. It ends with errReplaced where
// other tasks run by then.
func (c *chaos) matrix(tasks []chaosTask) (last time.Duration, err error) {
	var open, closed []func() error
	for _, from := range tasks {
		for _, to := range tasks {
			for _, addr := range slices.Concat(slices.Collect(maps.Values(to.at)), slices.Collect(maps.Values(to.at6))) {
				if want := c.owner(from, addr, tasks); want != "" {
					open = append(open, func() error { return talks(from, to, addr, want) })
				} else {
					closed = append(closed, func() error { return silent(from, addr, to.name) })
				}
			}
		}
		for where, service := range c.vips {
			if _, addr, _ := strings.Cut(where, " "); c.owner(from, addr, tasks) == "" {
				closed = append(closed, func() error { return silent(from, addr, service) })
			}
		}
		for name, s := range c.services {
			if shared := from.shares(s); len(shared) > 0 {
				open = append(open, func() error { return from.asks(name, s, shared, tasks) })
			}
		}
	}
	for name, s := range c.services {
		if s.published > 0 {
			for _, h := range c.Hosts {
				open = append(open, func() error { return c.fromOutside(h, name, s.published) })
			}
		}
	}
	ctx, cancel := context.WithCancelCause(c.t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() {
		for ctx.Err() == nil && c.sameRun(ctx, tasks) {
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
		cancel(errReplaced)
	})
	if last, err = c.untilAll(ctx, open); err == nil {
		_, err = c.untilAll(ctx, closed)
	}
	if err != nil {
		return last, err
	}
	again, err := c.untilAll(ctx, open) // they all still do, at one time
	return max(last, again), err
}

// errReplaced says that other tasks run than those that were looked at.
var errReplaced = errors.New("tasks were replaced meanwhile")

// sameRun tells whether these are the tasks that are to run, as far as a manager answers. It ends with ctx.
func (c *chaos) sameRun(ctx context.Context, tasks []chaosTask) bool {
	api, were, are := c.client(c.Hosts[0]), make(map[string]bool), make(map[string]bool)
	for _, t := range tasks {
		were[t.task.Meta.ID] = true
	}
	for name := range c.services {
		all, err := live(ctx, api, name)
		if err != nil {
			return ctx.Err() == nil
		}
		for _, t := range all {
			are[t.Meta.ID] = true
		}
	}
	return maps.Equal(were, are)
}

// untilAll tries each until it is well, for atLast at most, or until ctx ends. Last is when the last one was. What the hosts have once one is not well
// in time is recorded.
func (c *chaos) untilAll(ctx context.Context, checks []func() error) (last time.Duration, err error) {
	began := time.Now()
	var mu sync.Mutex
	var recorded sync.Once
	var group errgroup.Group
	group.SetLimit(32)
	for _, check := range checks {
		group.Go(func() error {
			var before error
			for {
				err := check()
				took := time.Since(began)
				if err != nil && ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if errors.Is(err, errLeak) {
					return err
				}
				if err != nil && took > soon {
					recorded.Do(func() { c.record(err) })
				}
				if err != nil && took < atLast {
					before = err
					time.Sleep(20 * time.Millisecond)
					continue
				}
				mu.Lock()
				defer mu.Unlock()
				if last = max(last, took); err == nil && took > soon {
					c.t.Logf("a check was well after %s; what it said before (nothing where it took one try): %v", took.Round(10*time.Millisecond), before)
				}
				return err
			}
		})
	}
	err = group.Wait()
	return last, err
}

// record keeps what the hosts have where it outlives the lab, for somebody to find out why a check is not well.
func (c *chaos) record(why error) {
	dir := filepath.Join(c.Bin, "chaos", time.Now().Format("20060102-150405"))
	if err := errors.Join(c.Record(dir), os.WriteFile(filepath.Join(dir, "why"), []byte(why.Error()+"\n"), 0o600)); err != nil {
		c.t.Logf("record: %v", err)
	}
	c.t.Logf("what the hosts have is in %s: %v", dir, why)
}

// strangers has every task look up the services that it shares no network with: their names are not known to it. That takes as long as
// the machine's own name server, which is asked then.
func (c *chaos) strangers(tasks []chaosTask) error {
	var group errgroup.Group
	for _, from := range tasks {
		for name, s := range c.services {
			if len(from.shares(s)) > 0 {
				continue
			}
			group.Go(func() error {
				if found, err := from.lookup(name); err == nil {
					return fmt.Errorf("%s finds %s at %v, a name of a network that it is not on", from.name, name, found)
				}
				return nil
			})
		}
	}
	return group.Wait()
}

// shares are the networks that a task and a service are both on.
func (t chaosTask) shares(s *chaosService) []string {
	return slices.DeleteFunc(slices.Clone(s.networks), func(n string) bool { return t.at[n] == "" })
}

// owner is who has an address, on a network that the asker is on: a task, or a service with a dot behind; "" for nobody.
func (c *chaos) owner(from chaosTask, addr string, tasks []chaosTask) (name string) {
	for network := range from.at {
		if service := c.vips[network+" "+addr]; service != "" {
			name = service + "."
		}
		for _, other := range tasks {
			if other.at[network] == addr || other.at6[network] == addr {
				name = other.name
			}
		}
	}
	return name
}

// talks tries an address that a task has, or where another network of the asker has it, who is said to be there.
func talks(from, to chaosTask, addr, want string) error {
	by, err := greet(from.Namespace, net.JoinHostPort(addr, "8080"), true)
	if err != nil || !strings.HasPrefix(by, want) {
		return fmt.Errorf("%s on %s asks %s at %s (%s is on %s): answered by %q, %v", from.name, from.host.Name, want, addr, to.name, to.host.Name, by, err)
	}
	return nil
}

// silent tries an address that a task or a service has on networks that the asker is not on. A task of its own networks that had the address before may be
// there for a moment; nobody else, at any time.
func silent(from chaosTask, addr, whose string) error {
	by, err := greet(from.Namespace, net.JoinHostPort(addr, "8080"), false)
	if err != nil {
		return nil
	}
	return errors.Join(apart(from.name, by),
		fmt.Errorf("%s on %s is answered by %s at %s, an address of %s on a network that it is not on", from.name, from.host.Name, by, addr, whose))
}

// errLeak is that two talk that never should.
var errLeak = errors.New("a leak between networks")

// apart is errLeak where two tasks are on networks that have nobody in common, whatever services are called in this round.
func apart(one, other string) error {
	if realm(one) == realm(other) {
		return nil
	}
	return fmt.Errorf("%w: %s is answered by %s", errLeak, one, other)
}

// realm are the networks of a task: those of web, db, both and many reach each other by tasks that are on both.
func realm(task string) string {
	switch service, _, _ := strings.Cut(task, "."); service {
	case "other", "vault":
		return service
	}
	return "red and tiny"
}

// asks tries a service by its name.
func (t chaosTask) asks(name string, s *chaosService, shared []string, tasks []chaosTask) error {
	// A question that is lost with a daemon that ends is asked again here, long before a resolver would.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	found, err := t.Resolver("127.0.0.11:53").LookupHost(ctx, name+".")
	if err != nil {
		return fmt.Errorf("%s on %s looks %s up: %w", t.name, t.host.Name, name, err)
	}
	slices.Sort(found)
	if s.dnsrr {
		var want []string
		for _, other := range tasks {
			if other.service == name {
				for _, n := range shared {
					want = append(want, other.at[n])
				}
			}
		}
		if slices.Sort(want); !slices.Equal(found, want) {
			return fmt.Errorf("%s on %s finds %s at %v, want %v", t.name, t.host.Name, name, found, want)
		}
	}
	for _, addr := range found {
		if by, err := greet(t.Namespace, net.JoinHostPort(addr, "8080"), true); err != nil || !strings.HasPrefix(by, name+".") {
			return fmt.Errorf("%s on %s asks %s at %s: answered by %q, %v", t.name, t.host.Name, name, addr, by, err)
		}
	}
	return nil
}

// fromOutside asks a host's published port as a client that is no part of the swarm.
func (c *chaos) fromOutside(h *lab.Host, service string, port int) error {
	body, err := c.Client.Get(fmt.Sprintf("http://%s:%d/", h.Addr, port))
	if by, saw := greeted(body); err != nil || !strings.HasPrefix(by, service+".") || saw != c.ClientAddr.String() {
		return fmt.Errorf("a client asks port %d of %s: %q answers and sees %q, %v", port, h.Name, by, saw, err)
	}
	return nil
}

// greet asks who is at an address, from within a namespace. Where nobody is expected, it does not wait for long.
func greet(n *lab.Namespace, to string, expected bool) (by string, err error) {
	within := 300 * time.Millisecond
	if expected {
		within = 3 * time.Second
	}
	var conn net.Conn
	err = n.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", to, within)
		return err
	})
	if err != nil {
		return "", err
	}
	by, _ = greeted(readGreeting(conn))
	if by == "" {
		err = errors.New("no greeting")
	}
	return by, err
}

// keepTalking has everybody talk all the time, so that connections are there that faults break. Whatever else comes of it, who should not is never
// answered.
func (c *chaos) keepTalking() (stop func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var talking sync.WaitGroup
	hosts := slices.Clone(c.Hosts)
	names := []string{"web", "db", "other", "both", "vault"}
	for range 2 {
		talking.Go(func() {
			for ctx.Err() == nil {
				c.chat(ctx, hosts[rand.N(len(hosts))], names[rand.N(len(names))])
			}
		})
	}
	return func() {
		cancel()
		talking.Wait()
	}
}

// chatFrom has a task ask a service, and an address that some task has or had.
func (c *chaos) chatFrom(ctx context.Context, n *lab.Namespace, self, service string) {
	ctx, done := context.WithTimeout(ctx, time.Second)
	defer done()
	var addresses []string
	if known := c.addresses.Load(); known != nil && len(*known) > 0 {
		addresses = append(addresses, (*known)[rand.N(len(*known))])
	}
	if found, err := n.Resolver("127.0.0.11:53").LookupHost(ctx, service+"."); err == nil {
		addresses = append(addresses, found[0])
		if realm(service) != realm(self) {
			c.t.Errorf("%s finds %s at %v: %v", self, service, found, errLeak)
		}
	}
	for _, a := range addresses {
		if by, err := greet(n, net.JoinHostPort(a, "8080"), false); err == nil {
			if err := apart(self, by); err != nil {
				c.t.Errorf("at %s: %v", a, err)
			}
		}
	}
}

// chat has some container of a host ask a service, and a client a published port.
func (c *chaos) chat(ctx context.Context, h *lab.Host, service string) {
	pids, err := h.Containers()
	if err != nil {
		return
	}
	for _, pid := range pids {
		n, err := lab.InsideOf(pid)
		if err != nil {
			continue
		}
		self, err := greet(n, "127.0.0.1:8080", false)
		if err == nil {
			c.chatFrom(ctx, n, self, service)
		}
		n.Leave()
	}
	if r, err := (&http.Client{Timeout: time.Second, Transport: &http.Transport{DialContext: c.Client.DialContext, DisableKeepAlives: true}}).Get(
		fmt.Sprintf("http://%s:8080/", h.Addr)); err == nil {
		r.Body.Close()
	}
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Millisecond):
	}
}
