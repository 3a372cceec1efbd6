package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// state is what a lab has to remember for another process to work on it. All else is on the machine.
type state struct {
	Hosts map[string]int `json:"hosts"` // their numbers
	Cut   [][2]string    `json:"cut,omitempty"`
}

func (l *Lab) stateFile() string { return filepath.Join(l.Dir, "lab.json") }

func (l *Lab) save() error {
	s := state{Hosts: make(map[string]int)}
	for _, h := range l.Hosts {
		s.Hosts[h.Name] = h.number
	}
	for p := range l.cut {
		s.Cut = append(s.Cut, p)
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(l.stateFile(), data, 0o600)
}

// Open takes up the lab that another process made in a directory.
func Open(t T, dir string) (*Lab, error) {
	l, err := open(t, dir)
	if err != nil {
		return l, err
	}
	data, err := os.ReadFile(l.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return l, fmt.Errorf("there is no lab in %s: make lab makes one", dir)
	}
	var s state
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return l, err
	}
	for _, p := range s.Cut {
		l.cut[p] = true
	}
	if l.bridge, err = openNamespace(l.namespacePath("bridge")); err != nil {
		return l, err
	}
	if l.Client, err = openNamespace(l.namespacePath("client")); err != nil {
		return l, err
	}
	for name, number := range s.Hosts {
		h := &Host{Name: name, lab: l, number: number, Addr: address(number), Root: filepath.Join(l.Dir, name)}
		if len(networks([]string{l.namespacePath(name)})) > 0 {
			if h.Namespace, err = openNamespace(l.namespacePath(name)); err != nil {
				return l, err
			}
		}
		l.Hosts = append(l.Hosts, h)
	}
	slices.SortFunc(l.Hosts, func(a, b *Host) int { return a.number - b.number })
	return l, nil
}
