package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// Where the contexts are.
const (
	// ConfigEnv names the environment variable with the path of the file of contexts, ~/.swarm/config.yaml without it.
	ConfigEnv = "SWARM_CONFIG"
	// ContextEnv names the environment variable that picks a context where --context is not given.
	ContextEnv = "SWARM_CONTEXT"
	// localContext is the daemon of this machine, which needs no entry in the file.
	localContext = "default"
	maxConfig    = 4 << 20 // bytes
	maxContexts  = 1000
	maxHosts     = 100 // of one context
)

// config is the file of contexts. It holds keys and tokens: only its owner may read it.
type config struct {
	path string
	// Current is the context that commands speak to; empty for the daemon of this machine.
	Current  string          `json:"current,omitempty"`
	Contexts []*swarmContext `json:"contexts"`
}

// swarmContext is a swarm that somebody logged in to: where it is, what proves that it is the one, and what proves who asks.
type swarmContext struct {
	Name string `json:"name"`
	User string `json:"user,omitempty"`
	// Hosts are host:port of managers, as they were given; they stay.
	Hosts []string `json:"hosts"`
	// Managers are what the swarm says of its managers' addresses. They are learnt anew from time to time.
	Managers []string  `json:"managers,omitempty"`
	Learnt   time.Time `json:"learnt,omitzero"`
	// Answered is the one that answered last, and is asked first.
	Answered string `json:"answered,omitempty"`
	// Roots are the certificates of the swarm's CA, in PEM.
	Roots string `json:"roots"`
	// Token, or Certificate with Key, in PEM, are the user's.
	Token       string `json:"token,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`
}

// configPath is where the file of contexts is, or should be.
func (a *app) configPath() (string, error) {
	if path := a.Getenv(ConfigEnv); path != "" {
		return path, nil
	}
	home := a.Getenv("HOME")
	if home == "" && runtime.GOOS == "windows" {
		home = a.Getenv("USERPROFILE")
	}
	if home == "" {
		return "", fmt.Errorf("there is no home directory to keep contexts in: set $HOME or $%s", ConfigEnv)
	}
	return filepath.Join(home, ".swarm", "config.yaml"), nil
}

// readConfig reads the file of contexts. One that is not there has none.
func (a *app) readConfig() (*config, error) {
	path, err := a.configPath()
	if err != nil {
		return &config{}, nil //nolint:nilerr // who has no home has no contexts; writing one says so
	}
	return readConfigFile(path)
}

func readConfigFile(path string) (*config, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &config{path: path}, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxConfig:
		return nil, fmt.Errorf("%s is no file of contexts: want a regular file of at most %d bytes", path, maxConfig)
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s holds keys, and others can read or write it (mode %04o): run chmod 600 %[1]s", path, info.Mode().Perm())
	}
	data := make([]byte, info.Size())
	if _, err := file.ReadAt(data, 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return parseConfig(path, data)
}

// parseConfig reads contexts, strictly. Its errors never quote what is inside.
func parseConfig(path string, data []byte) (*config, error) {
	c := &config{path: path}
	if err := yaml.UnmarshalStrict(data, c); err != nil {
		return nil, fmt.Errorf("%s is no file of contexts: want current and contexts, each with name, hosts, roots, and token or certificate and key", path)
	}
	if len(c.Contexts) > maxContexts {
		return nil, fmt.Errorf("%s has %d contexts: want at most %d", path, len(c.Contexts), maxContexts)
	}
	seen := make(map[string]bool)
	for i, x := range c.Contexts {
		if x == nil {
			return nil, fmt.Errorf("%s: contexts[%d] is empty", path, i)
		}
		if err := x.check(); err != nil {
			return nil, fmt.Errorf("%s: contexts[%d]: %w", path, i, err)
		}
		if seen[x.Name] {
			return nil, fmt.Errorf("%s: there are two contexts called %q", path, x.Name)
		}
		seen[x.Name] = true
	}
	return c, nil
}

var contextName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.+-]{0,62}$`)

func checkContextName(name string) error {
	switch {
	case name == localContext:
		return fmt.Errorf("the context %q is this machine's daemon: want another name", name)
	case !contextName.MatchString(name):
		return fmt.Errorf("%q is no name of a context: want up to 63 letters, digits, and . _ + - after the first", name)
	}
	return nil
}

func (x *swarmContext) check() error {
	if err := checkContextName(x.Name); err != nil {
		return err
	}
	if len(x.Hosts) == 0 || len(x.Hosts)+len(x.Managers) > maxHosts {
		return fmt.Errorf("context %q has %d hosts: want 1 to %d", x.Name, len(x.Hosts)+len(x.Managers), maxHosts)
	}
	for _, host := range x.all() {
		if _, _, err := net.SplitHostPort(host); err != nil {
			return fmt.Errorf("context %q: %q is no host: want HOST:PORT", x.Name, host)
		}
	}
	if strings.TrimSpace(x.Roots) == "" {
		return fmt.Errorf("context %q has no roots, so that nothing tells whether a manager is one", x.Name)
	}
	if (x.Certificate == "") != (x.Key == "") {
		return fmt.Errorf("context %q: certificate and key belong together", x.Name)
	}
	return nil
}

// all are the addresses to try, in order.
func (x *swarmContext) all() []string {
	var hosts []string
	for _, host := range slices.Concat([]string{x.Answered}, x.Hosts, x.Managers) {
		if host != "" && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// find is the context of that name, or nil.
func (c *config) find(name string) *swarmContext {
	for _, x := range c.Contexts {
		if x.Name == name {
			return x
		}
	}
	return nil
}

// put adds a context, or replaces that of the same name.
func (c *config) put(x *swarmContext) {
	if i := slices.IndexFunc(c.Contexts, func(y *swarmContext) bool { return y.Name == x.Name }); i >= 0 {
		c.Contexts[i] = x
		return
	}
	c.Contexts = append(c.Contexts, x)
}

// changeConfig lets change work on the contexts and writes them back, all at once, while nobody else does.
func (a *app) changeConfig(change func(*config) error) error {
	path, err := a.configPath()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	defer unlock()
	c, err := readConfigFile(path)
	if err != nil {
		return err
	}
	if err := change(c); err != nil {
		return err
	}
	data, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	return writeFile(path, data, true)
}

// writeFile writes a secret file at once: under another name first, readable for its owner alone. Unless it may replace
// what is there, it refuses to.
func writeFile(path string, data []byte, replace bool) error {
	return writeFileFrom(path, replace, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// writeFileFrom is writeFile for what comes bit by bit. Where write fails, nothing is left.
func writeFileFrom(path string, replace bool, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already where all went well
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	switch {
	case err != nil:
		return err
	case replace:
		return os.Rename(f.Name(), path)
	}
	return renameNew(f.Name(), path)
}

// renameNew gives a file a name that none has. A rename would replace a file that came up in the meantime; a link does not,
// and where links cannot be, the name is taken first.
func renameNew(from, to string) error {
	err := os.Link(from, to)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		var f *os.File
		if f, err = os.OpenFile(to, os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			f.Close()
			err = os.Rename(from, to)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already: it was left as it is", to)
	}
	return err
}
