package v1

import (
	"fmt"
	"strconv"
	"time"
)

// TaskState is where a task is in its life. States are ordered, and an observed state only ever moves forward. The
// numbers are Docker Swarm's.
type TaskState uint16

// The task states, in order.
const (
	TaskNew       TaskState = 0   // created by the service rule
	TaskPending   TaskState = 64  // waits for the scheduler
	TaskAssigned  TaskState = 192 // a node was chosen
	TaskAccepted  TaskState = 256 // the node's agent knows
	TaskPreparing TaskState = 320 // pulling, creating
	TaskReady     TaskState = 384 // prepared; waits until it is desired to run
	TaskStarting  TaskState = 448 // started; waits to be healthy
	TaskRunning   TaskState = 512
	TaskComplete  TaskState = 576 // ended with exit code 0
	TaskShutdown  TaskState = 640 // stopped because that was desired
	TaskFailed    TaskState = 704 // ended with an error once it was starting
	TaskRejected  TaskState = 768 // could not be started
	TaskRemove    TaskState = 800 // only desired: stop and forget
	TaskOrphaned  TaskState = 832 // its node is gone for too long
)

var taskStateNames = map[TaskState]string{
	TaskNew: "new", TaskPending: "pending", TaskAssigned: "assigned", TaskAccepted: "accepted",
	TaskPreparing: "preparing", TaskReady: "ready", TaskStarting: "starting", TaskRunning: "running",
	TaskComplete: "complete", TaskShutdown: "shutdown", TaskFailed: "failed", TaskRejected: "rejected",
	TaskRemove: "remove", TaskOrphaned: "orphaned",
}

var taskStates = func() map[string]TaskState {
	m := make(map[string]TaskState, len(taskStateNames))
	for s, name := range taskStateNames {
		m[name] = s
	}
	return m
}()

