package storetest

import (
	"errors"
	"testing"

	"github.com/swarmd/swarmd/pkg/store"
)

func runEnd(t *testing.T, open Open) {
	t.Run("EndsAllCalls", func(t *testing.T) { testClose(fix(t, open)) })
	t.Run("WhileWriting", func(t *testing.T) { testCloseWhileWriting(fix(t, open)) })
}

func testClose(f *fixture) {
	revision := f.commit(desired("a", 1, store.Absent()))
	ended := make(chan error, 2)
	go func() {
		_, err := f.Snapshot(f.ctx, revision+1000)
		ended <- err
	}()
	go func() {
		var last error
		for _, err := range f.Watch(f.ctx, revision) {
			last = err
		}
		ended <- last
	}()
	for range 2 { // twice is as well as once
		if err := f.Close(); err != nil {
			f.Fatal(err)
		}
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, store.ErrClosed) {
			f.Errorf("what was waiting ended with %v", err)
		}
	}
	if _, err := f.Commit(f.ctx, store.Commit{Ops: newTasks(1)}); !errors.Is(err, store.ErrClosed) {
		f.Errorf("commit: %v", err)
	}
	if _, err := f.Sync(f.ctx); !errors.Is(err, store.ErrClosed) {
		f.Errorf("sync: %v", err)
	}
	if _, err := f.Snapshot(f.ctx, 0); !errors.Is(err, store.ErrClosed) {
		f.Errorf("snapshot: %v", err)
	}
	for _, err := range f.Watch(f.ctx, revision) {
		if !errors.Is(err, store.ErrClosed) {
			f.Errorf("watch: %v", err)
			break
		}
	}
}

// testCloseWhileWriting closes under load: every writer ends, and with ErrClosed.
func testCloseWhileWriting(f *fixture) {
	first := make(chan struct{}, 4)
	done := make(chan error, 4)
	for i := range 4 {
		go func() {
			for n := uint64(0); ; n++ {
				if _, err := f.Commit(f.ctx, store.Commit{Ops: []store.Op{desired(string(rune('a'+i)), n, store.Always())}}); err != nil {
					done <- err
					return
				}
				if n == 0 {
					first <- struct{}{}
				}
			}
		}()
	}
	for range 4 {
		<-first
	}
	if err := f.Close(); err != nil {
		f.Error(err)
	}
	for range 4 {
		if err := <-done; !errors.Is(err, store.ErrClosed) {
			f.Errorf("a writer ended with %v", err)
		}
	}
}
