package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// How a Store travels between the API server and its clients, in JSON. Of a change, its operations travel: whoever has the
// snapshot before it makes the one after with With.

// wireOp is an Op as it travels.
type wireOp struct {
	Kind     v1.Kind         `json:"kind"`
	ID       string          `json:"id"`
	Section  string          `json:"section"`
	Value    json.RawMessage `json:"value,omitempty"`
	Meta     *v1.Meta        `json:"meta,omitempty"`
	If       string          `json:"if,omitempty"`
	Revision int64           `json:"revision,omitempty"`
	Lease    LeaseID         `json:"lease,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (o Op) MarshalJSON() ([]byte, error) {
	w := wireOp{Kind: o.Kind, ID: o.ID, Section: o.Section.String(), Meta: o.Meta, If: o.If.Kind(), Revision: o.If.Revision(), Lease: o.Lease}
	if o.Value != nil {
		value, err := json.Marshal(o.Value)
		if err != nil {
			return nil, fmt.Errorf("store: %s %q, section %s: %w", o.Kind, o.ID, o.Section, err)
		}
		w.Value = value
	}
	return json.Marshal(w)
}

// UnmarshalJSON implements json.Unmarshaler. It refuses kinds, sections and conditions that there are not.
func (o *Op) UnmarshalJSON(data []byte) error {
	var w wireOp
	if err := json.Unmarshal(data, &w); err != nil {
		return err
	}
	d, ok := v1.Describe(w.Kind)
	if !ok {
		return fmt.Errorf("store: %s %q: no such kind", w.Kind, w.ID)
	}
	section, ok := v1.ParseSection(w.Section)
	if !ok || !d.Has(section) {
		return fmt.Errorf("store: %s %q: no section %q", w.Kind, w.ID, w.Section)
	}
	condition, ok := ParseCondition(w.If, w.Revision)
	if !ok {
		return fmt.Errorf("store: %s %q: no condition %q", w.Kind, w.ID, w.If)
	}
	*o = Op{Kind: w.Kind, ID: w.ID, Section: section, Meta: w.Meta, If: condition, Lease: w.Lease}
	if len(w.Value) > 0 && !bytes.Equal(w.Value, []byte("null")) {
		value, err := d.DecodeSection(section, w.Value)
		if err != nil {
			return fmt.Errorf("store: %s %q, section %s: %w", w.Kind, w.ID, w.Section, err)
		}
		o.Value = value
	}
	return nil
}

// Ops are operations that lead from the snapshot before the batch to the one after it, whatever led there in the first
// place.
func (b Batch) Ops() []Op {
	ops := make([]Op, 0, len(b.Changes))
	for i := range b.Changes {
		ops = b.Changes[i].appendOps(ops, b.Revision)
	}
	return ops
}

func (c *Change) appendOps(ops []Op, revision int64) []Op {
	d, ok := v1.Describe(c.Kind)
	if !ok {
		return ops
	}
	home := d.Home()
	if c.New == nil {
		return append(ops, Op{Kind: c.Kind, ID: c.ID, Section: home, If: Always()})
	}
	meta := c.New.GetMeta()
	if meta.Revisions[home] == revision {
		ops = append(ops, Op{Kind: c.Kind, ID: c.ID, Section: home, Value: d.Section(c.New, home), Meta: meta, If: Always()})
	}
	for _, s := range []v1.Section{v1.SectionSpec, v1.SectionDesired, v1.SectionStatus} {
		if s == home || !d.Has(s) {
			continue
		}
		value := d.Section(c.New, s)
		gone := value == nil && c.Old != nil && d.Section(c.Old, s) != nil
		if gone || value != nil && meta.Revisions[s] == revision {
			ops = append(ops, Op{Kind: c.Kind, ID: c.ID, Section: s, Value: value, If: Always()})
		}
	}
	return ops
}

// wireErrors name the errors of a Store that keep their meaning on the way.
var wireErrors = map[string]error{
	"conflict": ErrConflict, "fenced": ErrFenced, "compacted": ErrCompacted, "too-large": ErrTooLarge,
	"closed": ErrClosed, "unavailable": ErrUnavailable, "invalid": ErrInvalid,
	"no-lease": ErrNoLease,
}

// ProblemType stands before the name of a Store's error in the type of the problem document that tells it.
const ProblemType = "swarm/v1/store/"

// ErrorName is the name of a Store's error, or "" of any other.
func ErrorName(err error) string {
	for name, known := range wireErrors {
		if errors.Is(err, known) {
			return name
		}
	}
	return ""
}

// NamedError is the inverse of ErrorName, or nil.
func NamedError(name string) error { return wireErrors[name] }
