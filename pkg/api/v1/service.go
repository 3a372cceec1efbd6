package v1

import (
	"encoding/json"
	"time"
)

// ServiceSpec is what the user wants of a service. Pointers tell "not given" from zero; Default fills them in.
type ServiceSpec struct {
	// Mode says what tasks the service consists of; default replicated.
	Mode ServiceMode `json:"mode,omitempty"`
	// Replicas is the number of tasks of a replicated service (default 1), or the total of completions of a replicated job.
	Replicas *uint64 `json:"replicas,omitempty"`
	// MaxConcurrent bounds the live tasks of a replicated job; default Replicas.
	MaxConcurrent *uint64 `json:"maxConcurrent,omitempty"`
	// Schedule is when a service of mode cron runs.
	Schedule *Schedule `json:"schedule,omitempty"`
	// Task is what each task runs, with which resources, where.
	Task TaskSpec `json:"task"`
	// Update says how a change of Task or Endpoint rolls out.
	Update *UpdateConfig `json:"update,omitempty"`
	// Rollback says how a return to an earlier revision rolls out.
	Rollback *UpdateConfig `json:"rollback,omitempty"`
	// RollbackTo is the ID of the revision that service rollback went back to: moving to that one is a rollback. For any other
	// it means nothing.
	RollbackTo string `json:"rollbackTo,omitempty"`
	// Endpoint says how the service is reached.
	Endpoint *EndpointSpec `json:"endpoint,omitempty"`
	// DependsOn are the services that have to be there before the first task of this one is given a node. It is no part of a revision.
	DependsOn []Dependency `json:"dependsOn,omitempty"`
}

// ServiceMode says what tasks a service consists of.
type ServiceMode string

// The service modes.
const (
	ModeReplicated    ServiceMode = "replicated"
	ModeGlobal        ServiceMode = "global"
	ModeReplicatedJob ServiceMode = "replicated-job"
	ModeGlobalJob     ServiceMode = "global-job"
)

// TaskSpec is what each task of a service runs. A change of it rolls out as new tasks.
type TaskSpec struct {
	Container     ContainerSpec       `json:"container"`
	Resources     *Resources          `json:"resources,omitempty"`
	RestartPolicy *RestartPolicy      `json:"restartPolicy,omitempty"`
	Placement     *Placement          `json:"placement,omitempty"`
	Networks      []NetworkAttachment `json:"networks,omitempty"`
	LogDriver     *Driver             `json:"logDriver,omitempty"`
	// ForceUpdate makes every task out of date when it changes.
	ForceUpdate uint64 `json:"forceUpdate,omitempty"`
}

// Driver names a driver and its options.
type Driver struct {
	Name    string            `json:"name,omitempty"`
	Options map[string]string `json:"options,omitempty"`
}

// NetworkAttachment attaches each task to a network.
type NetworkAttachment struct {
	// Target is the network's name or ID.
	Target     string            `json:"target"`
	Aliases    []string          `json:"aliases,omitempty"`
	DriverOpts map[string]string `json:"driverOpts,omitempty"`
}

// Resources are what a task may use at most (Limits), and what the scheduler sets aside for it (Reservations).
type Resources struct {
	Limits       *ResourceLimits `json:"limits,omitempty"`
	Reservations *Reservations   `json:"reservations,omitempty"`
	// MemorySwap is the memory and swap together that a task may use, beyond its limit of memory; -1 is unlimited.
	MemorySwap *Bytes `json:"memorySwap,omitempty"`
	// MemorySwappiness is 0 to 100.
	MemorySwappiness *int64 `json:"memorySwappiness,omitempty"`
}

// ResourceLimits bound a task. Zero is no limit.
type ResourceLimits struct {
	// CPUs is at least 0.001.
	CPUs CPUs `json:"cpus,omitempty"`
	// Memory is at least 4 MiB.
	Memory Bytes `json:"memory,omitempty"`
	PIDs   int64 `json:"pids,omitempty"`
}

