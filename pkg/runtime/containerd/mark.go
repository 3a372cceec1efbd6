package containerd

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"
)

// mark is the file of one container in Root/marks. Create makes it when it is done, so that a container without one is half
// made. It holds what containerd does not keep: when the container started, and how it ended if containerd was dead then.
type mark struct {
	Started time.Time `json:"started,omitzero"`
	Exit    *exit     `json:"exit,omitempty"`

	made time.Time
}

// exit is how a container ended.
type exit struct {
	Code      int       `json:"code"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	At        time.Time `json:"at"`
}

// readMark reads the container's mark; false if there is none. One that a crash of the machine left unreadable is empty.
func (p paths) readMark(id string) (mark, bool) {
	var m mark
	info, err := os.Stat(p.mark(id))
	if err != nil {
		return m, !errors.Is(err, fs.ErrNotExist)
	}
	if info.Size() > 0 {
		if data, err := os.ReadFile(p.mark(id)); err == nil && json.Unmarshal(data, &m) != nil {
			m = mark{}
		}
	}
	m.made = info.ModTime()
	return m, true
}

func (p paths) writeMark(id string, m mark) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return writeFile(p.mark(id), data)
}
