package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// To write ten thousand peers takes twenty milliseconds of a core, and one of them that changed a hundredth of that. So changes are added to a
// file of their own, a line each, until that is as large as the peers' own. Its first line is the sum of the peers that it goes on from: with
// any others it says nothing.

const (
	changesName = "peers.changes"
	// maxChanges is how many changes may wait to be written before all is written instead; leastChanges how many bytes of them are not
	// too many, however few peers there are.
	maxChanges   = 4096
	leastChanges = 64 << 10
	sumSize      = 2 * sha256.Size
)

// changeLog is a file of changes that is added to. Nil is none.
type changeLog struct {
	file *os.File
	size int64
	most int64
}

// beginChanges makes the file anew, to go on from the peers that were written.
func beginChanges(dir string) (*changeLog, error) {
	sum, size, err := sumOf(filepath.Join(dir, peersName))
	if err != nil {
		return nil, fmt.Errorf("agent: file of changes: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, changesName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("agent: file of changes: %w", err)
	}
	l := &changeLog{file: f, most: max(size, leastChanges)}
	if err := l.write(append(sum, '\n')); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// sumOf is the first line of a file that write put in place, and the file's size.
func sumOf(path string) ([]byte, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	sum := make([]byte, sumSize)
	if _, err := io.ReadFull(f, sum); err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return sum, info.Size(), nil
}

// full tells whether all is better written anew.
func (l *changeLog) full() bool { return l.size > l.most }

// add adds changes, each a line with the sum of the rest of it.
func (l *changeLog) add(changes []*v1.Peers) error {
	var lines bytes.Buffer
	for _, m := range changes {
		body, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("agent: file of changes: %w", err)
		}
		sum := sha256.Sum256(body)
		fmt.Fprintf(&lines, "%x %s\n", sum, body)
	}
	return l.write(lines.Bytes())
}

func (l *changeLog) write(text []byte) error {
	n, err := l.file.Write(text)
	l.size += int64(n)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("agent: file of changes: %w", err)
	}
	return nil
}

func (l *changeLog) close() {
	if l != nil {
		l.file.Close()
	}
}

// readChanges are the changes to the peers that were read, as far as they are whole: the last line may be cut off.
func readChanges(dir string) ([]v1.Peers, error) {
	path := filepath.Join(dir, changesName)
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err == nil && info.Size() > maxState {
		return nil, fmt.Errorf("agent: %s is larger than %d bytes", path, maxState)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	sum, _, err := sumOf(filepath.Join(dir, peersName))
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	first, rest, _ := bytes.Cut(data, []byte{'\n'})
	if !bytes.Equal(first, sum) {
		return nil, nil
	}
	var all []v1.Peers
	for line := range bytes.Lines(rest) {
		sum, body, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte{' '})
		if want := sha256.Sum256(body); hex.EncodeToString(want[:]) != string(sum) {
			break
		}
		var m v1.Peers
		if err := json.Unmarshal(body, &m); err != nil {
			return nil, fmt.Errorf("agent: %s: %w", path, err)
		}
		all = append(all, m)
	}
	return all, nil
}
