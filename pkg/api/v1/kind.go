package v1

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// APIVersion is what a manifest says in its apiVersion field.
const APIVersion = "swarm/v1"

// Kind names a kind of object the way a manifest does.
type Kind string

// The kinds.
const (
	KindService         Kind = "Service"
	KindServiceRevision Kind = "ServiceRevision"
	KindTask            Kind = "Task"
	KindNode            Kind = "Node"
	KindNetwork         Kind = "Network"
	KindSecret          Kind = "Secret"
	KindConfig          Kind = "Config"
	KindVolume          Kind = "Volume"
	KindRegistry        Kind = "Registry"
	KindCluster         Kind = "Cluster"
	KindUser            Kind = "User"
	KindClaim           Kind = "Claim"
	KindAuthority       Kind = "Authority"
	KindPresence        Kind = "Presence"
	KindMember          Kind = "Member"
	KindAttachment      Kind = "Attachment"
	KindEvent           Kind = "Event" // never stored: derived from what a watch sees
)

// Section is the part of an object that one writer owns.
type Section uint8

// The sections, and who writes them.
const (
	SectionSpec    Section = iota // the user, through the API server
	SectionDesired                // the leader's rules
	SectionStatus                 // the agent of the node concerned
	sections
)

// SectionCount is how many sections an object may have; all Sections are below it.
const SectionCount = int(sections)

var sectionNames = [sections]string{"spec", "desired", "status"}

// String is the name of the section, also the last element of its key in the store.
func (s Section) String() string {
	if s >= sections {
		return fmt.Sprintf("section(%d)", uint8(s))
	}
	return sectionNames[s]
}

// ParseSection is the inverse of String.
func ParseSection(name string) (Section, bool) {
	for i, n := range sectionNames {
		if n == name {
			return Section(i), true
		}
	}
	return 0, false
}

// Meta is what every object has. It is stored with the object's home section (see Descriptor.Home), all but Revisions,
// which the store fills in.
type Meta struct {
	ID     string            `json:"id,omitempty"`
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	// CreatedAt and UpdatedAt are the times of the first and the latest write of the home section, in UTC.
	CreatedAt time.Time `json:"createdAt,omitzero"`
	UpdatedAt time.Time `json:"updatedAt,omitzero"`
	// Generation counts the changes of the spec, from 1.
	Generation uint64 `json:"generation,omitempty"`
	// Deleting is when the owner asked for the object to go; the gc rule removes it once nothing needs it.
	Deleting time.Time `json:"deleting,omitzero"`
	// Revisions are the store revisions at which each section was last written; 0 where there is none.
	Revisions Revisions `json:"revisions,omitzero"`
}

// Revisions are store-wide revisions, one for each section.
type Revisions [sections]int64

// Max is the revision at which the object last changed.
func (r Revisions) Max() int64 { return max(r[SectionSpec], r[SectionDesired], r[SectionStatus]) }

// MarshalJSON writes the revisions by section name.
func (r Revisions) MarshalJSON() ([]byte, error) {
	buf := append(make([]byte, 0, 64), '{') // by hand: it is in every object that is ever sent
	for _, i := range [sections]Section{SectionDesired, SectionSpec, SectionStatus} {
		if r[i] == 0 {
			continue
		}
		if len(buf) > 1 {
			buf = append(buf, ',')
		}
		buf = append(append(append(buf, '"'), sectionNames[i]...), `":`...)
		buf = strconv.AppendInt(buf, r[i], 10)
	}
	return append(buf, '}'), nil
}

// UnmarshalJSON reads revisions by section name; unknown names are an error.
func (r *Revisions) UnmarshalJSON(data []byte) error {
	var named map[string]int64
	if err := json.Unmarshal(data, &named); err != nil {
		return err
	}
	*r = Revisions{}
	for name, rev := range named {
		s, ok := ParseSection(name)
		if !ok {
			return fmt.Errorf("revisions: unknown section %q", name)
		}
		r[s] = rev
	}
	return nil
}

// None is the type of a section that a kind does not have.
type None struct{}

// Resource is one object: what everybody has (Meta), and a section for each writer, nil where nothing was written yet.
type Resource[Spec, Desired, Status any] struct {
	Meta    Meta     `json:"metadata"`
	Spec    *Spec    `json:"spec,omitempty"`
	Desired *Desired `json:"desired,omitempty"`
	Status  *Status  `json:"status,omitempty"`
}

// GetMeta is the object's Meta; it must not be changed through the pointer.
func (r *Resource[S, D, T]) GetMeta() *Meta { return &r.Meta }

