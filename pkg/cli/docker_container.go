package cli

import (
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

type dockerContainerSpec struct {
	Image           string             `json:",omitempty"`
	Labels          map[string]string  `json:",omitempty"`
	Command         []string           `json:",omitempty"`
	Args            []string           `json:",omitempty"`
	Hostname        string             `json:",omitempty"`
	Env             []string           `json:",omitempty"`
	Dir             string             `json:",omitempty"`
	User            string             `json:",omitempty"`
	Groups          []string           `json:",omitempty"`
	Privileges      *dockerPrivileges  `json:",omitempty"`
	Init            *bool              `json:",omitempty"`
	StopSignal      string             `json:",omitempty"`
	TTY             bool               `json:",omitempty"`
	OpenStdin       bool               `json:",omitempty"`
	ReadOnly        bool               `json:",omitempty"`
	Mounts          []dockerMount      `json:",omitempty"`
	StopGracePeriod *time.Duration     `json:",omitempty"`
	Healthcheck     *dockerHealthcheck `json:",omitempty"`
	Hosts           []string           `json:",omitempty"`
	DNSConfig       *dockerDNSConfig   `json:",omitempty"`
	Secrets         []dockerSecretRef  `json:",omitempty"`
	Configs         []dockerConfigRef  `json:",omitempty"`
	Isolation       string             `json:",omitempty"`
	Sysctls         map[string]string  `json:",omitempty"`
	CapabilityAdd   []string           `json:",omitempty"`
	CapabilityDrop  []string           `json:",omitempty"`
	Ulimits         []dockerUlimit     `json:",omitempty"`
	OomScoreAdj     int64              `json:",omitempty"`
}

type dockerUlimit struct {
	Name string
	Hard int64
	Soft int64
}

type dockerPrivileges struct {
	CredentialSpec  *struct{}            `json:"CredentialSpec"`
	SELinuxContext  *dockerSELinux       `json:"SELinuxContext"`
	Seccomp         *dockerSeccomp       `json:",omitempty"`
	AppArmor        *dockerPrivilegeMode `json:",omitempty"`
	NoNewPrivileges bool
}

type dockerPrivilegeMode struct {
	Mode string `json:",omitempty"`
}

type dockerSeccomp struct {
	Mode    string `json:",omitempty"`
	Profile []byte `json:",omitempty"`
}

type dockerSELinux struct {
	Disable                 bool
	User, Role, Type, Level string
}

type dockerMount struct {
	Type          string               `json:",omitempty"`
	Source        string               `json:",omitempty"`
	Target        string               `json:",omitempty"`
	ReadOnly      bool                 `json:",omitempty"`
	BindOptions   *dockerBindOptions   `json:",omitempty"`
	VolumeOptions *dockerVolumeOptions `json:",omitempty"`
	TmpfsOptions  *dockerTmpfsOptions  `json:",omitempty"`
}

type dockerBindOptions struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

type dockerVolumeOptions struct {
	NoCopy       bool              `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Subpath      string            `json:",omitempty"`
	DriverConfig *dockerDriver     `json:",omitempty"`
}

type dockerTmpfsOptions struct {
	SizeBytes int64  `json:",omitempty"`
	Mode      uint32 `json:",omitempty"`
}

type dockerHealthcheck struct {
	Test          []string      `json:",omitempty"`
	Interval      time.Duration `json:",omitempty"`
	Timeout       time.Duration `json:",omitempty"`
	StartPeriod   time.Duration `json:",omitempty"`
	StartInterval time.Duration `json:",omitempty"`
	Retries       int           `json:",omitempty"`
	// Beyond Docker.
	HTTP *v1.HTTPProbe `json:",omitempty"`
	TCP  *v1.TCPProbe  `json:",omitempty"`
}

type dockerDNSConfig struct {
	Nameservers []string `json:",omitempty"`
	Search      []string `json:",omitempty"`
	Options     []string `json:",omitempty"`
}

type dockerFile struct {
	Name string
	UID  string
	GID  string
	Mode uint32
}

type dockerSecretRef struct {
	File       *dockerFile
	SecretID   string
	SecretName string
	OnChange   string `json:",omitempty"` // not Docker's, as in dockerConfigRef
}

type dockerConfigRef struct {
	File       *dockerFile
	ConfigID   string
	ConfigName string
	OnChange   string `json:",omitempty"`
}
