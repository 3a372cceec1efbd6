package v1

import "time"

// Event tells that an object was made, changed or removed, in the words of Docker's events.
type Event struct {
	// Type is the kind in small letters: service, task, node, network, secret, config, volume.
	Type string `json:"type"`
	// Action is create, update or remove.
	Action string `json:"action"`
	ID     string `json:"id"`
	// Attributes hold name and what changed, such as replicas.old and replicas.new.
	Attributes map[string]string `json:"attributes,omitempty"`
	Time       time.Time         `json:"time"`
	Revision   int64             `json:"revision"`
}
