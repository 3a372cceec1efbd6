package runtime_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
)

func newContainer(t *testing.T, f *runtime.Fake, id string) {
	t.Helper()
	image, err := f.Pull(t.Context(), "hello:1", runtime.Source{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Create(t.Context(), runtime.Container{ID: id, Image: image.Name}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func TestFakeProcessesEndInTheirOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := map[string]time.Duration{"a": 3 * time.Minute, "b": time.Minute, "c": 2 * time.Minute, "d": time.Minute, "stays": 0}
		f := runtime.NewFake(runtime.FakeOptions{Process: func(c runtime.Container) runtime.FakeProcess {
			return runtime.FakeProcess{RunFor: runs[c.ID], ExitCode: len(c.ID)}
		}})
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		events := f.Events(ctx)
		for _, id := range []string{"a", "b", "c", "d", "stays"} {
			newContainer(t, f, id)
		}
		if !f.Kill("d", 9) {
			t.Error("d did not run")
		}
		var got []string
		for s, err := range events {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, s.ID+" "+s.Ended.Sub(began).String())
			if len(got) == 4 {
				break
			}
		}
		if diff := cmp.Diff([]string{"d 0s", "b 1m0s", "c 2m0s", "a 3m0s"}, got); diff != "" {
			t.Errorf("ends (-want +got):\n%s", diff)
		}
	})
}

func TestFakeIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := runtime.NewFake(runtime.FakeOptions{})
		newContainer(t, f, "a")
		gone := errors.New("gone")
		var ended error
		go func() {
			for _, err := range f.Events(context.Background()) {
				ended = err
			}
		}()
		synctest.Wait()
		f.Lose(gone)
		synctest.Wait()
		if !errors.Is(ended, gone) {
			t.Errorf("Events end with %v", ended)
		}
		if _, err := f.List(t.Context()); !errors.Is(err, gone) {
			t.Errorf("List: %v", err)
		}
		if err := f.Create(t.Context(), runtime.Container{ID: "b"}); !errors.Is(err, gone) {
			t.Errorf("Create: %v", err)
		}
		f.Lose(nil)
		if states, err := f.List(t.Context()); err != nil || len(states) != 1 || states[0].Status != runtime.Running {
			t.Errorf("after it is back: %+v, %v", states, err)
		}
		if !f.OOM("a") || f.OOM("a") || f.Kill("nobody", 1) {
			t.Error("a container ends once, and only if it is there")
		}
		if s, _ := f.State(t.Context(), "a"); !s.OOMKilled || s.ExitCode != 137 {
			t.Errorf("state is %+v", s)
		}
	})
}

func TestFakeReaderFarBehindIsTold(t *testing.T) {
	f := runtime.NewFake(runtime.FakeOptions{})
	events := f.Events(t.Context())
	for range 10_000 {
		newContainer(t, f, "a")
		f.Kill("a", 0)
		if err := f.Remove(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range events {
		if err == nil {
			t.Error("a reader that missed events got one as if nothing had happened")
		}
		return
	}
}

func TestFakeDelaysAndFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad")
		f := runtime.NewFake(runtime.FakeOptions{
			Delay: func(op runtime.FakeOp, _ string) time.Duration {
				if op == runtime.FakePull {
					return time.Minute
				}
				return 0
			},
			Fail: func(op runtime.FakeOp, id string) error {
				if op == runtime.FakeStart && id == "bad" {
					return bad
				}
				return nil
			},
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Pull(ctx, "hello:1", runtime.Source{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Pull: %v", err)
		}
		if images, _ := f.Images(t.Context()); len(images) != 0 {
			t.Errorf("a pull that was given up left %v", images)
		}
		newContainer(t, f, "good")
		if err := f.Create(t.Context(), runtime.Container{ID: "bad", Image: "hello:1"}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Start(t.Context(), "bad"); !errors.Is(err, bad) {
			t.Errorf("Start: %v", err)
		}
		if s, _ := f.State(t.Context(), "bad"); s.Status != runtime.Created {
			t.Errorf("state is %+v", s)
		}
		if n := f.Calls(runtime.FakeStart); n != 2 {
			t.Errorf("%d starts", n)
		}
	})
}

func TestFakeLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := runtime.NewFake(runtime.FakeOptions{})
		newContainer(t, f, "a")
		for i := range 1500 {
			f.Write("a", v1.LogRecord{Line: []byte{byte(i)}})
		}
		follow := make(chan int)
		go func() {
			n := 0
			for _, err := range f.Logs(t.Context(), "a", v1.LogOptions{Stdout: true, Follow: true, Tail: 2}) {
				if err != nil {
					t.Error(err)
				}
				n++
			}
			follow <- n
		}()
		synctest.Wait()
		f.Write("a", v1.LogRecord{Line: []byte("more")}, v1.LogRecord{Line: []byte("no"), Stream: "stderr"})
		if err := f.Remove(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if n := <-follow; n != 3 {
			t.Errorf("followed %d records, want the last 2 and 1 new", n)
		}
		n := 0
		for range f.Logs(t.Context(), "a", v1.LogOptions{Stdout: true, Stderr: true, Tail: -1}) {
			n++
		}
		if n != 1000 {
			t.Errorf("%d records are kept, want the latest 1000", n)
		}
		if err := f.RemoveLog(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		for _, err := range f.Logs(t.Context(), "a", v1.LogOptions{Stdout: true}) {
			if !errors.Is(err, runtime.ErrNotFound) {
				t.Errorf("a log that was removed: %v", err)
			}
		}
	})
}
