package agent

import (
	"regexp"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// The network knows what it links by IDs; people know names.

// mentioned is how a sentence of the network's mentions something by its ID.
var mentioned = regexp.MustCompile(`\b(network|task|attachment) [0-9a-z]{25}\b`)

// names are those of networks and of this node's tasks, by ID.
func (a *Agent) names() map[string]string {
	all := make(map[string]string, len(a.tasks)+len(a.peers.networks))
	for id := range a.peers.networks {
		all[id] = a.name(id)
	}
	for id := range a.tasks {
		all[id] = a.name(id)
	}
	return all
}

// name is that of a network or of one of this node's tasks; "" where there is none.
func (a *Agent) name(id string) string {
	if n := a.peers.networks[id]; n != nil {
		return n.Name
	}
	if t := a.tasks[id]; t != nil && t.assigned != nil {
		return v1.TaskName(t.assigned.Desired)
	}
	return ""
}

// named is a sentence with names in the place of IDs that it mentions.
func named(text string, name func(id string) string) string {
	return mentioned.ReplaceAllStringFunc(text, func(mention string) string {
		what, id, _ := strings.Cut(mention, " ")
		if name := name(id); name != "" {
			return what + " " + name
		}
		return mention
	})
}
