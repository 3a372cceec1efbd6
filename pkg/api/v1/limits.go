package v1

import "time"

// Limits on what a manifest may hold. They are far above what people write and well below what would hurt the store, which
// writes a spec as one value.
const (
	// MaxManifestSize is that of a whole manifest, in bytes: room for the largest config in base64.
	MaxManifestSize = 2 << 20
	// MaxSpecSize is that of a spec as JSON, in bytes; the data of secrets and configs has limits of its own.
	MaxSpecSize = 512 << 10
	// MaxDepth is how deep JSON may nest.
	MaxDepth = 32
	// MaxEntries is the length of any list or map in a manifest, before the limits of the single fields.
	MaxEntries = 10_000

	// MaxLabels is the number of labels in one place, MaxLabelKey and MaxLabelValue their lengths, MaxLabelsSize what they
	// take together, in bytes.
	MaxLabels     = 1000
	MaxLabelKey   = 512
	MaxLabelValue = 32 << 10
	MaxLabelsSize = 128 << 10

	// MaxReplicas is that of one service.
	MaxReplicas = 1_000_000
	// MaxRestartAttempts bounds what a slot has to remember of its earlier tasks.
	MaxRestartAttempts = 1000
	// MaxDuration is that of any time span in a spec: a year.
	MaxDuration = Duration(365 * 24 * time.Hour)
	// MaxString is the length of a name, path, user and the like, where nothing else is said, in bytes.
	MaxString = 4096
	// MaxArgument is the length of one environment variable or argument, which is the kernel's, in bytes.
	MaxArgument = 128<<10 - 1
)

// Limits on the lengths of the lists of a service's spec.
const (
	maxArgs        = 4096 // arguments, and as many environment variables
	maxPorts       = 1000
	maxConstraints = 100
	maxPreferences = 10
	maxPlatforms   = 100
	maxNetworks    = 100
	maxMounts      = 500
	maxReferences  = 500 // secrets, and as many configs
	maxHosts       = 1000
	maxRevisionID  = 64  // bytes
	maxShort       = 100 // capabilities, ulimits, groups, DNS settings, generic resources
	maxOptions     = 200 // driver options, sysctls
	maxAttached    = 16  // networks of one attachment, and as many aliases
)

// Least amounts, Docker Swarm's.
const (
	minCPUs            = CPUs(1_000_000)
	minMemory          = Bytes(4 << 20)
	minHealthDuration  = Duration(time.Millisecond)
	defaultGracePeriod = Duration(10 * time.Second)
	defaultDelay       = Duration(5 * time.Second)
	defaultMonitor     = Duration(5 * time.Second)
	// defaultProgressDeadline is ours: Docker Swarm has none.
	defaultProgressDeadline = Duration(10 * time.Minute)
)