// String is Docker's name of the state.
func (s TaskState) String() string {
	if name, ok := taskStateNames[s]; ok {
		return name
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// ParseTaskState is the inverse of String.
func ParseTaskState(name string) (TaskState, bool) {
	s, ok := taskStates[name]
	return s, ok
}

// MarshalText writes the state's name.
func (s TaskState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state's name.
func (s *TaskState) UnmarshalText(text []byte) error {
	state, ok := taskStates[string(text)]
	if !ok {
		return fmt.Errorf("%q is not a task state", text)
	}
	*s = state
	return nil
}

// Terminal tells whether a task that was observed in this state will never run again.
func (s TaskState) Terminal() bool { return s > TaskRunning }

// TaskDesired is what the rules decided about a task. Its writer is the leader; the service rule decides all but the
// networks, which are the address rule's, and the placement, which is the scheduler's.
type TaskDesired struct {
	// Service is the ID of the service, or of the Attachment.
	Service string `json:"service"`
	// ServiceName is kept for people, and for what outlives the service.
	ServiceName string `json:"serviceName"`
	// Slot is the replica's number from 1; of a global service, it is the index of Node.
	Slot uint64 `json:"slot,omitempty"`
	// Node is where a task of a global service is to run: it is made for that node.
	Node string `json:"node,omitempty"`
	// Attempt numbers the tasks of a slot, from 1. The task's ID is TaskID of service, slot and attempt.
	Attempt uint64 `json:"attempt"`
	// Iteration is the service's generation that a job's task was made for: a job that changes begins anew. 0 where it is no job.
	Iteration uint64 `json:"iteration,omitempty"`
	// Revision is the ID of the ServiceRevision that the task runs.
	Revision string `json:"revision"`
	// State is the state that the task should reach: ready, running, complete, shutdown or remove. It never goes back.
	State TaskState `json:"state"`
	// StartAfter holds a ready task back until then: the restart delay.
	StartAfter time.Time `json:"startAfter,omitzero"`
	// Restarts is the slot's record of failures, which the restart delay and max attempts go by.
	Restarts *Restarts `json:"restarts,omitempty"`
	// Networks are the task's addresses on overlay networks, in the order of its spec. The task holds them until it is observed to
	// have ended.
	Networks []NetworkAddress `json:"networks,omitempty"`
	// Placement is where the task runs; nil until the scheduler found a node.
	Placement *TaskPlacement `json:"placement,omitempty"`
	// Pending is why there are no addresses, or no node, yet, for the user to read.
	Pending string `json:"pending,omitempty"`
	// Behind is the ID of the task of the slot that holds what this one needs: no node takes both, and its own takes this one once
	// that has stopped; or a network has no address for both. It is of who writes Pending, and stays.
	Behind string `json:"behind,omitempty"`
	// Reason is why the rules stop a task that the user did not ask to stop, for the user to read.
	Reason string `json:"reason,omitempty"`
	// Attachment is what a task is for that is of an Attachment: it has no service, no revision and no container.
	Attachment *TaskAttachment `json:"attachment,omitempty"`
	// Better is the ID of a node that came to take tasks after this one was placed, and that the scheduler would rather have it on: of
	// services that rebalance.
	Better string `json:"better,omitempty"`
	// Move is of a task that is to take over from one that runs elsewhere, so that the service is balanced; nil once it has. A task that
	// is to stop and still has it never took over.
	Move *TaskMove `json:"move,omitempty"`
	// RefitAt is when the task was last told to have the secrets and configs of Revision as it is; zero where it was made with them.
	RefitAt time.Time `json:"refitAt,omitzero"`
}

// TaskMove is what a task that is to take over from another is made by.
type TaskMove struct {
	// Node is where it is to run, and nowhere else.
	Node string `json:"node"`
	// Tries counts those that were made in the slot for that node since it last came, this one included.
	Tries uint32 `json:"tries"`
}

// Restarts is what a slot remembers of its earlier tasks at the same revision.
type Restarts struct {
	// Failures in a row, which the exponential delay goes by.
	Failures uint32 `json:"failures,omitempty"`
	// Times of the replacements that still count towards max attempts; kept only where those are bounded, and no longer
	// than that bound.
	Times []time.Time `json:"times,omitempty"`
	// Recent are the slot's latest failures and where they were, at most MaxRecentFailures, which the scheduler avoids
	// nodes by.
	Recent []Failure `json:"recent,omitempty"`
}

// Failure is the end of a task that failed or was rejected.
type Failure struct {
	Node string `json:"node"`
	// At is when the rules learnt of it.
	At time.Time `json:"at"`
}

// MaxRecentFailures bounds Restarts.Recent.
const MaxRecentFailures = 10

// TaskPlacement is the node that a task was given, and what was set aside there.
type TaskPlacement struct {
	Node string `json:"node"`
	// At is when the scheduler decided.
	At     time.Time `json:"at,omitzero"`
	CPUs   CPUs      `json:"cpus,omitempty"`
	Memory Bytes     `json:"memory,omitempty"`
	// Generic are the generic resources that were set aside: those that have names by these.
	Generic []GenericResource `json:"generic,omitempty"`
	// HostPorts are the ports published in host mode, each like "tcp/8080".
	HostPorts []string `json:"hostPorts,omitempty"`
}

// TaskStatus is what a node's agent observed of a task.
type TaskStatus struct {
	State TaskState `json:"state"`
	// At is when the task entered the state.
	At      time.Time `json:"at,omitzero"`
	Message string    `json:"message,omitempty"`
	// Err is why the task failed or was rejected, for the user to read.
	Err       string           `json:"err,omitempty"`
	Container *ContainerStatus `json:"container,omitempty"`
	// Address is the task's gateway address, through which published ports and the outside are reached.
	Address string `json:"address,omitempty"`
	// Ports are the host mode ports as they were bound.
	Ports []PortConfig `json:"ports,omitempty"`
	// Alone tells of the restarts that no manager decided on; nil if there were none.
	Alone *AloneRestarts `json:"alone,omitempty"`
	// Ran is how long the task was running before it ended, by its node's clock; 0 if it never was. Nil before the end,
	// and where the agent does not know.
	Ran *Duration `json:"ran,omitempty"`
	// Unhealthy tells that the health check failed for good: the task takes no new connections, and is being stopped.
	Unhealthy bool `json:"unhealthy,omitempty"`
	// Refit is what came of the latest change of secrets and configs under the task; nil where there was none.
	Refit *TaskRefit `json:"refit,omitempty"`
}

// TaskRefit is what came of telling a task to have other secrets and configs.
type TaskRefit struct {
	// At is the TaskDesired.RefitAt that this is the answer to.
	At time.Time `json:"at"`
	// Err is why it has not got them, or its process was not told, for the user to read.
	Err string `json:"err,omitempty"`
}

// AloneRestarts are the restarts of a task's container in place, which its node's agent does by the service's restart policy while
// no manager can be reached.
type AloneRestarts struct {
	// Count is how many there were, Failures how many of the latest in a row followed a failure, which the delay goes by.
	Count    uint32 `json:"count"`
	Failures uint32 `json:"failures,omitempty"`
	// At is when the latest was, and Last how the container before it had ended.
	At   time.Time `json:"at,omitzero"`
	Last string    `json:"last,omitempty"`
	// Times are those that still count towards max attempts; kept only where these are bounded, and no longer than that bound.
	Times []time.Time `json:"times,omitempty"`
}

// ContainerStatus is what is known of a task's container.
type ContainerStatus struct {
	ID        string `json:"id,omitempty"`
	PID       uint32 `json:"pid,omitempty"`
	ExitCode  *int   `json:"exitCode,omitempty"`
	OOMKilled bool   `json:"oomKilled,omitempty"`
}

// TaskID is the ID of a slot's task number attempt.
func TaskID(service, slot string, attempt uint64) string {
	return HashID("task", service, slot, strconv.FormatUint(attempt, 10))
}

// TaskName is the name people know a task by, such as "web.1"; for a global service the node's ID stands for the slot.
// An attachment's is its own.
func TaskName(d *TaskDesired) string {
	if d.Attachment != nil {
		return d.ServiceName
	}
	return d.ServiceName + "." + SlotName(d)
}

// SlotName tells a service's slots apart for people: the number of the replica, or the ID of the node that it is for.
func SlotName(d *TaskDesired) string {
	if d.Node != "" {
		return d.Node
	}
	return strconv.FormatUint(d.Slot, 10)
}

// ContainerName is the name of a task's container, such as "web.1.<task ID>".
func ContainerName(t *Task) string { return TaskName(t.Desired) + "." + t.Meta.ID }

// TaskNode is the ID of the node that a task was given, or "".
func TaskNode(t *Task) string {
	if t.Desired == nil || t.Desired.Placement == nil {
		return ""
	}
	return t.Desired.Placement.Node
}

// Observed is the state that a task is in: the agent's word where there is one, and before that what the rules decided.
func Observed(t *Task) TaskState {
	switch {
	case t.Status != nil:
		return t.Status.State
	case t.Desired == nil:
		return TaskNew
	case t.Desired.Placement != nil:
		return TaskAssigned
	case t.Desired.State > TaskComplete:
		return TaskShutdown // nothing to stop
	default:
		return TaskPending
	}
}

// Live tells whether a task runs or will: it is desired to, and has not ended.
func Live(t *Task) bool { return t.Desired.State <= TaskComplete && !Observed(t).Terminal() }

// Serves tells whether a task takes new connections: it runs, is healthy, and is not to stop.
func Serves(t *Task) bool {
	return t.Desired.State <= TaskComplete && Observed(t) == TaskRunning && !t.Status.Unhealthy
}

// Refitting tells whether a task was told to have other secrets and configs, and its node has not said yet what came of it.
func Refitting(t *Task) bool {
	at := t.Desired.RefitAt
	return !at.IsZero() && (t.Status == nil || t.Status.Refit == nil || !t.Status.Refit.At.Equal(at))
}

// Unfit is why a task has not got the secrets and configs that it was told to have; "" where it has, or may have yet.
func Unfit(t *Task) string {
	if t.Desired.RefitAt.IsZero() || Refitting(t) {
		return ""
	}
	return t.Status.Refit.Err
}

// HoldsPlacement tells whether a placed task still holds what was set aside for it on its node: until it is observed to
// have ended.
func HoldsPlacement(t *Task) bool { return TaskNode(t) != "" && !Observed(t).Terminal() }

// WaitsForNode tells whether the scheduler owes the task a node.
func WaitsForNode(t *Task) bool { return TaskNode(t) == "" && t.Desired.State <= TaskComplete }
