package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// asking looks a name up in a task time and again, a hundred times a second, each with a time limit that is shorter than what a program takes to
// ask a second time. The function that it returns tells how many were asked, the slowest, and what failed.
func asking(t *testing.T, from inside, name string) func() (asked int, slowest time.Duration, failed []error) {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var failed []error
	var under sync.WaitGroup
	stop := make(chan struct{})
	under.Go(func() {
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			under.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
				defer cancel()
				began := time.Now()
				_, err := from.resolver().LookupHost(ctx, name+".")
				mu.Lock()
				defer mu.Unlock()
				if took = append(took, time.Since(began)); err != nil {
					failed = append(failed, err)
				}
			})
		}
	})
	return func() (int, time.Duration, []error) {
		close(stop)
		under.Wait()
		return len(took), slices.Max(append(took, 0)), failed
	}
}

// TestNamesOverRestarts: where the init system keeps sockets, as systemd does with the unit in deploy/, who asks for a name while a daemon is
// stopped in order and started, or is dead and started, waits, and is answered: by UDP and by TCP. When the node leaves, nothing is kept.
func TestNamesOverRestarts(t *testing.T) {
	s := form(t, 1, 1)
	first, worker := s.Hosts[0], s.Hosts[1]
	first.Must("swarm", "update", "--dispatcher-heartbeat", "20s") // a daemon that is killed may take a while to be back
	s.network(first, "back")
	s.serve(first, "web", 1, "--network", "back", "--constraint", "node.role==worker")
	from := s.tasksOf(first, "web", 1)[0]
	worker.KeepSockets()
	worker.Stop()
	worker.Start() // from now on
	keeps := func(want ...string) {
		t.Helper()
		s.Eventually(generous, "the init system has been told", func() error {
			if got := worker.Kept(); !slices.Equal(got, want) {
				return fmt.Errorf("it keeps %v, want %v", got, want)
			}
			return nil
		})
	}
	keeps("names-tcp", "names-udp")
	over := func(how string, end func() (int, time.Duration, []error)) {
		t.Helper()
		answered := make(chan error, 1)
		go func() { answered <- byTCP(from) }()
		time.Sleep(200 * time.Millisecond) // an init system's rest
		worker.Start()
		if err := <-answered; err != nil {
			t.Errorf("%s, by TCP: %v", how, err)
		}
		asked, slowest, failed := end()
		if len(failed) > 0 || asked == 0 {
			t.Errorf("%s: %d of %d questions failed: %v", how, len(failed), asked, failed)
		}
		t.Logf("%s: %d questions, the slowest took %s", how, asked, slowest.Round(time.Millisecond))
	}
	end := asking(t, from, "web")
	worker.Stop() // which answers what it has read
	over("stopped in order", end)
	worker.Kill() // with what it had read, so nobody asks before
	over("killed", asking(t, from, "web"))
	first.Must("service", "rm", "web")
	worker.Must("swarm", "leave")
	keeps() // nothing of a node that left
}

// byTCP asks for a name by TCP alone.
func byTCP(from inside) error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return from.DialContext(ctx, "tcp", "127.0.0.11:53")
	}}
	_, err := r.LookupHost(ctx, "web.")
	return err
}
