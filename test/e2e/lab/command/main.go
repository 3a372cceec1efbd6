// Command lab brings up a swarm of several hosts on this machine to play with, and breaks it on request: hosts are namespaces of
// the lab (see the package above), and stay when the program ends. "make lab HOSTS=3" runs it.
//
// It never touches the machine's own network; "lab down" leaves nothing.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/swarmd/swarmd/test/e2e/lab"
)

const usage = `Usage: lab COMMAND

  up [--hosts N] [--managers N] [--empty]
                               make N hosts and a swarm of them; --empty only starts swarmd on each
  ls                           list the hosts, how to reach them and what they take
  exec HOST COMMAND...         run a command on a host; swarmctl speaks to the host's swarmd
  client COMMAND...            run a command on a machine outside of the swarm, on the same network
  log HOST                     print what swarmd logged
  cut HOST [HOST]              cut a host off from everything, or two hosts from each other, silently
  partition HOST,HOST HOST...  leave each host only those of its own group
  heal                         mend all links
  kill HOST                    kill -9 swarmd; its containers go on
  killall HOST                 kill -9 swarmd, containerd and all containers
  power HOST off|on            cut a host's power, or give it back
  pause HOST, resume HOST      freeze swarmd, and let it go on
  start HOST, stop HOST        start swarmd, or end it as an init system would
  add HOST                     add a host
  rm HOST                      take a host away for good
  down                         end everything and leave nothing behind
`

// errUsage says that the command line makes no sense.
var errUsage = errors.New("that is no command of the lab")

func main() {
	err := run(os.Args[1:])
	if errors.Is(err, errUsage) {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// dir is where the hosts are; another than that of the tests, so that neither ends the other.
func dir() string { return filepath.Join(os.TempDir(), "swarmd-play") }

func run(args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, for namespaces and containers: try sudo")
	}
	switch args[0] {
	case "up":
		return up(args[1:])
	case "down":
		l, err := lab.Open(terminal{}, dir())
		if l.Bin == "" {
			return err // what is there is cleared even where it cannot be opened
		}
		return l.Remove()
	}
	l, err := lab.Open(terminal{}, dir())
	if err != nil {
		return err
	}
	return act(l, args[0], args[1:])
}

func up(args []string) error {
	flags := flag.NewFlagSet("lab up", flag.ContinueOnError)
	count := flags.Int("hosts", 3, "how many hosts")
	managers := flags.Int("managers", 0, "how many of them are managers; default 1, or 3 of five and more")
	empty := flags.Bool("empty", false, "make no swarm")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return errUsage
	}
	if *managers == 0 {
		*managers = 1
		if *count >= 5 {
			*managers = 3
		}
	}
	if *count < 1 || *managers > *count {
		return fmt.Errorf("%d hosts, %d of them managers: want at least one host, and no more managers than hosts", *count, *managers)
	}
	l, err := lab.Make(terminal{}, dir(), lab.Names(*managers, *count-*managers)...)
	if err != nil {
		return err
	}
	if err := start(l, *managers, *empty); err != nil {
		return err
	}
	return list(l)
}

// start starts swarmd on all hosts, has them join, and gives them the example images.
func start(l *lab.Lab, managers int, empty bool) error {
	fmt.Printf("Starting swarmd on %d hosts\n", len(l.Hosts))
	l.StartAll()
	if !empty {
		l.Form(managers)
	}
	for _, h := range l.Hosts {
		if err := h.LoadImages(); err != nil {
			return err
		}
	}
	return nil
}

func list(l *lab.Lab) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fmt.Println("\nHOST        ADDRESS      SWARMD     MEMORY")
	for _, h := range l.Hosts {
		state := "runs"
		if !h.Alive() {
			state = "is down"
		}
		memory, err := h.Memory()
		if err != nil {
			return err
		}
		var sum int64
		for _, bytes := range memory {
			sum += bytes
		}
		fmt.Printf("%-11s %-12s %-10s %d MB\n", h.Name, h.Addr, state, sum/1e6)
	}
	first := l.Hosts[0]
	fmt.Printf(`
%[1]s exec %[2]s swarmctl node ls            a command on a host
%[1]s exec %[2]s swarmctl service create --name web --replicas 3 -p 8080:8080 hello:1
%[1]s client curl -s %[3]s:8080          from a machine outside of the swarm
%[1]s exec %[2]s bash                        a shell on a host
%[1]s cut %[4]s; %[1]s heal               break it, and mend it
%[1]s help                                       all that can be done to it
make lab-down                                      the end of it
`, display(self), first.Name, first.Addr, l.Hosts[len(l.Hosts)-1].Name)
	return nil
}

// display is a path as one types it here.
func display(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(short, "..") {
			return short
		}
	}
	return path
}

// become replaces this program by a command in a namespace.
func become(l *lab.Lab, n *lab.Namespace, socket string, command []string) error {
	if len(command) == 0 {
		return errUsage
	}
	line := n.Arguments(command[0], command[1:]...)
	path, err := exec.LookPath(line[0])
	if err != nil {
		return err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PATH=") || strings.HasPrefix(v, "SWARM_HOST=") })
	env = append(env, "PATH="+l.Bin+":"+os.Getenv("PATH"))
	if socket != "" {
		env = append(env, "SWARM_HOST=unix://"+socket)
	}
	return syscall.Exec(path, line, env)
}
