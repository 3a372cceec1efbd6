package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

// act does one command to a lab that is there.
func act(l *lab.Lab, verb string, args []string) error {
	switch {
	case verb == "ls" && len(args) == 0:
		return list(l)
	case verb == "heal" && len(args) == 0:
		return l.Heal()
	case verb == "client":
		return become(l, l.Client, "", args)
	case verb == "add" && len(args) == 1:
		h, err := l.Add(args[0])
		if err != nil {
			return err
		}
		h.Start()
		return h.LoadImages()
	case verb == "partition" && len(args) > 0:
		var groups [][]*lab.Host
		for _, arg := range args {
			group, err := hosts(l, strings.Split(arg, ","))
			if err != nil {
				return err
			}
			groups = append(groups, group)
		}
		return l.Partition(groups...)
	case len(args) == 0:
		return errUsage
	}
	named, err := hosts(l, args[:1])
	if err != nil {
		return err
	}
	return actOn(l, named[0], verb, args[1:])
}

// actOn does one command to a host.
func actOn(l *lab.Lab, h *lab.Host, verb string, args []string) error {
	switch verb + fmt.Sprint(len(args)) {
	case "cut0":
		return l.Cut(h)
	case "cut1":
		other, err := hosts(l, args)
		if err != nil {
			return err
		}
		return l.CutBetween(h, other[0])
	case "kill0":
		h.Kill()
	case "killall0":
		h.KillAll()
	case "pause0":
		h.Pause()
	case "resume0":
		h.Resume()
	case "start0":
		h.Start()
	case "stop0":
		h.Stop()
	case "rm0":
		return l.Discard(h)
	case "log0":
		_, err := os.Stdout.WriteString(h.WholeLog())
		return err
	case "power1":
		return power(h, args[0])
	default:
		if verb != "exec" {
			return errUsage
		}
		if h.Namespace == nil {
			return fmt.Errorf("%s has no power", h.Name)
		}
		return become(l, h.Namespace, h.Socket(), args)
	}
	return nil
}

func power(h *lab.Host, how string) error {
	switch how {
	case "off":
		return h.PowerOff()
	case "on":
		h.Start()
		return nil
	}
	return errUsage
}

func hosts(l *lab.Lab, names []string) ([]*lab.Host, error) {
	var found []*lab.Host
	for _, name := range names {
		h := l.Host(name)
		if h == nil {
			return nil, fmt.Errorf("there is no host %s", name)
		}
		found = append(found, h)
	}
	return found, nil
}

// terminal is a lab's test where there is none: a person at a terminal.
type terminal struct{}

// Helper implements lab.T.
func (terminal) Helper() {}

// Cleanup implements lab.T: what was made stays.
func (terminal) Cleanup(func()) {}

// Skipf implements lab.T.
func (t terminal) Skipf(format string, args ...any) { t.Fatalf(format, args...) }

// Errorf implements lab.T.
func (terminal) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Fatalf implements lab.T.
func (t terminal) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	os.Exit(1)
}
