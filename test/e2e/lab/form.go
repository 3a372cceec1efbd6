package lab

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Names are those of so many managers and workers: manager1, manager2, worker1, …
func Names(managers, workers int) []string {
	var names []string
	for i := range managers {
		names = append(names, fmt.Sprintf("manager%d", i+1))
	}
	for i := range workers {
		names = append(names, fmt.Sprintf("worker%d", i+1))
	}
	return names
}

// Form makes a swarm of all hosts by the documented commands: the first ones become managers, the others workers. All have
// swarmd running already.
func (l *Lab) Form(managers int) {
	l.T.Helper()
	first := l.Hosts[0]
	first.Must("swarm", "init", "--advertise-addr", first.Addr.String())
	for i, h := range l.Hosts[1:] {
		role := "worker"
		if i+1 < managers {
			role = "manager"
		}
		h.Join(first, role)
	}
	l.Settled(first, managers)
}

// joinCommand is what "swarm init" and "swarm join-token" tell people to run.
var joinCommand = regexp.MustCompile(`swarmctl swarm join --token (\S+) (\S+)`)

// JoinArguments are the token and the address that a manager tells others to join with.
func (h *Host) JoinArguments(role string) (token, addr string) {
	h.lab.T.Helper()
	out := h.Must("swarm", "join-token", role)
	found := joinCommand.FindStringSubmatch(out)
	if found == nil {
		h.lab.T.Fatalf("swarm join-token %s says no command to run:\n%s", role, out)
	}
	return found[1], found[2]
}

// Join makes the host part of another's swarm, with the command that the other one gives.
func (h *Host) Join(manager *Host, role string) {
	h.lab.T.Helper()
	token, addr := manager.JoinArguments(role)
	if out := h.Must("swarm", "join", "--token", token, addr); !strings.Contains(out, "This node joined a swarm as a "+role) {
		h.lab.T.Fatalf("swarm join on %s says %q", h.Name, out)
	}
}

// Settled waits until every host of the lab is a ready node, and so many managers vote.
func (l *Lab) Settled(manager *Host, managers int) {
	l.T.Helper()
	l.Eventually(60*time.Second, "all nodes are ready", func() error {
		r := manager.Ctl("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
		if r.Err != nil {
			return r.Err
		}
		ready, voters := 0, 0
		for line := range strings.Lines(r.Stdout) {
			fields := strings.Fields(line)
			if len(fields) > 1 && fields[1] == "Ready" {
				ready++
			}
			if len(fields) > 2 && (fields[2] == "Leader" || fields[2] == "Reachable") {
				voters++
			}
		}
		if ready != len(l.Hosts) || voters != managers {
			return fmt.Errorf("%d nodes ready and %d managers, want %d and %d:\n%s", ready, voters, len(l.Hosts), managers, r.Stdout)
		}
		return nil
	})
}

// LoadImages gives the host the images of the examples, as somebody without a registry does.
func (h *Host) LoadImages() error {
	for _, version := range []string{"1", "2"} {
		if r := h.Ctl("image", "load", "--quiet", "-i", filepath.Join(h.lab.Bin, "hello-"+version+".tar")); r.Err != nil {
			return r.Err
		}
	}
	return nil
}

// StartAll starts swarmd on every host, all at once, and waits until each answers.
func (l *Lab) StartAll() {
	l.T.Helper()
	for _, h := range l.Hosts {
		if err := h.Launch(); err != nil {
			l.T.Fatalf("lab: start swarmd of %s: %v", h.Name, err)
		}
	}
	for _, h := range l.Hosts {
		h.Answers()
	}
}
