package v1

import (
	"fmt"
	"strings"
)

// RegistrySpec is the swarm's login to a registry. The name of its object says what it is for: a registry's host, such as
// ghcr.io or registry.example.org:5000, or a host and the beginning of a repository's path, such as ghcr.io/team. The API
// never returns Password and IdentityToken.
type RegistrySpec struct {
	Username string `json:"username,omitempty"`
	Password string `json:"password,omitempty"`
	// IdentityToken is what some registries give in place of a password; then there is no Username.
	IdentityToken string `json:"identityToken,omitempty"`
}

// String is what may be shown of it.
func (s RegistrySpec) String() string { return "login of " + s.Username }

// RegistryLogin is a login as whoever pulls needs it. The zero value is to ask as nobody.
type RegistryLogin struct {
	// Server is the name of the Registry.
	Server        string `json:"server"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identityToken,omitempty"`
}

// String is what may be shown of it.
func (l RegistryLogin) String() string { return "login of " + l.Username + " to " + l.Server }

// LoginOf is what a Registry says.
func LoginOf(r *Registry) RegistryLogin {
	if r == nil || r.Spec == nil {
		return RegistryLogin{}
	}
	return RegistryLogin{r.Meta.Name, r.Spec.Username, r.Spec.Password, r.Spec.IdentityToken}
}

// Limits of a login, in bytes. Tokens that are signed texts are long.
const (
	maxRegistryUser     = 255
	maxRegistryPassword = 64 << 10
)

// Repository is where an image comes from: the registry's host, in small letters, and the path.
func (r ImageReference) Repository() string { return strings.ToLower(r.Domain) + "/" + r.Path }

// MatchLogin finds the login for an image's repository: the longest of the names that is the repository, begins its path or is
// its registry; "" for none.
func MatchLogin(repository string, has func(name string) bool) string {
	for name := repository; ; {
		if has(name) {
			return name
		}
		slash := strings.LastIndexByte(name, '/')
		if slash < 0 {
			return ""
		}
		name = name[:slash]
	}
}

// RegistryName is what a Registry is called for what people write, such as https://index.docker.io/v1/ for docker.io.
func RegistryName(text string) (string, error) {
	name := strings.TrimPrefix(strings.TrimPrefix(text, "https://"), "http://")
	name = strings.TrimRight(name, "/")
	host, path, _ := strings.Cut(name, "/")
	if path == "v1" || path == "v2" { // of a registry's own address
		path = ""
	}
	if host = strings.ToLower(host); host == "index.docker.io" || host == "registry-1.docker.io" {
		host = defaultDomain
	}
	if name = host; path != "" {
		name += "/" + path
	}
	return name, checkRegistryName(name)
}

// checkRegistryName refuses what no image's repository begins with.
func checkRegistryName(name string) error {
	host, path, deep := strings.Cut(name, "/")
	good := isDomain(host) && host == strings.ToLower(host) && len(name) <= maxImageName
	for part := range strings.SplitSeq(path, "/") {
		good = good && (!deep || isPathPart(part))
	}
	switch {
	case name == "":
		return fmt.Errorf("is missing: want a registry's host, such as ghcr.io or registry.example.org:5000")
	case !good:
		return fmt.Errorf("%q is not a registry: want its host, such as ghcr.io or registry.example.org:5000, and where the login is for "+
			"a part of it alone the path, such as ghcr.io/team", cut(name))
	case host == "index.docker.io" || host == "registry-1.docker.io":
		return fmt.Errorf("%q is %s: want that", host, defaultDomain)
	}
	return nil
}

func (c *checker) registry(field string, s *RegistrySpec) {
	for _, f := range []struct {
		name, value string
		most        int
	}{{".username", s.Username, maxRegistryUser}, {".password", s.Password, maxRegistryPassword}, {".identityToken", s.IdentityToken, maxRegistryPassword}} {
		if len(f.value) > f.most {
			c.fail(field+f.name, "has %d bytes, at most %d are allowed", len(f.value), f.most)
		}
		if !printable(f.value) {
			c.fail(field+f.name, "holds control characters") // and is not quoted: it may be a password
		}
	}
	switch {
	case strings.Contains(s.Username, ":"):
		c.fail(field+".username", "holds a colon, which separates it from the password where registries are asked")
	case s.IdentityToken != "" && (s.Username != "" || s.Password != ""):
		c.fail(field+".identityToken", "takes the place of username and password: want one or the other")
	case s.IdentityToken == "" && s.Username == "":
		c.fail(field+".username", "is missing")
	case s.IdentityToken == "" && s.Password == "":
		c.fail(field+".password", "is missing")
	}
}