// Reservations are subtracted from a node's resources while a task is placed there.
type Reservations struct {
	CPUs    CPUs              `json:"cpus,omitempty"`
	Memory  Bytes             `json:"memory,omitempty"`
	Generic []GenericResource `json:"generic,omitempty"`
}

// GenericResource is a countable thing of a node, such as a GPU: Kind with either a Value (named) or a Count (discrete).
type GenericResource struct {
	Kind  string `json:"kind"`
	Value string `json:"value,omitempty"`
	Count int64  `json:"count,omitempty"`
}

// RestartPolicy says whether and when a task that ended is replaced.
type RestartPolicy struct {
	Condition RestartCondition `json:"condition,omitempty"`
	// Delay is before the first replacement; default 5 s. It doubles with each failure in a row, to at most five minutes.
	Delay *Duration `json:"delay,omitempty"`
	// MaxAttempts bounds the replacements in a slot; 0 is no bound.
	MaxAttempts uint64 `json:"maxAttempts,omitempty"`
	// Window is how far back replacements count towards MaxAttempts; 0 is for ever.
	Window Duration `json:"window,omitempty"`
}

// RestartCondition says which ends of a task call for a replacement.
type RestartCondition string

// The restart conditions.
const (
	RestartAny       RestartCondition = "any"
	RestartOnFailure RestartCondition = "on-failure"
	RestartNone      RestartCondition = "none"
)

// Placement says which nodes may run a task, and which are preferred.
type Placement struct {
	// Constraints all have to hold, each like node.labels.zone==east; see ParseConstraint.
	Constraints []string              `json:"constraints,omitempty"`
	Preferences []PlacementPreference `json:"preferences,omitempty"`
	// MaxReplicas bounds the tasks of the service on one node; 0 is no bound.
	MaxReplicas uint64 `json:"maxReplicas,omitempty"`
	// Platforms are those that the image runs on; empty is any.
	Platforms []Platform `json:"platforms,omitempty"`
	// Rebalance says whether tasks that run move to nodes that come to take tasks; default off. It is for mode replicated.
	Rebalance Rebalance `json:"rebalance,omitempty"`
}

// Rebalance says when the tasks of a service that run are spread anew.
type Rebalance string

// When tasks are spread anew.
const (
	RebalanceOff    Rebalance = "off"
	RebalanceOnJoin Rebalance = "on-join"
)

// UnmarshalJSON reads the word, and what YAML 1.1 takes off for.
func (r *Rebalance) UnmarshalJSON(data []byte) error {
	if string(data) == "false" {
		*r = RebalanceOff
		return nil
	}
	return json.Unmarshal(data, (*string)(r))
}

// PlacementPreference spreads tasks evenly over the values of a label, such as node.labels.zone.
type PlacementPreference struct {
	Spread string `json:"spread"`
}

// Platform is a kind of machine; an empty field matches any.
type Platform struct {
	Architecture string `json:"architecture,omitempty"`
	OS           string `json:"os,omitempty"`
}

// UpdateConfig says how a change rolls out over the slots of a service.
type UpdateConfig struct {
	// Parallelism is how many slots change at once; 0 is all; default 1.
	Parallelism *uint64 `json:"parallelism,omitempty"`
	// Delay is between one slot and the next.
	Delay         Duration      `json:"delay,omitempty"`
	FailureAction FailureAction `json:"failureAction,omitempty"`
	// Monitor is how long after it started a task's failure counts against the update; default 5 s.
	Monitor *Duration `json:"monitor,omitempty"`
	// MaxFailureRatio of the slots may fail before FailureAction is taken, 0 to 1.
	MaxFailureRatio float64     `json:"maxFailureRatio,omitempty"`
	Order           UpdateOrder `json:"order,omitempty"`
	// ProgressDeadline is how long an update may go without a slot getting on before it has failed; 0 is for ever; default 10 min.
	ProgressDeadline *Duration `json:"progressDeadline,omitempty"`
}

