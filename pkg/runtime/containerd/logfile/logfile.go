// Package logfile is how a container's output lies on disk: one record a line, in files that are numbered upwards.
//
// It owns the format and its writer, which swarm-logger runs beside each container; pkg/runtime/containerd reads. A file
// is never renamed and never written to again once there is one with a higher number, so a reader that holds it open
// misses nothing. The package never blocks on anything but the disk, never fsyncs, and imports only what keeps the logger
// small.
package logfile

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxLine is the length at which a line is cut into parts, Docker's.
const MaxLine = 16 << 10

// Defaults of a Writer.
const (
	DefaultMaxSize  = 10 << 20
	DefaultMaxFiles = 3
)

// End is the name of the file whose presence says that nothing will be written to the directory any more.
const End = "end"

const (
	suffix     = ".log"
	timeFormat = "2006-01-02T15:04:05.000000000Z"
)

// Record is one line, or a part of one.
type Record struct {
	Time   time.Time
	Stream string
	// Partial tells that the line goes on in the stream's next record.
	Partial bool
	// Line is without the newline.
	Line []byte
}

// Append appends the record to b as "<time> <stream> <P or F> <line>\n".
func (r Record) Append(b []byte) []byte {
	b = r.Time.UTC().AppendFormat(b, timeFormat)
	b = append(b, ' ')
	b = append(b, r.Stream...)
	if r.Partial {
		b = append(b, " P "...)
	} else {
		b = append(b, " F "...)
	}
	b = append(b, r.Line...)
	return append(b, '\n')
}

var errFormat = errors.New("logfile: not a record")

// Parse reads what Append wrote, without the newline. Line shares its memory with b.
func Parse(b []byte) (Record, error) {
	stamp, rest, ok := bytes.Cut(b, []byte{' '})
	stream, rest, ok2 := bytes.Cut(rest, []byte{' '})
	if !ok || !ok2 || len(rest) < 2 || rest[1] != ' ' || rest[0] != 'P' && rest[0] != 'F' {
		return Record{}, errFormat
	}
	t, err := time.Parse(timeFormat, string(stamp))
	if err != nil {
		return Record{}, errFormat
	}
	r := Record{Time: t, Partial: rest[0] == 'P', Line: rest[2:]}
	switch string(stream) { // constants, so that no record allocates its own
	case "stdout":
		r.Stream = "stdout"
	case "stderr":
		r.Stream = "stderr"
	default:
		return Record{}, errFormat
	}
	return r, nil
}

// Name is the name of the file with that number.
func Name(number int) string { return strconv.Itoa(number) + suffix }

// Numbers lists the numbers of the directory's files, upwards.
func Numbers(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, suffix)
		if n, err := strconv.Atoi(digits); ok && err == nil && n > 0 {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}