// Object is a *Resource of any kind.
type Object interface{ GetMeta() *Meta }

// Descriptor knows one kind without its types: it makes, reads and writes objects of that kind.
type Descriptor interface {
	Kind() Kind
	// Plural is the name of the kind's collection in the API, such as "services".
	Plural() string
	// Home is the section that exists exactly as long as the object does, and carries its Meta.
	Home() Section
	// Has tells whether objects of this kind have the section.
	Has(Section) bool
	// New is an empty object.
	New() Object
	// DecodeSection reads one section's value; the result is the typed pointer that With takes.
	DecodeSection(Section, []byte) (any, error)
	// With is a copy of obj (nil for none yet) with one section replaced, or removed where value is nil. The copy shares
	// everything else. A non-nil meta replaces the Meta, all but its Revisions.
	With(obj Object, s Section, meta *Meta, value any, revision int64) (Object, error)
	// Section is a section's value as a typed pointer, or nil where it is absent.
	Section(Object, Section) any
	// Holds tells whether the section's value may be this: a pointer of the section's type that is not nil.
	Holds(Section, any) bool
}

// KindOf is the Descriptor of a kind with its types.
type KindOf[S, D, T any] struct {
	kind   Kind
	plural string
	home   Section
}

// Kind implements Descriptor.
func (k KindOf[S, D, T]) Kind() Kind { return k.kind }

// Plural implements Descriptor.
func (k KindOf[S, D, T]) Plural() string { return k.plural }

// Home implements Descriptor.
func (k KindOf[S, D, T]) Home() Section { return k.home }

// New implements Descriptor.
func (k KindOf[S, D, T]) New() Object { return new(Resource[S, D, T]) }

// Has implements Descriptor.
func (k KindOf[S, D, T]) Has(s Section) bool {
	var v any
	switch s {
	case SectionSpec:
		v = (*S)(nil)
	case SectionDesired:
		v = (*D)(nil)
	case SectionStatus:
		v = (*T)(nil)
	default:
		return false
	}
	_, none := v.(*None)
	return !none
}

// DecodeSection implements Descriptor.
func (k KindOf[S, D, T]) DecodeSection(s Section, data []byte) (any, error) {
	if !k.Has(s) {
		return nil, fmt.Errorf("%s has no section %s", k.kind, s)
	}
	switch s {
	case SectionSpec:
		return decode[S](data)
	case SectionDesired:
		return decode[D](data)
	default:
		return decode[T](data)
	}
}

// Holds implements Descriptor.
func (k KindOf[S, D, T]) Holds(s Section, value any) bool {
	ok := false
	switch s {
	case SectionSpec:
		_, ok = section[S](value)
	case SectionDesired:
		_, ok = section[D](value)
	case SectionStatus:
		_, ok = section[T](value)
	}
	return ok && value != nil && k.Has(s)
}

func decode[V any](data []byte) (any, error) {
	v := new(V)
	read := func(data []byte) error { return json.Unmarshal(data, v) }
	if own, ok := any(v).(json.Unmarshaler); ok {
		read = own.UnmarshalJSON // spares json.Unmarshal's two passes over the data to find its end
	}
	if err := read(data); err != nil {
		return nil, err
	}
	return v, nil
}

// With implements Descriptor.
func (k KindOf[S, D, T]) With(obj Object, s Section, meta *Meta, value any, revision int64) (Object, error) {
	next := new(Resource[S, D, T])
	if obj != nil {
		old, ok := obj.(*Resource[S, D, T])
		if !ok {
			return nil, fmt.Errorf("%s: %T is another kind of object", k.kind, obj)
		}
		*next = *old
	}
	if meta != nil {
		revisions := next.Meta.Revisions
		next.Meta = *meta
		next.Meta.Revisions = revisions
	}
	ok := true
	switch s {
	case SectionSpec:
		next.Spec, ok = section[S](value)
	case SectionDesired:
		next.Desired, ok = section[D](value)
	case SectionStatus:
		next.Status, ok = section[T](value)
	}
	if !ok || !k.Has(s) {
		return nil, fmt.Errorf("%s: section %s cannot hold %T", k.kind, s, value)
	}
	if value == nil {
		revision = 0
	}
	next.Meta.Revisions[s] = revision
	return next, nil
}

func section[V any](value any) (*V, bool) {
	if value == nil {
		return nil, true
	}
	v, ok := value.(*V)
	return v, ok && v != nil
}

