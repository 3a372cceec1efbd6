package containerd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/runtime"
	"github.com/swarmd/swarmd/pkg/runtime/containerd/logfile"
)

// maxRecord is the longest that a record can be in a file.
const maxRecord = logfile.MaxLine + 128

// Logs implements runtime.Runtime. Lines in parts come as parts.
func (r *Runtime) Logs(ctx context.Context, id string, o v1.LogOptions) iter.Seq2[v1.LogRecord, error] {
	return func(yield func(v1.LogRecord, error) bool) {
		if err := validID(id); err != nil {
			yield(v1.LogRecord{}, err)
			return
		}
		l := &logReader{dir: r.paths.logs(id), options: o}
		defer l.close()
		enough := false
		err := l.run(ctx, func(record v1.LogRecord) bool {
			enough = !yield(record, nil)
			return !enough
		})
		if enough {
			return
		}
		if errors.Is(err, fs.ErrNotExist) { // no log: either no container, or one that keeps none
			if _, serr := r.State(ctx, id); serr == nil {
				return
			}
			err = runtime.ErrNotFound
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			yield(v1.LogRecord{}, fmt.Errorf("containerd: log of %s: %w", id, err))
		}
	}
}

// logReader reads one container's files in the order of their numbers.
type logReader struct {
	dir     string
	options v1.LogOptions

	watcher *watcher
	file    *os.File
	number  int
	lines   *bufio.Reader
	// begun is the start of a record whose end is not written yet.
	begun []byte
	// skip is how many of the records that are wanted come before the tail.
	skip int
}

// run yields what is wanted of what is there, and with Follow of what comes.
func (l *logReader) run(ctx context.Context, yield func(v1.LogRecord) bool) error {
	if l.options.Tail == 0 && !l.options.Follow {
		_, err := os.Stat(l.dir)
		return err
	}
	if err := l.begin(ctx); err != nil {
		return err
	}
	return l.read(ctx, yield)
}

// begin finds where to read from. What is written after it is read.
func (l *logReader) begin(ctx context.Context) (err error) {
	if l.options.Follow {
		if l.watcher, err = watch(l.dir); err != nil { // before reading: nothing is missed in between
			return err
		}
	}
	if l.options.Tail >= 0 {
		if err := l.findTail(ctx); err != nil {
			return err
		}
	}
	return l.first()
}

// read yields from where it began.
func (l *logReader) read(ctx context.Context, yield func(v1.LogRecord) bool) error {
	for {
		ended := l.ended() // asked before reading: what was written before the end is read
		more, err := l.drain(ctx, yield)
		if err != nil || !more || !l.options.Follow || ended {
			return err
		}
		if err := l.watcher.wait(ctx); err != nil {
			return err
		}
	}
}

// first opens the oldest file. A log that has none yet is empty.
func (l *logReader) first() error {
	numbers, err := logfile.Numbers(l.dir)
	if err != nil {
		return err
	}
	if len(numbers) == 0 {
		return nil
	}
	return l.open(numbers[0])
}

func (l *logReader) open(number int) error {
	f, err := os.Open(filepath.Join(l.dir, logfile.Name(number)))
	if err != nil {
		return err
	}
	l.closeFile()
	l.file, l.number, l.begun = f, number, nil
	if l.lines == nil {
		l.lines = bufio.NewReaderSize(f, 64<<10)
	}
	l.lines.Reset(f)
	return nil
}

func (l *logReader) close() {
	l.closeFile()
	if l.watcher != nil {
		l.watcher.close()
		l.watcher = nil
	}
}

func (l *logReader) closeFile() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}

// drain yields all that is there now. It is false once the consumer wants no more.
func (l *logReader) drain(ctx context.Context, yield func(v1.LogRecord) bool) (bool, error) {
	for {
		next, err := l.next()
		if err != nil {
			return false, err
		}
		if l.file != nil {
			if more, err := l.drainFile(ctx, yield); !more || err != nil {
				return more, err
			}
		}
		if next == 0 {
			return true, nil
		}
		if err := l.open(next); err != nil && !errors.Is(err, fs.ErrNotExist) { // rotated away: ask for the one after
			return false, err
		}
	}
}

// next is the number of the file after the current one, 0 for none. Asked before the current one is read to its end, it
// says that nothing will be added to that.
func (l *logReader) next() (int, error) {
	numbers, err := logfile.Numbers(l.dir)
	if err != nil {
		if l.file != nil && errors.Is(err, fs.ErrNotExist) {
			return 0, nil // RemoveLog; what is open can still be read
		}
		return 0, err
	}
	for _, n := range numbers {
		if n > l.number {
			return n, nil
		}
	}
	return 0, nil
}

func (l *logReader) drainFile(ctx context.Context, yield func(v1.LogRecord) bool) (bool, error) {
	for ctx.Err() == nil {
		part, err := l.lines.ReadSlice('\n')
		if len(l.begun)+len(part) > maxRecord {
			part = part[:0] // no record of ours; what follows is dropped with it
		}
		l.begun = append(l.begun, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		record, perr := logfile.Parse(bytes.TrimSuffix(l.begun, []byte{'\n'}))
		l.begun = nil // not reused: the record is the consumer's
		if perr != nil || !l.wants(record) {
			continue
		}
		if l.skip > 0 {
			l.skip--
			continue
		}
		if !yield(v1.LogRecord{Time: record.Time, Stream: record.Stream, Line: record.Line, Partial: record.Partial}) {
			return false, nil
		}
	}
	return false, ctx.Err()
}

// wants tells whether the record is of a stream and time that was asked for.
func (l *logReader) wants(r logfile.Record) bool {
	o := l.options
	return (r.Stream == "stdout" && o.Stdout || r.Stream == "stderr" && o.Stderr) && !r.Time.Before(o.Since)
}

// findTail reads the log once to find how many wanted records come before its last Tail lines. The parts of a line count
// as one.
func (l *logReader) findTail(ctx context.Context) error {
	counter := &logReader{dir: l.dir, options: l.options}
	defer counter.close()
	if err := counter.first(); err != nil {
		return err
	}
	var starts []int // of the last lines: the index of their first record, oldest first, as a ring
	oldest, records := 0, 0
	inLine := map[string]bool{}
	_, err := counter.drain(ctx, func(r v1.LogRecord) bool {
		if !inLine[r.Stream] {
			if len(starts) < l.options.Tail {
				starts = append(starts, records)
			} else if l.options.Tail > 0 {
				starts[oldest] = records
				oldest = (oldest + 1) % len(starts)
			}
		}
		inLine[r.Stream] = r.Partial
		records++
		return true
	})
	l.skip = records
	if len(starts) > 0 {
		l.skip = starts[oldest%len(starts)]
	}
	return err
}

// ended tells whether the container was removed.
func (l *logReader) ended() bool {
	_, err := os.Stat(filepath.Join(l.dir, logfile.End))
	if err == nil {
		return true
	}
	_, err = os.Stat(l.dir)
	return errors.Is(err, fs.ErrNotExist)
}

// lookAgain is how often a followed log is looked at without being told of a change, should one be missed.
const lookAgain = 2 * time.Second
