// Start measures how fast containers start: a bare loop over containerd's client, which is as fast as anybody's, and
// beside it swarmd's own runtime on the same containerd. It prints one JSON object a line.
//
//	start -archive hello.tar -bin bin/runtime              both, on a containerd of its own in a temporary folder
//	start -archive hello.tar -address /run/x.sock          the bare loop alone, on that containerd
//
// Each round starts -n containers, -c at a time, and removes them; removing is not measured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/swarmd/swarmd/pkg/runtime/containerd"
)

type settings struct {
	archive, bin, root, address, namespace string
	n, c, rounds                           int
}

func main() {
	var o settings
	flag.StringVar(&o.archive, "archive", "", "docker or OCI `file` with the image; what it runs must not end by itself")
	flag.StringVar(&o.bin, "bin", "bin/runtime", "`folder` with containerd, shim, runc, swarm-logger and init")
	flag.StringVar(&o.root, "root", "", "`folder` for the containerd of our own; default a temporary one")
	flag.StringVar(&o.address, "address", "", "`socket` of a containerd to run the bare loop alone against")
	flag.StringVar(&o.namespace, "namespace", "bench", "containerd `namespace` of the bare loop")
	flag.IntVar(&o.n, "n", 30, "containers in a round")
	flag.IntVar(&o.c, "c", 4, "how many are started at a time")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, of which the first warms up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o settings) (err error) {
	if o.archive == "" || o.n < 1 || o.c < 1 || o.rounds < 1 || flag.NArg() > 0 {
		return fmt.Errorf("want -archive, and numbers of at least 1; see -help")
	}
	if o.address != "" {
		b, err := newBare(ctx, o)
		if err != nil {
			return err
		}
		return errors.Join(measure(ctx, o, b), b.close())
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if o.root == "" {
		if o.root, err = os.MkdirTemp("", "bench-start-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.root)
	}
	r, err := containerd.Start(ctx, containerd.Config{Root: o.root, Bin: o.bin, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		if shut := r.Shutdown(end); err == nil {
			err = shut
		}
	}()
	own, err := newOurs(ctx, o, r)
	if err != nil {
		return err
	}
	o.address = filepath.Join(o.root, "run", "containerd.sock")
	b, err := newBare(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(measure(ctx, o, b, own), b.close())
}

// starter is one way to start a container.
type starter interface {
	name() string
	start(ctx context.Context, id string) error
	remove(ctx context.Context, id string) error
}

// result is one line of output. Times are of the fastest round; a busy machine only ever adds.
type result struct {
	Mode       string  `json:"mode"`
	Containers int     `json:"containers"`
	AtATime    int     `json:"at_a_time"`
	OneSeconds float64 `json:"one_s"`
	AllSeconds float64 `json:"all_s"`
	P50        float64 `json:"p50_s"`
	Slowest    float64 `json:"slowest_s"`
	Ratio      float64 `json:"ratio_to_bare,omitempty"`
	RatioOne   float64 `json:"ratio_one_to_bare,omitempty"`
}

// measure alternates between the ways, so that what else the machine does hits them alike.
func measure(ctx context.Context, o settings, ways ...starter) error {
	best := make([]result, len(ways))
	for round := range o.rounds {
		for i, way := range ways {
			res, err := oneRound(ctx, o, way, round)
			if err != nil {
				return fmt.Errorf("%s: %w", way.name(), err)
			}
			if round == 0 && o.rounds > 1 {
				continue
			}
			if best[i].Mode == "" {
				best[i] = res
			}
			if one := min(best[i].OneSeconds, res.OneSeconds); res.AllSeconds < best[i].AllSeconds {
				best[i] = res
				best[i].OneSeconds = one
			} else {
				best[i].OneSeconds = one
			}
		}
	}
	out := json.NewEncoder(os.Stdout)
	for i, res := range best {
		if i > 0 {
			res.Ratio, res.RatioOne = res.AllSeconds/best[0].AllSeconds, res.OneSeconds/best[0].OneSeconds
		}
		if err := out.Encode(res); err != nil {
			return err
		}
	}
	return nil
}

// oneRound starts one alone, then all of them.
func oneRound(ctx context.Context, o settings, way starter, round int) (result, error) {
	res := result{Mode: way.name(), Containers: o.n, AtATime: o.c}
	single := fmt.Sprintf("bench-%s-%d-one", way.name(), round)
	begin := time.Now()
	err := way.start(ctx, single)
	res.OneSeconds = time.Since(begin).Seconds()
	if removed := way.remove(ctx, single); err == nil {
		err = removed
	}
	if err != nil {
		return res, err
	}
	id := func(i int) string { return fmt.Sprintf("bench-%s-%d-%d", way.name(), round, i) }
	took := make([]float64, o.n)
	begin = time.Now()
	err = parallel(o.n, o.c, func(i int) error {
		begin := time.Now()
		err := way.start(ctx, id(i))
		took[i] = time.Since(begin).Seconds()
		return err
	})
	res.AllSeconds = time.Since(begin).Seconds()
	if removed := parallel(o.n, o.c, func(i int) error { return way.remove(context.WithoutCancel(ctx), id(i)) }); err == nil {
		err = removed
	}
	slices.Sort(took)
	res.P50, res.Slowest = took[o.n/2], took[o.n-1]
	return res, err
}

// parallel calls f for 0 to n-1, c at a time, and returns the first error.
func parallel(n, c int, f func(int) error) error {
	next := make(chan int)
	errs := make(chan error, n)
	var workers sync.WaitGroup
	for range c {
		workers.Go(func() {
			for i := range next {
				errs <- f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
