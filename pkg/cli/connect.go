package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/ca"
	"github.com/swarmd/swarmd/pkg/client"
)

// How a context's managers are learnt anew.
const (
	learnEvery   = 10 * time.Minute
	learnTimeout = 2 * time.Second // people are waiting for their prompt
)

// daemon is the client of the daemon that is meant. As with docker: --host, else --context, else the environment's host, else
// its context, else the current one, else this machine's daemon.
func (a *app) daemon() (*client.Client, error) {
	if a.client != nil {
		return a.client, nil
	}
	if a.host != "" && a.context != "" {
		return nil, errors.New("conflicting options: cannot specify both --host and --context")
	}
	host := a.host
	if host == "" && a.context == "" {
		host = a.Getenv(HostEnv)
	}
	var err error
	if host != "" {
		a.client, err = newClient(host)
		return a.client, err
	}
	x, err := a.chosen()
	if err != nil {
		return nil, err
	}
	if x == nil {
		a.client, err = newClient(DefaultHost)
		return a.client, err
	}
	if a.client, err = x.dial(); err != nil {
		return nil, fmt.Errorf("context %q: %w", x.Name, err)
	}
	a.used = x
	return a.client, nil
}

func newClient(host string) (*client.Client, error) {
	c, err := client.New(host)
	if err != nil {
		return nil, fmt.Errorf("host %q: %w", host, err)
	}
	return c, nil
}

// chosen is the context that is meant where no host is named; nil is this machine's daemon.
func (a *app) chosen() (*swarmContext, error) {
	config, err := a.readConfig()
	if err != nil {
		return nil, err
	}
	name := a.context
	if name == "" {
		name = a.Getenv(ContextEnv)
	}
	if name == "" {
		name = config.Current
	}
	if name == "" || name == localContext {
		return nil, nil
	}
	x := config.find(name)
	if x == nil {
		return nil, noContext(name)
	}
	return x, nil
}

// dial is a client of the context's managers.
func (x *swarmContext) dial() (*client.Client, error) {
	var chain, key []byte // stay nil where there is a token alone
	if x.Certificate != "" {
		chain, key = []byte(x.Certificate), []byte(x.Key)
	}
	settings, err := ca.UserTLS(chain, key, []byte(x.Roots))
	if err != nil {
		return nil, err
	}
	return client.Dial(client.Options{Hosts: x.all(), TLS: settings, Token: x.Token})
}

// learnHosts keeps the addresses of the context's managers fresh, so that swarmctl finds the swarm when those that it was
// first told of are gone. That it cannot is no error: the command is done.
func (a *app) learnHosts(ctx context.Context) {
	if a.used == nil || ctx.Err() != nil {
		return
	}
	answered := a.client.Host()
	moved := answered != a.used.all()[0]
	if !moved && a.Now().Sub(a.used.Learnt) < learnEvery {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, learnTimeout)
	defer cancel()
	hosts, err := managerHosts(ctx, a.client)
	if err != nil {
		return
	}
	_ = a.changeConfig(func(c *config) error {
		if x := c.find(a.used.Name); x != nil { // somebody may have removed it
			x.Answered, x.Managers, x.Learnt = answered, hosts, a.Now().UTC().Truncate(time.Second)
		}
		return nil
	})
}

// managerHosts are where the swarm's managers listen, those that answer first.
func managerHosts(ctx context.Context, c *client.Client) ([]string, error) {
	members, err := client.List(ctx, c, v1.Members, nil)
	if err != nil {
		return nil, daemonError(err)
	}
	slices.SortFunc(members, func(x, y *v1.Member) int {
		return strings.Compare(x.Meta.ID, y.Meta.ID)
	})
	var near, far []string
	for _, m := range members {
		switch {
		case m.Status == nil || m.Status.Addr == "":
		case m.Status.Reachable:
			near = append(near, m.Status.Addr)
		default:
			far = append(far, m.Status.Addr)
		}
	}
	return append(near, far...), nil
}

// errNoTerminal says that there is nobody to ask.
var errNoTerminal = errors.New("standard input is no terminal")

// askTerminal asks the person at in, if in is a terminal.
func askTerminal(in io.Reader, out io.Writer, question string, secret bool) (string, error) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", errNoTerminal
	}
	fmt.Fprint(out, question)
	if !secret {
		answer, err := bufio.NewReader(f).ReadString('\n')
		return strings.TrimSpace(answer), err
	}
	answer, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(out)
	return strings.TrimSpace(string(answer)), err
}

// maxSecretLine bounds a key or token on standard input, in bytes.
const maxSecretLine = 4096

// readSecret asks for a key or token, or reads the first line of standard input where nobody can be asked.
func (a *app) readSecret(question, what string) (string, error) {
	text, err := a.Ask(question, true)
	if errors.Is(err, errNoTerminal) {
		text, err = bufio.NewReader(io.LimitReader(a.In, maxSecretLine)).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("read the %s: %w", what, err)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", fmt.Errorf("no %s was given: type it when asked, or write it to standard input", what)
	}
	return text, nil
}
