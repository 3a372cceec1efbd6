package runtime

import (
	"context"
	"fmt"
	"iter"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// fakeLog is a container's output: the latest records, the first of which is number first.
type fakeLog struct {
	records []v1.LogRecord
	first   int
}

// fakeLogRecords bounds what a Fake keeps of one container's output.
const fakeLogRecords = 1000

// Write adds to a container's output as if its process had written it. It tells whether there is such a container.
func (f *Fake) Write(id string, records ...v1.LogRecord) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	if ok {
		f.write(c, records...)
	}
	return ok
}

func (f *Fake) write(c *fakeContainer, records ...v1.LogRecord) {
	if c.container.Log.Discard {
		return
	}
	log := f.logs[c.state.ID]
	if log == nil {
		log = new(fakeLog)
		f.logs[c.state.ID] = log
	}
	for _, r := range records {
		if r.Time.IsZero() {
			r.Time = f.o.Now()
		}
		if r.Stream == "" {
			r.Stream = "stdout"
		}
		log.records = append(log.records, r)
	}
	if over := len(log.records) - fakeLogRecords; over > 0 {
		log.records = append([]v1.LogRecord(nil), log.records[over:]...)
		log.first += over
	}
	f.wake()
}

// RemoveLog implements Runtime.
func (f *Fake) RemoveLog(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.logs, id)
	return nil
}

// Logs implements Runtime.
func (f *Fake) Logs(ctx context.Context, id string, o v1.LogOptions) iter.Seq2[v1.LogRecord, error] {
	return func(yield func(v1.LogRecord, error) bool) {
		next := -1
		for {
			records, after, exists, changed := f.read(id, next)
			if next < 0 {
				if !exists && records == nil {
					yield(v1.LogRecord{}, fmt.Errorf("%w: log of container %q", ErrNotFound, id))
					return
				}
				records = chosen(records, o)
			}
			next = after
			for _, r := range records {
				if wanted(r, o) && !yield(r, nil) {
					return
				}
			}
			if !o.Follow || !exists {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				yield(v1.LogRecord{}, context.Cause(ctx))
				return
			}
		}
	}
}

// read are the records from a number on, the number after them, and whether there may be more.
func (f *Fake) read(id string, from int) (records []v1.LogRecord, next int, exists bool, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, exists = f.containers[id]
	if log := f.logs[id]; log != nil {
		from = max(from, log.first)
		records = append([]v1.LogRecord{}, log.records[min(from-log.first, len(log.records)):]...)
		next = log.first + len(log.records)
	}
	return records, next, exists, f.watch()
}

// chosen leaves out what the options do not want, and all but the tail.
func chosen(records []v1.LogRecord, o v1.LogOptions) []v1.LogRecord {
	kept := records[:0]
	for _, r := range records {
		if wanted(r, o) {
			kept = append(kept, r)
		}
	}
	if o.Tail >= 0 && o.Tail < len(kept) {
		kept = kept[len(kept)-o.Tail:]
	}
	return kept
}

func wanted(r v1.LogRecord, o v1.LogOptions) bool {
	return (r.Stream == "stdout" && o.Stdout || r.Stream == "stderr" && o.Stderr) && !r.Time.Before(o.Since)
}
