package logfile

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Writer appends records to the files of one directory. It is for one goroutine.
type Writer struct {
	dir      string
	maxSize  int64
	maxFiles int

	file *os.File
	size int64
	// numbers are those of the files that are there, upwards; the last is being written.
	numbers []int
	// lost counts the bytes that could not be written since the last that could.
	lost int64
}

// Open continues the directory's last file, or begins its first. Zero sizes are the defaults.
func Open(dir string, maxSize int64, maxFiles int) (*Writer, error) {
	if maxSize <= 0 {
		maxSize = DefaultMaxSize
	}
	if maxFiles <= 0 {
		maxFiles = DefaultMaxFiles
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	w := &Writer{dir: dir, maxSize: maxSize, maxFiles: maxFiles}
	numbers, err := Numbers(dir)
	if err != nil {
		return nil, err
	}
	w.numbers = numbers
	if len(numbers) == 0 {
		w.numbers = []int{1}
	}
	return w, w.open()
}

// open opens the last file for appending. Half a record that an earlier writer left, killed in the middle, is ended.
func (w *Writer) open() error {
	name := filepath.Join(w.dir, Name(w.numbers[len(w.numbers)-1]))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, 2)
	if err != nil {
		f.Close()
		return err
	}
	w.file, w.size = f, size
	var last [1]byte
	if size > 0 {
		if _, err := f.ReadAt(last[:], size-1); err == nil && last[0] != '\n' {
			n, _ := f.Write([]byte{'\n'})
			w.size += int64(n)
		}
	}
	return nil
}

// Write appends whole records. What cannot be written, for want of space, is dropped and counted; once writing works
// again a record on stderr tells how much was lost. A container must not stop because its log cannot grow.
func (w *Writer) Write(records []byte) {
	for len(records) > 0 {
		n := len(records)
		if room := w.maxSize - w.size; int64(n) > room {
			n = bytes.LastIndexByte(records[:max(room, 0)], '\n') + 1
		}
		if n == 0 && w.size > 0 {
			w.rotate()
			continue
		}
		if n == 0 { // a record that is longer than a file may be
			n = bytes.IndexByte(records, '\n') + 1
		}
		w.write(records[:n])
		records = records[n:]
	}
}

func (w *Writer) write(records []byte) {
	if w.lost > 0 {
		note := Record{
			Time: time.Now(), Stream: "stderr",
			Line: []byte("swarm-logger: " + strconv.FormatInt(w.lost, 10) + " bytes of output were lost: the disk could not take them"),
		}
		if !w.put(note.Append(nil)) {
			w.lost += int64(len(records))
			return
		}
		w.lost = 0
	}
	if !w.put(records) {
		w.lost += int64(len(records))
	}
}

// put writes all of b or nothing of it.
func (w *Writer) put(b []byte) bool {
	if w.file == nil && w.open() != nil {
		return false
	}
	n, err := w.file.Write(b)
	if err == nil {
		w.size += int64(n)
		return true
	}
	if n > 0 && w.file.Truncate(w.size) != nil { // shrinking works on a full disk
		w.size += int64(n)
	}
	return false
}

// rotate begins the next file and removes those that are too many; put opens it. On a full disk the removal is what makes
// room for it.
func (w *Writer) rotate() {
	if w.file != nil {
		w.file.Close()
	}
	w.file, w.size = nil, 0
	w.numbers = append(w.numbers, w.numbers[len(w.numbers)-1]+1)
	for len(w.numbers) > w.maxFiles {
		os.Remove(filepath.Join(w.dir, Name(w.numbers[0])))
		w.numbers = w.numbers[1:]
	}
}

// Close closes the file.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	return w.file.Close()
}