// Section implements Descriptor.
func (k KindOf[S, D, T]) Section(obj Object, s Section) any {
	r, ok := obj.(*Resource[S, D, T])
	if !ok {
		return nil
	}
	switch {
	case s == SectionSpec && r.Spec != nil:
		return r.Spec
	case s == SectionDesired && r.Desired != nil:
		return r.Desired
	case s == SectionStatus && r.Status != nil:
		return r.Status
	}
	return nil
}

// The objects by kind.
//
//nolint:revive // the heading says it for all of them
type (
	Service         = Resource[ServiceSpec, ServiceDesired, None]
	ServiceRevision = Resource[ServiceRevisionSpec, None, None]
	Task            = Resource[None, TaskDesired, TaskStatus]
	Node            = Resource[NodeSpec, NodeDesired, NodeStatus]
	Network         = Resource[NetworkSpec, NetworkDesired, None]
	Secret          = Resource[SecretSpec, None, None]
	Config          = Resource[ConfigSpec, None, None]
	Volume          = Resource[VolumeSpec, None, VolumeStatus]
	Registry        = Resource[RegistrySpec, None, None]
	Cluster         = Resource[ClusterSpec, ClusterDesired, None]
	User            = Resource[UserSpec, None, None]
	Claim           = Resource[ClaimSpec, None, None]
	Authority       = Resource[AuthoritySpec, AuthorityDesired, None]
	Presence        = Resource[None, None, PresenceStatus]
	Member          = Resource[None, None, MemberStatus]
	Attachment      = Resource[AttachmentSpec, None, None]
)

// The descriptors of the stored kinds.
var (
	Services         = KindOf[ServiceSpec, ServiceDesired, None]{KindService, "services", SectionSpec}
	ServiceRevisions = KindOf[ServiceRevisionSpec, None, None]{KindServiceRevision, "servicerevisions", SectionSpec}
	Tasks            = KindOf[None, TaskDesired, TaskStatus]{KindTask, "tasks", SectionDesired}
	Nodes            = KindOf[NodeSpec, NodeDesired, NodeStatus]{KindNode, "nodes", SectionSpec}
	Networks         = KindOf[NetworkSpec, NetworkDesired, None]{KindNetwork, "networks", SectionSpec}
	Secrets          = KindOf[SecretSpec, None, None]{KindSecret, "secrets", SectionSpec}
	Configs          = KindOf[ConfigSpec, None, None]{KindConfig, "configs", SectionSpec}
	Volumes          = KindOf[VolumeSpec, None, VolumeStatus]{KindVolume, "volumes", SectionSpec}
	Registries       = KindOf[RegistrySpec, None, None]{KindRegistry, "registries", SectionSpec}
	Clusters         = KindOf[ClusterSpec, ClusterDesired, None]{KindCluster, "clusters", SectionSpec}
	Users            = KindOf[UserSpec, None, None]{KindUser, "users", SectionSpec}
	Claims           = KindOf[ClaimSpec, None, None]{KindClaim, "claims", SectionSpec}
	Authorities      = KindOf[AuthoritySpec, AuthorityDesired, None]{KindAuthority, "authorities", SectionSpec}
	Presences        = KindOf[None, None, PresenceStatus]{KindPresence, "presences", SectionStatus}
	Members          = KindOf[None, None, MemberStatus]{KindMember, "members", SectionStatus}
	Attachments      = KindOf[AttachmentSpec, None, None]{KindAttachment, "attachments", SectionSpec}
)

// Kinds lists the descriptor of every stored kind.
var Kinds = []Descriptor{Services, ServiceRevisions, Tasks, Nodes, Networks, Secrets, Configs, Volumes, Registries, Clusters, Users, Claims,
	Authorities, Presences, Members, Attachments}

// Internal tells whether a kind is the swarm's own bookkeeping, which has no door in the API.
func Internal(k Kind) bool { return k == KindClaim || k == KindAuthority || k == KindPresence }

// Describe finds the descriptor of a stored kind.
func Describe(k Kind) (Descriptor, bool) {
	for _, d := range Kinds {
		if d.Kind() == k {
			return d, true
		}
	}
	return nil, false
}

// ClaimSpec says who holds a name. A claim is how names stay unique: it is created in the same commit as its holder, on
// the condition that no such claim exists, and removed when the holder is deleted.
type ClaimSpec struct {
	// Holder is the ID of the object that holds the claim.
	Holder string `json:"holder"`
}

// NameClaim is the ID of the claim on a name, such as "Service/web". A name that tasks ask DNS for is claimed in lower case, because DNS
// knows no other: two that differ by nothing else would answer for each other.
func NameClaim(k Kind, name string) string {
	switch k {
	case KindService, KindNetwork, KindAttachment:
		name = strings.ToLower(name)
	}
	return string(k) + "/" + name
}
