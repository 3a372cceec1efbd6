package v1

import (
	"fmt"
	"slices"
	"strings"
)

// The longest names, in bytes.
const (
	MaxServiceName = 63 // and of networks: a name is a DNS label
	MaxSecretName  = 64 // and of configs
	MaxVolumeName  = 255
	MaxNodeName    = 253
	MaxUserName    = 64 // it goes into certificates
)

// ValidateName tells what is wrong with the name of an object that a user makes, or nil. The name of a node may be empty.
// Names of kinds that the swarm makes are not for users to give, and an error.
func ValidateName(kind Kind, name string) error {
	rule := nameRule{most: MaxServiceName, inner: "-_", want: "letters, digits, - and _"}
	switch kind {
	case KindService, KindAttachment:
	case KindNetwork:
		if lower := strings.ToLower(name); slices.Contains(predefinedNetworks, lower) { // networks' names are told apart as DNS does
			return fmt.Errorf("operation is not permitted on predefined %s network: want another name", lower)
		}
	case KindSecret, KindConfig:
		rule = nameRule{most: MaxSecretName, inner: "-_.", want: "letters, digits, -, _ and ."}
	case KindUser:
		if strings.HasPrefix(name, "swarm-") { // certificates call roles so
			return fmt.Errorf("%q is not for users: want a name that does not begin with swarm-", cut(name))
		}
		rule = nameRule{most: MaxUserName, inner: "-_.", want: "letters, digits, -, _ and ."}
	case KindVolume:
		rule = nameRule{most: MaxVolumeName, inner: "-_.", openEnd: true, want: "letters, digits, -, _ and ."}
	case KindRegistry:
		return checkRegistryName(name)
	case KindNode:
		if name == "" {
			return nil
		}
		rule = nameRule{most: MaxNodeName, inner: "-_.", want: "letters, digits, -, _ and ."}
	case KindCluster:
		if name != ClusterName {
			return fmt.Errorf("want %q, the name of the one cluster there is, found %q", ClusterName, cut(name))
		}
		return nil
	default:
		return fmt.Errorf("%s is named by the swarm", kind)
	}
	if rule.matches(name) {
		return nil
	}
	ends := "beginning and ending"
	if rule.openEnd {
		ends = "beginning"
	}
	wanted := fmt.Sprintf("want 1 to %d %s, %s with a letter or digit", rule.most, rule.want, ends)
	switch {
	case name == "":
		return fmt.Errorf("is missing: %s", wanted)
	case len(name) > rule.most:
		return fmt.Errorf("%q has %d characters: %s", cut(name), len(name), wanted)
	}
	return fmt.Errorf("%q is not a name: %s", name, wanted)
}

// nameRule says what names look like: letters and digits, and inside also those of inner.
type nameRule struct {
	most    int
	inner   string
	openEnd bool // the last character may be one of inner
	want    string
}

func (r nameRule) matches(name string) bool {
	if name == "" || len(name) > r.most {
		return false
	}
	for i := range len(name) {
		if isAlnum(name[i]) {
			continue
		}
		if i == 0 || (i == len(name)-1 && !r.openEnd) || strings.IndexByte(r.inner, name[i]) < 0 {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || isDigit(c)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// printable tells whether a name, path or the like is free of control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
