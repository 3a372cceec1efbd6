package v1

// Default fills in what the user left out of the spec of an object, as Docker Swarm does. It writes into obj and through
// its pointers, so obj must be a fresh copy that nobody else reads. Doing it twice changes nothing. Kinds that users do not
// write are left alone.
func Default(obj Object) {
	switch o := obj.(type) {
	case *Service:
		fill(&o.Spec, ServiceSpec{})
		defaultService(o.Spec)
	case *Network:
		fill(&o.Spec, NetworkSpec{})
		orElse(&o.Spec.Driver, "overlay")
	case *Secret:
		fill(&o.Spec, SecretSpec{})
	case *Config:
		fill(&o.Spec, ConfigSpec{})
	case *Volume:
		fill(&o.Spec, VolumeSpec{})
		orElse(&o.Spec.Driver, VolumeLocal)
	case *Node:
		fill(&o.Spec, NodeSpec{})
		orElse(&o.Spec.Role, RoleWorker)
		orElse(&o.Spec.Availability, AvailabilityActive)
	case *Cluster:
		fill(&o.Spec, ClusterSpec{})
		orElse(&o.Meta.Name, ClusterName)
		fill(&o.Spec.TaskHistoryLimit, DefaultTaskHistoryLimit)
		orElse(&o.Spec.GatewayPool, DefaultGatewayPool)
		defaultCluster(o.Spec)
	case *Attachment:
		fill(&o.Spec, AttachmentSpec{})
		o.Spec.Namespace = NamespacePath(o.Spec.Namespace)
	case *User:
		fill(&o.Spec, UserSpec{})
		orElse(&o.Spec.Role, UserView)
	}
}

func defaultCluster(s *ClusterSpec) {
	fill(&s.HeartbeatPeriod, Duration(DefaultHeartbeatPeriod))
	fill(&s.NodeCertExpiry, Duration(DefaultNodeCertExpiry))
	orElse(&s.SubnetSize, DefaultSubnetSize)
	if len(s.DefaultAddrPool) == 0 {
		s.DefaultAddrPool = []string{DefaultAddrPool}
	}
	fill(&s.Raft, RaftSettings{})
	orElse(&s.Raft.SnapshotInterval, DefaultSnapshotInterval)
	fill(&s.Snapshots, SnapshotSchedule{})
	fill(&s.Snapshots.Every, Duration(DefaultSnapshotEvery))
	fill(&s.Snapshots.Keep, DefaultSnapshotKeep)
}

// orElse sets what is zero.
func orElse[V comparable](field *V, value V) {
	if *field == *new(V) {
		*field = value
	}
}

// fill sets what is nil.
func fill[V any](field **V, value V) {
	if *field == nil {
		*field = &value
	}
}

func defaultService(s *ServiceSpec) {
	orElse(&s.Mode, ModeReplicated)
	switch s.Mode {
	case ModeReplicated:
		fill(&s.Replicas, 1)
	case ModeReplicatedJob:
		fill(&s.Replicas, 1)
		fill(&s.MaxConcurrent, *s.Replicas)
	}
	if s.Mode == ModeReplicated || s.Mode == ModeGlobal {
		defaultUpdate(&s.Update)
		defaultUpdate(&s.Rollback)
	}
	defaultSchedule(s)
	for i := range s.DependsOn {
		orElse(&s.DependsOn[i].Condition, DependsStarted)
	}
	defaultTask(&s.Task)
	fill(&s.Endpoint, EndpointSpec{})
	orElse(&s.Endpoint.Mode, EndpointVIP)
	for i := range s.Endpoint.Ports {
		orElse(&s.Endpoint.Ports[i].Protocol, TCP)
		orElse(&s.Endpoint.Ports[i].Mode, PublishIngress)
	}
}

func defaultUpdate(u **UpdateConfig) {
	fill(u, UpdateConfig{})
	fill(&(*u).Parallelism, 1)
	fill(&(*u).Monitor, defaultMonitor)
	fill(&(*u).ProgressDeadline, defaultProgressDeadline)
	orElse(&(*u).FailureAction, FailurePause)
	orElse(&(*u).Order, StopFirst)
}

func defaultTask(t *TaskSpec) {
	fill(&t.RestartPolicy, RestartPolicy{})
	orElse(&t.RestartPolicy.Condition, RestartAny)
	fill(&t.RestartPolicy.Delay, defaultDelay)
	c := &t.Container
	fill(&c.StopGracePeriod, defaultGracePeriod)
	if h := c.Healthcheck; h != nil && h.HTTP != nil {
		orElse(&h.HTTP.Path, "/")
		orElse(&h.HTTP.Scheme, "http")
	}
	for i := range c.Mounts {
		orElse(&c.Mounts[i].Type, MountVolume)
	}
	for i := range c.Secrets {
		defaultReference(&c.Secrets[i], SecretsFolder)
	}
	for i := range c.Configs {
		defaultReference(&c.Configs[i], ConfigsFolder)
	}
}

// defaultReference makes the target a whole path below the folder where such files belong.
func defaultReference(r *FileReference, folder string) {
	r.Target = r.At(folder)
	orElse(&r.UID, "0")
	orElse(&r.GID, "0")
	fill(&r.Mode, 0o444)
}
