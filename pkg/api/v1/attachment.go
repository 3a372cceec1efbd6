package v1

import "strings"

// AttachmentSpec is what the user wants on networks that is no task of a service: a network namespace of a node's, which is the user's own.
// The swarm makes a task without a container of it, which ends with the namespace and is never made again.
type AttachmentSpec struct {
	// Node is the ID of the node that the namespace is on; in a manifest also its hostname.
	Node string `json:"node"`
	// Namespace is the path of the namespace's file there, such as /run/netns/blue or /proc/4711/ns/net. A name without a slash is one
	// of "ip netns".
	Namespace string `json:"namespace"`
	// Networks are the IDs of attachable networks; in a manifest also their names.
	Networks []string `json:"networks"`
	// Aliases are the other names, beside the attachment's own, that others on those networks find it by.
	Aliases []string `json:"aliases,omitempty"`
}

// TaskAttachment is what a task is for that has no service and no container.
type TaskAttachment struct {
	// Node is the ID of the node that the namespace is on, and Namespace the path of its file there.
	Node      string `json:"node"`
	Namespace string `json:"namespace"`
	// Networks are the IDs of the networks that it is put on.
	Networks []string `json:"networks"`
	// Aliases are the other names that it is found by.
	Aliases []string `json:"aliases,omitempty"`
}

// AttachmentTask is the ID of the one task that an attachment ever has.
func AttachmentTask(attachment string) string { return TaskID(attachment, "1", 1) }

// NamedNamespaces is where "ip netns" keeps the namespaces that have names.
const NamedNamespaces = "/run/netns/"

// NamespacePath is the path of a namespace that a user names as "ip netns" does, or by its path.
func NamespacePath(ref string) string {
	if ref == "" || strings.Contains(ref, "/") {
		return ref
	}
	return NamedNamespaces + ref
}

// Spec is what a service's task with the same networks would have: all that the rule of addresses goes by.
func (a *TaskAttachment) Spec() *TaskSpec {
	spec := new(TaskSpec)
	for _, network := range a.Networks {
		spec.Networks = append(spec.Networks, NetworkAttachment{Target: network, Aliases: a.Aliases})
	}
	return spec
}