// FailureAction is what happens to an update of which too much fails.
type FailureAction string

// The failure actions.
const (
	FailurePause    FailureAction = "pause"
	FailureContinue FailureAction = "continue"
	FailureRollback FailureAction = "rollback"
)

// UpdateOrder says whether the old task of a slot stops before the new one starts.
type UpdateOrder string

// The update orders.
const (
	StopFirst  UpdateOrder = "stop-first"
	StartFirst UpdateOrder = "start-first"
)

// EndpointSpec says how a service is reached.
type EndpointSpec struct {
	// Mode is vip (default) or dnsrr.
	Mode  EndpointMode `json:"mode,omitempty"`
	Ports []PortConfig `json:"ports,omitempty"`
}

// EndpointMode says what the service's name resolves to.
type EndpointMode string

// The endpoint modes.
const (
	EndpointVIP   EndpointMode = "vip"
	EndpointDNSRR EndpointMode = "dnsrr"
)

// PortConfig publishes a port of the service's tasks.
type PortConfig struct {
	Name     string   `json:"name,omitempty"`
	Protocol Protocol `json:"protocol,omitempty"`
	// Target is the port in the container.
	Target uint16 `json:"target"`
	// Published is the port on the nodes; 0 asks for a free one (30000–32767).
	Published uint16 `json:"published,omitempty"`
	// Mode is ingress (every node answers; default) or host (only nodes that run a task).
	Mode PublishMode `json:"mode,omitempty"`
	// HostIP is where a node answers: at one of its addresses, or those of a range such as 10.0.0.0/8. 0.0.0.0 are all of IPv4, :: all of
	// IPv6, and empty is all of both.
	HostIP string `json:"hostIP,omitempty"`
	// Interface has a node answer to what comes in by the network interface of that name alone; not together with HostIP.
	Interface string `json:"interface,omitempty"`
}

// Protocol is a transport protocol.
type Protocol string

// The protocols.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	SCTP Protocol = "sctp"
)

// PublishMode says on which nodes a published port answers.
type PublishMode string

// The publish modes.
const (
	PublishIngress PublishMode = "ingress"
	PublishHost    PublishMode = "host"
)

// ServiceDesired is what the rules decided about a service.
type ServiceDesired struct {
	// Update is the state of the latest rollout; nil until the first.
	Update *UpdateStatus `json:"update,omitempty"`
	// RolledBack is what the tasks are instead of what the spec asks for, because that failed; see Effective.
	RolledBack *RolledBack `json:"rolledBack,omitempty"`
	// Ports are all published ports, with those that were asked for as "any" filled in; nil where none was. See PublishedPorts.
	Ports []PortConfig `json:"ports,omitempty"`
	// VIPs are the service's virtual addresses, one entry for each network that it is on, without addresses where none is free; no
	// entries in the endpoint mode dnsrr. The service holds them until it is gone.
	VIPs []NetworkAddress `json:"vips,omitempty"`
	// Attempts is the highest attempt that any slot without tasks ever had: every next task is numbered above it, so that
	// no task ID is used twice while the service lives.
	Attempts uint64 `json:"attempts,omitempty"`
	// Cron is where the schedule of a service of mode cron stands.
	Cron *CronStatus `json:"cron,omitempty"`
}

// RolledBack is an earlier revision that stands for what the spec asks for, for as long as that is the revision that failed.
type RolledBack struct {
	// From is the ID of the revision that failed.
	From     string        `json:"from"`
	Task     TaskSpec      `json:"task"`
	Endpoint *EndpointSpec `json:"endpoint,omitempty"`
}

// UpdateState is where a rollout stands, in Docker's words.
type UpdateState string

