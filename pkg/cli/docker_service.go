package cli

import "time"

// The types in docker_*.go are the JSON that docker inspect prints, field for field, so that scripts and templates written
// for Docker Swarm read it.

type dockerVersion struct{ Index uint64 }

type dockerMeta struct {
	Version   dockerVersion
	CreatedAt time.Time
	UpdatedAt time.Time
}

type dockerAnnotations struct {
	Name   string            `json:",omitempty"`
	Labels map[string]string `json:"Labels"`
}

type dockerService struct {
	ID string
	dockerMeta
	Spec          dockerServiceSpec
	PreviousSpec  *dockerServiceSpec `json:",omitempty"`
	Endpoint      dockerEndpoint
	UpdateStatus  *dockerUpdateStatus  `json:",omitempty"`
	CronStatus    *dockerCronStatus    `json:",omitempty"`
	ServiceStatus *dockerServiceStatus `json:",omitempty"`
}

type dockerServiceStatus struct {
	RunningTasks   uint64
	DesiredTasks   uint64
	CompletedTasks uint64
}

type dockerServiceSpec struct {
	dockerAnnotations
	TaskTemplate   dockerTaskSpec
	Mode           dockerMode
	UpdateConfig   *dockerUpdateConfig `json:",omitempty"`
	RollbackConfig *dockerUpdateConfig `json:",omitempty"`
	EndpointSpec   *dockerEndpointSpec `json:",omitempty"`
	DependsOn      []dockerDependency  `json:",omitempty"`
}

// dockerDependency is what inspect says of a dependency, which Docker's services have not.
type dockerDependency struct {
	Service, Condition string
	Optional           bool `json:",omitempty"`
}

type dockerMode struct {
	Replicated    *dockerReplicated `json:",omitempty"`
	Global        *struct{}         `json:",omitempty"`
	ReplicatedJob *dockerJob        `json:",omitempty"`
	GlobalJob     *struct{}         `json:",omitempty"`
	Cron          *dockerCron       `json:",omitempty"`
}

type dockerReplicated struct {
	Replicas *uint64 `json:",omitempty"`
}

type dockerJob struct {
	MaxConcurrent    *uint64 `json:",omitempty"`
	TotalCompletions *uint64 `json:",omitempty"`
}

type dockerUpdateConfig struct {
	Parallelism     uint64
	Delay           time.Duration `json:",omitempty"`
	FailureAction   string        `json:",omitempty"`
	Monitor         time.Duration `json:",omitempty"`
	MaxFailureRatio float64
	Order           string
	// ProgressDeadline is beyond Docker.
	ProgressDeadline time.Duration `json:",omitempty"`
}

type dockerUpdateStatus struct {
	State       string     `json:",omitempty"`
	StartedAt   *time.Time `json:",omitempty"`
	CompletedAt *time.Time `json:",omitempty"`
	Message     string     `json:",omitempty"`
}

type dockerEndpoint struct {
	Spec       dockerEndpointSpec
	Ports      []dockerPort      `json:",omitempty"`
	VirtualIPs []dockerVirtualIP `json:",omitempty"`
}

type dockerVirtualIP struct {
	NetworkID string `json:",omitempty"`
	Addr      string `json:",omitempty"`
}

type dockerEndpointSpec struct {
	Mode  string       `json:",omitempty"`
	Ports []dockerPort `json:",omitempty"`
}

type dockerPort struct {
	Name          string `json:",omitempty"`
	Protocol      string `json:",omitempty"`
	TargetPort    uint32 `json:",omitempty"`
	PublishedPort uint32 `json:",omitempty"`
	PublishMode   string `json:",omitempty"`
	HostIP        string `json:",omitempty"` // this and the next one Docker does not have
	Interface     string `json:",omitempty"`
}

type dockerTaskSpec struct {
	ContainerSpec *dockerContainerSpec `json:",omitempty"`
	Resources     *dockerResources     `json:",omitempty"`
	RestartPolicy *dockerRestartPolicy `json:",omitempty"`
	Placement     *dockerPlacement     `json:",omitempty"`
	Networks      []dockerNetwork      `json:",omitempty"`
	LogDriver     *dockerDriver        `json:",omitempty"`
	ForceUpdate   uint64
	Runtime       string `json:",omitempty"`
}

type dockerNetwork struct {
	Target     string            `json:",omitempty"`
	Aliases    []string          `json:",omitempty"`
	DriverOpts map[string]string `json:",omitempty"`
}

type dockerDriver struct {
	Name    string            `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

type dockerResources struct {
	Limits           *dockerLimits       `json:",omitempty"`
	Reservations     *dockerReservations `json:",omitempty"`
	SwapBytes        *int64              `json:",omitempty"`
	MemorySwappiness *int64              `json:",omitempty"`
}

type dockerLimits struct {
	NanoCPUs    int64 `json:",omitempty"`
	MemoryBytes int64 `json:",omitempty"`
	Pids        int64 `json:",omitempty"`
}

type dockerReservations struct {
	NanoCPUs         int64           `json:",omitempty"`
	MemoryBytes      int64           `json:",omitempty"`
	GenericResources []dockerGeneric `json:",omitempty"`
}

type dockerGeneric struct {
	NamedResourceSpec    *dockerNamed    `json:",omitempty"`
	DiscreteResourceSpec *dockerDiscrete `json:",omitempty"`
}

type dockerNamed struct {
	Kind  string `json:",omitempty"`
	Value string `json:",omitempty"`
}

type dockerDiscrete struct {
	Kind  string `json:",omitempty"`
	Value int64  `json:",omitempty"`
}

type dockerRestartPolicy struct {
	Condition   string         `json:",omitempty"`
	Delay       *time.Duration `json:",omitempty"`
	MaxAttempts *uint64        `json:",omitempty"`
	Window      *time.Duration `json:",omitempty"`
}

type dockerPlacement struct {
	Constraints []string           `json:",omitempty"`
	Preferences []dockerPreference `json:",omitempty"`
	MaxReplicas uint64             `json:",omitempty"`
	Rebalance   string             `json:",omitempty"`
	Platforms   []dockerPlatform   `json:",omitempty"`
}

type dockerPreference struct{ Spread *dockerSpread }

type dockerSpread struct{ SpreadDescriptor string }

type dockerPlatform struct {
	Architecture string `json:",omitempty"`
	OS           string `json:",omitempty"`
}
