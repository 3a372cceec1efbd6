package apiserver

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// The size of one file of the audit log, in bytes, and how many older ones are kept beside it.
const (
	auditSize = 16 << 20
	auditKeep = 7
)

// rotated is a file of lines. When it is full it is renamed to path.1, which becomes path.2, and so on; the last one goes. It is
// opened when it is first needed, and again where somebody else moved it away. Only its owner can read it.
type rotated struct {
	path string
	size int64
	keep int

	mu   sync.Mutex
	file *os.File
	have int64
}

// append writes a record as one line.
func (f *rotated) append(record *v1.AuditRecord) error {
	line, err := json.Marshal(record)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.open(); err != nil {
		return err
	}
	if f.have > 0 && f.have+int64(len(line)) > f.size {
		if err := f.rotate(); err != nil {
			return err
		}
	}
	n, err := f.file.Write(line)
	f.have += int64(n)
	if err != nil {
		f.drop() // what comes next begins on a line of its own
	}
	return err
}

// open makes sure that the file at the path is the one that is written to.
func (f *rotated) open() error {
	if f.file != nil {
		ours, err := f.file.Stat()
		if err != nil {
			return err
		}
		if there, err := os.Stat(f.path); err == nil && os.SameFile(ours, there) {
			return nil
		}
		f.drop()
	}
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	f.file = file
	return f.begin()
}

// begin finds the end of the file, and ends a line that a crash left unfinished.
func (f *rotated) begin() error {
	info, err := f.file.Stat()
	if err != nil || info.Size() == 0 {
		f.have = 0
		return err
	}
	f.have = info.Size()
	last := make([]byte, 1)
	if _, err := f.file.ReadAt(last, f.have-1); err != nil || last[0] == '\n' {
		return err
	}
	n, err := f.file.Write([]byte{'\n'})
	f.have += int64(n)
	return err
}

// there tells whether there is a file.
func (f *rotated) there() bool {
	_, err := os.Stat(f.path)
	return err == nil
}

func (f *rotated) rotate() error {
	f.drop()
	for i := f.keep; i > 0; i-- {
		if err := os.Rename(f.at(i-1), f.at(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return f.open()
}

// at is the path of the file that is so many files old.
func (f *rotated) at(age int) string {
	if age == 0 {
		return f.path
	}
	return f.path + "." + strconv.Itoa(age)
}

func (f *rotated) drop() {
	if f.file != nil {
		_ = f.file.Close() // each line was written whole, or told as an error
		f.file, f.have = nil, 0
	}
}

func (f *rotated) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop()
}

// newest reads the last records since a time, at most limit, the newest last. Lines that are no records are left out.
func (f *rotated) newest(limit int, since time.Time) ([]v1.AuditRecord, error) {
	files, err := f.readers()
	defer func() {
		for _, file := range files {
			_ = file.Close() // it was only read
		}
	}()
	if err != nil {
		return nil, err
	}
	var all []v1.AuditRecord
	for _, file := range files {
		part, complete, err := tail(file, limit-len(all), since)
		if err != nil {
			return nil, err
		}
		all = append(part, all...)
		if !complete || len(all) >= limit {
			break
		}
	}
	return all, nil
}

// readers are the files that there are, newest first, all of one moment.
func (f *rotated) readers() ([]*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var files []*os.File
	for i := range f.keep + 1 {
		file, err := os.Open(f.at(i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		files = append(files, file)
	}
	return files, nil
}

// tail reads the last records of a file since a time, and tells whether older files may have more of them.
func tail(from io.Reader, limit int, since time.Time) (last []v1.AuditRecord, more bool, err error) {
	more = true
	ring := make([]v1.AuditRecord, 0, min(limit, 64))
	next := 0
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 0, 4<<10), maxRecord)
	for lines.Scan() {
		var record v1.AuditRecord
		if json.Unmarshal(lines.Bytes(), &record) != nil {
			continue
		}
		if record.Time.Before(since) {
			more = false
			continue
		}
		if len(ring) < limit {
			ring = append(ring, record)
			continue
		}
		ring[next] = record
		next = (next + 1) % limit
	}
	return append(ring[next:len(ring):len(ring)], ring[:next]...), more, lines.Err()
}