// The update states.
const (
	UpdateUpdating          UpdateState = "updating"
	UpdatePaused            UpdateState = "paused"
	UpdateCompleted         UpdateState = "completed"
	UpdateRollbackStarted   UpdateState = "rollback_started"
	UpdateRollbackPaused    UpdateState = "rollback_paused"
	UpdateRollbackCompleted UpdateState = "rollback_completed"
)

// UpdateStatus is the state of a rollout. It is all there is to know: a new leader continues by reading it.
type UpdateStatus struct {
	State UpdateState `json:"state"`
	// Revision is the ServiceRevision that the rollout leads to.
	Revision string `json:"revision"`
	// Previous is the revision that a rollback goes to: the last other one of Good, however often the spec changed since. Empty where
	// there is none, and after a rollback by failure.
	Previous string `json:"previous,omitempty"`
	// Good are the revisions that rollouts were completed with when this one began, and the one that ran before the first, the latest
	// in front; at most MaxUpdateGood.
	Good        []string  `json:"good,omitempty"`
	StartedAt   time.Time `json:"startedAt,omitzero"`
	CompletedAt time.Time `json:"completedAt,omitzero"`
	Message     string    `json:"message,omitempty"`
	// Generation is the service's when the rollout began or was last resumed: a later one resumes what is paused.
	Generation uint64 `json:"generation,omitempty"`
	// Dirty is the number of slots that were out of date when the rollout began; the failure ratio is of it.
	Dirty uint64 `json:"dirty,omitempty"`
	// Admitted is the highest slot number that may move to Revision: slots move in ascending order, and those above stay
	// at what they run. UpdateEverySlot once all may.
	Admitted uint64 `json:"admitted,omitempty"`
	// AdmittedAt is when Admitted last grew.
	AdmittedAt time.Time `json:"admittedAt,omitzero"`
	// SettledAt is when all admitted slots were first seen running or failed; zero while one is on its way. The delay
	// between slots and the last monitoring count from it.
	SettledAt time.Time `json:"settledAt,omitzero"`
	// ProgressAt is when a slot was last seen to get on, and Moving how many were on their way then. It is written no more often
	// than ten times in a deadline, where nothing else is.
	ProgressAt time.Time `json:"progressAt,omitzero"`
	Moving     uint64    `json:"moving,omitempty"`
	// Failures counts the tasks whose failure counts against the rollout; Failed are the IDs of the latest, at most
	// MaxUpdateFailed.
	Failures uint64   `json:"failures,omitempty"`
	Failed   []string `json:"failed,omitempty"`
}

// UpdateEverySlot is the UpdateStatus.Admitted that lets every slot move. It is above every slot's number, and the largest
// integer that all readers of JSON hold exactly: many keep numbers as float64.
const UpdateEverySlot = 1<<53 - 1

// MaxUpdateFailed bounds UpdateStatus.Failed.
const MaxUpdateFailed = 10

// MaxUpdateGood bounds UpdateStatus.Good: each of them is kept, beside the latest revisions.
const MaxUpdateGood = 5

// ServiceRevisionSpec is one version of what a service's tasks run. Revisions never change; tasks refer to them by ID.
type ServiceRevisionSpec struct {
	Service  string        `json:"service"`
	Task     TaskSpec      `json:"task"`
	Endpoint *EndpointSpec `json:"endpoint,omitempty"`
	// Number is the service's generation that first had this revision.
	Number uint64 `json:"number"`
}

// RevisionID is the ID of the revision that a service's current spec asks for. Equal content has an equal ID, so that
// going back to what ran before finds the tasks that still run it in order.
func RevisionID(s *Service) string {
	content, err := json.Marshal(struct {
		Task     *TaskSpec
		Endpoint *EndpointSpec
	}{&s.Spec.Task, s.Spec.Endpoint})
	if err != nil {
		panic("v1: a service spec that cannot be written as JSON: " + err.Error()) // NaN only, which validation refuses
	}
	return HashID("revision", s.Meta.ID, string(content))
}
