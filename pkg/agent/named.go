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
	for id, n := range a.peers.networks {
		all[id] = n.Name
	}
	for id, t := range a.tasks {
		if t.assigned != nil {
			all[id] = v1.TaskName(t.assigned.Desired)
		}
	}
	return all
}

// named is a sentence with names in the place of IDs that it mentions.
func named(text string, names map[string]string) string {
	return mentioned.ReplaceAllStringFunc(text, func(mention string) string {
		what, id, _ := strings.Cut(mention, " ")
		if name := names[id]; name != "" {
			return what + " " + name
		}
		return mention
	})
}
