package compose

import (
	"slices"
	"strings"
)

// fate is what becomes of a key of a compose file.
type fate int

const (
	// honoured: it becomes part of an object, or has nothing to change.
	honoured fate = iota
	// refused: it is an error, or, where the user wants that, left out with a warning.
	refused
	// firm: refused in any case. Leaving it out would run something else than the file says, or open more than it says.
	firm
)

// key is one key of the compose specification, or all those below a name that users choose.
type key struct {
	// path has * for a name that users choose, and [] for an entry of a list. What is below a refused key is refused with it.
	path string
	fate fate
	// note says what becomes of a key that is honoured, where that is not plain, and what to do instead of one that is refused.
	note string
	// open tells that users choose whatever is below, as in labels.
	open bool
}

// keys are all keys of the compose specification, as far as compose-go knows them. A key that is not in the list is refused.
var keys = slices.Concat([]key{
	{path: "name", note: "the name on the command line counts, as with Compose's `--project-name`"},
	{path: "version", note: "means nothing since Compose's version 2"},
	{path: "include", fate: firm, note: "give the files to --compose-file, in this order"},
	{path: "jobs", fate: firm, note: "write a service with deploy.mode: replicated-job"},
	{path: "models", fate: refused, note: "a swarm runs no models: run the model's server as a service"},
	{path: "services"},
	{path: "services.*"},
}, serviceKeys, deployKeys, objectKeys)

// objectKeys are those of what services use.
var objectKeys = []key{
	{path: "networks"},
	{path: "networks.*"},
	{path: "networks.*.name", note: "the network's whole name, without the stack's before it"},
	{path: "networks.*.driver", note: "`overlay`"},
	{path: "networks.*.driver_opts", open: true},
	{path: "networks.*.external", note: "a network that is there already; it is neither changed nor removed"},
	{path: "networks.*.internal"},
	{path: "networks.*.attachable"},
	{path: "networks.*.labels", open: true},
	{path: "networks.*.enable_ipv4", fate: refused, note: "networks without IPv4 are not there yet: leave it out"},
	{path: "networks.*.enable_ipv6"},
	{path: "networks.*.ipam"},
	{path: "networks.*.ipam.driver", note: "`default`"},
	{path: "networks.*.ipam.config"},
	{path: "networks.*.ipam.config[].subnet"},
	{path: "networks.*.ipam.config[].gateway"},
	{path: "networks.*.ipam.config[].ip_range"},
	{path: "networks.*.ipam.config[].aux_addresses", fate: refused, note: "choose an ip_range without the addresses that are taken"},
	{path: "networks.*.ipam.options", fate: refused, note: "the swarm gives addresses itself: leave it out"},
	{path: "volumes"},
	{path: "volumes.*"},
	{path: "volumes.*.name", note: "the volume's whole name, without the stack's before it"},
	{path: "volumes.*.driver"},
	{path: "volumes.*.driver_opts", open: true},
	{path: "volumes.*.external", note: "its name is used as it is"},
	{path: "volumes.*.labels", open: true},
	{path: "secrets"},
	{path: "secrets.*"},
	{path: "secrets.*.name", note: "the secret's whole name: a changed content needs another one"},
	{path: "secrets.*.file"},
	{path: "secrets.*.environment", note: "the variable that holds the content"},
	{path: "secrets.*.content", fate: firm, note: "put the content into a file, or a variable, that the compose file names"},
	{path: "secrets.*.external", note: "a secret that is there already; it is neither changed nor removed"},
	{path: "secrets.*.labels", open: true},
	{path: "secrets.*.driver"},
	{path: "secrets.*.driver_opts", open: true},
	{path: "secrets.*.template_driver"},
	{path: "configs"},
	{path: "configs.*"},
	{path: "configs.*.name", note: "the config's whole name: a changed content needs another one"},
	{path: "configs.*.file"},
	{path: "configs.*.environment", note: "the variable that holds the content"},
	{path: "configs.*.content"},
	{path: "configs.*.driver", fate: firm, note: "configs have no drivers: write file, environment or content"},
	{path: "configs.*.driver_opts", fate: firm, note: "configs have no drivers: write file, environment or content"},
	{path: "configs.*.external", note: "a config that is there already; it is neither changed nor removed"},
	{path: "configs.*.labels", open: true},
	{path: "configs.*.template_driver"},
}

// byPath finds a key.
var byPath = func() map[string]key {
	m := make(map[string]key, len(keys))
	for _, k := range keys {
		m[k.path] = k
	}
	return m
}()

// named tells whether the names below a path are the user's, each with keys of its own.
func named(path string) bool {
	_, ok := byPath[path+".*"]
	return ok
}

// extension tells whether a key is the user's own, which the specification leaves alone.
func extension(name string) bool { return strings.HasPrefix(name, "x-") }
