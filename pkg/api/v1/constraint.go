package v1

import (
	"fmt"
	"net/netip"
	"strings"
)

// Constraint is one condition on nodes, such as node.labels.zone==east or node.role!=manager. The zero Constraint holds
// for no node.
type Constraint struct {
	subject subject
	not     bool
	key     string // as written
	label   string // of node.labels and engine.labels; case counts
	value   string // compared without regard to case
	subnet  netip.Prefix
}

// subject is what of a node a constraint is about.
type subject uint8

const (
	subjectUnknown subject = iota
	subjectID
	subjectHostname
	subjectIP
	subjectRole
	subjectOS
	subjectArch
	subjectNodeLabel
	subjectEngineLabel
)

var subjects = map[string]subject{
	"node.id": subjectID, "node.hostname": subjectHostname, "node.ip": subjectIP, "node.role": subjectRole,
	"node.platform.os": subjectOS, "node.platform.arch": subjectArch,
}

const (
	nodeLabelPrefix   = "node.labels."
	engineLabelPrefix = "engine.labels."
)

// MaxConstraint is the length of a constraint, in bytes.
const MaxConstraint = 1024

// ParseConstraint reads key==value or key!=value by Docker Swarm's grammar. There is no pattern matching, whatever
// characters the value may hold. Keys that name nothing are allowed: they match no node. node.ip takes an address or a
// subnet; any other value of it matches no node.
func ParseConstraint(expr string) (Constraint, error) {
	if len(expr) > MaxConstraint {
		return Constraint{}, fmt.Errorf("%q has %d characters, at most %d are allowed", cut(expr), len(expr), MaxConstraint)
	}
	key, value, found := strings.Cut(expr, "==")
	not := false
	if !found {
		key, value, found = strings.Cut(expr, "!=")
		not = true
	}
	if !found {
		return Constraint{}, fmt.Errorf("%q is not a constraint: want key==value or key!=value, such as node.role==worker", cut(expr))
	}
	c := Constraint{not: not, key: strings.TrimSpace(key), value: strings.TrimSpace(value)}
	if !constraintKey(c.key) {
		return Constraint{}, fmt.Errorf("%q is not a constraint: the key %q has to begin with a letter or _, and to go on with "+
			"letters, digits, dots, - and _", cut(expr), cut(c.key))
	}
	if !constraintValue(c.value) {
		return Constraint{}, fmt.Errorf("%q is not a constraint: the value %q has to be of letters, digits, spaces and :-_.*()?+[]\\^$|/",
			cut(expr), cut(c.value))
	}
	c.bind()
	return c, nil
}

// constraintKey is Docker's ^[a-z_][a-z0-9\-_.]+$ in any case.
func constraintKey(s string) bool {
	for i := range len(s) {
		if letter := isAlnum(s[i]) && !isDigit(s[i]); letter || s[i] == '_' {
			continue
		}
		if i == 0 || !isDigit(s[i]) && s[i] != '-' && s[i] != '.' {
			return false
		}
	}
	return len(s) > 1
}

// constraintValue is Docker's ^[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+$ in any case.
func constraintValue(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte(":-_ \t\n\f\r.*()?+[]\\^$|/", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// bind finds what the key is about.
func (c *Constraint) bind() {
	lower := strings.ToLower(c.key)
	c.subject = subjects[lower]
	switch {
	case c.subject == subjectIP:
		c.subnet = parseSubnet(c.value)
	case strings.HasPrefix(lower, nodeLabelPrefix) && len(c.key) > len(nodeLabelPrefix):
		c.subject, c.label = subjectNodeLabel, c.key[len(nodeLabelPrefix):]
	case strings.HasPrefix(lower, engineLabelPrefix) && len(c.key) > len(engineLabelPrefix):
		c.subject, c.label = subjectEngineLabel, c.key[len(engineLabelPrefix):]
	}
}

// parseSubnet reads an address or a subnet; the result is invalid where it is neither. Version 4 addresses that are
// written as version 6 are taken for what they are.
func parseSubnet(text string) netip.Prefix {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen())
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// Match tells whether the constraint holds for a node. What a node does not have or did not tell is "", which != matches.
// Values are compared without regard to case, label names with it. It does not allocate.
func (c Constraint) Match(n *Node) bool {
	if c.subject == subjectUnknown {
		return false
	}
	status := n.Status
	if status == nil {
		status = &NodeStatus{}
	}
	if c.subject == subjectIP {
		if !c.subnet.IsValid() {
			return false
		}
		addr, err := netip.ParseAddr(status.Addr)
		return (err == nil && c.subnet.Contains(addr.Unmap())) != c.not
	}
	return c.equal(c.of(n, status)) != c.not
}

// of is what the constraint is about, of a node.
func (c Constraint) of(n *Node, status *NodeStatus) string {
	switch c.subject {
	case subjectID:
		return n.Meta.ID
	case subjectHostname:
		return status.Description.Hostname
	case subjectRole:
		if n.Spec == nil || n.Spec.Role == "" {
			return string(RoleWorker)
		}
		return string(n.Spec.Role)
	case subjectOS:
		return status.Description.Platform.OS
	case subjectArch:
		return status.Description.Platform.Architecture
	case subjectNodeLabel:
		return n.Meta.Labels[c.label]
	default:
		return status.Description.Engine.Labels[c.label]
	}
}

// equal compares as Docker does; for architectures, the kernel's and Go's names are the same thing.
func (c Constraint) equal(have string) bool {
	if strings.EqualFold(c.value, have) {
		return true
	}
	return c.subject == subjectArch && strings.EqualFold(NormalArchitecture(c.value), NormalArchitecture(have))
}

// NormalArchitecture is Go's name of an architecture that may be written as the kernel does: x86_64 is amd64, aarch64 is
// arm64.
func NormalArchitecture(arch string) string {
	switch strings.ToLower(arch) {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return arch
}

// String is the constraint in the form that ParseConstraint reads.
func (c Constraint) String() string {
	if c.not {
		return c.key + "!=" + c.value
	}
	return c.key + "==" + c.value
}
