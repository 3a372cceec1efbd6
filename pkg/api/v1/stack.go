package v1

import "strings"

// Labels of what belongs to a stack; the first is Docker's.
const (
	// LabelStack is on everything, also on containers and volumes; its value is the stack's name.
	LabelStack = "com.docker.stack.namespace"
	// LabelStackKey is on secrets and configs: their name in the file, which all their versions have in common.
	LabelStackKey = "swarm.stack.key"
	// LabelStackVersion is on secrets and configs: what tells this content from others.
	LabelStackVersion = "swarm.stack.version"
)

// StackVersion is the stack and the key of a secret or config that stack deploy named by its content; "" where it was made or named by
// hand.
func StackVersion(m *Meta) (stack, key string) {
	stack, key = m.Labels[LabelStack], m.Labels[LabelStackKey]
	version := m.Labels[LabelStackVersion]
	if stack == "" || key == "" || version == "" || !strings.HasPrefix(m.Name, stack+"_") || !strings.HasSuffix(m.Name, "_"+version) {
		return "", ""
	}
	return stack, key
}
