package daemon

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// maxRegistryConfig bounds what is read of a file with registry credentials, in bytes.
const maxRegistryConfig = 1 << 20

// registryConfig is the part of Docker's config.json that "docker login" writes.
type registryConfig struct {
	Auths map[string]struct {
		Auth     string `json:"auth"`
		Username string `json:"username"`
		Password string `json:"password"`
	} `json:"auths"`
}

// credentialsFrom asks a file in the format of Docker's config.json, anew each time, so that a renewed login needs no restart.
// A file that is not there knows nobody. Errors never hold what the file says.
func credentialsFrom(path string) func(host string) (user, password string, err error) {
	return func(host string) (string, string, error) {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return "", "", nil
		}
		if err != nil {
			return "", "", fmt.Errorf("registry credentials: %w", err)
		}
		if info.Size() > maxRegistryConfig {
			return "", "", fmt.Errorf("registry credentials: %s has %d bytes, more than the %d that are read", path, info.Size(), maxRegistryConfig)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return "", "", fmt.Errorf("registry credentials: %w", err)
		}
		var config registryConfig
		if err := json.Unmarshal(data, &config); err != nil {
			return "", "", fmt.Errorf("registry credentials: %s is not in the format of Docker's config.json", path)
		}
		return config.of(host, path)
	}
}

// of are the credentials for a registry's host; empty for one that is not named.
func (c registryConfig) of(host, path string) (user, password string, err error) {
	for key, entry := range c.Auths {
		if registryHost(key) != registryHost(host) {
			continue
		}
		if entry.Auth == "" {
			return entry.Username, entry.Password, nil
		}
		pair, err := base64.StdEncoding.DecodeString(entry.Auth)
		user, password, found := strings.Cut(string(pair), ":")
		if err != nil || !found {
			return "", "", fmt.Errorf("registry credentials: %s: the auth of %q is not base64 of user:password", path, key)
		}
		return user, password, nil
	}
	return "", "", nil
}

// registryHost is the host, with its port, of a key of config.json, which may be a URL. The names that Docker's own registry
// goes by are one.
func registryHost(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}
