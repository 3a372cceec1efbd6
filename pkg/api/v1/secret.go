package v1

// Limits on what a secret and a config hold, in bytes; Docker Swarm's.
const (
	MaxSecretSize = 500 * 1024  // exclusive
	MaxConfigSize = 1000 * 1024 // exclusive
	// MaxFilesSize is that of all secrets and configs of a service together: each of its tasks has them in memory.
	MaxFilesSize = 16 << 20
)

// SecretSpec is a small piece of data that only the tasks it is meant for may see. The API never returns Data.
type SecretSpec struct {
	Data       []byte  `json:"data,omitempty"`
	Driver     *Driver `json:"driver,omitempty"`
	Templating *Driver `json:"templating,omitempty"`
}

// ConfigSpec is a small piece of data that tasks find as a file.
type ConfigSpec struct {
	Data       []byte  `json:"data,omitempty"`
	Templating *Driver `json:"templating,omitempty"`
}

// Wanted tells whether a task is to run, so that its node has to have what it runs with.
func Wanted(d *TaskDesired) bool { return d != nil && d.State <= TaskComplete }
