package apiserver

import (
	"encoding/json"
	"strconv"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// appendTask appends the JSON of a task without its status, exactly as json.Marshal writes it. Nearly all that a manager ever
// sends are tasks, and nearly all of those are plain: these are written by hand, in a fifth of the time.
func appendTask(buf []byte, t *v1.Task) ([]byte, error) {
	if plain, ok := appendPlainTask(buf, t); ok {
		return plain, nil
	}
	task := *t
	task.Status = nil
	task.Meta.Revisions[v1.SectionStatus] = 0
	body, err := json.Marshal(&task)
	return append(buf, body...), err
}

// appendPlainTask writes a task that has none of the rare fields, and tells whether it was one.
func appendPlainTask(buf []byte, t *v1.Task) ([]byte, bool) {
	m, d := &t.Meta, t.Desired
	if t.Spec != nil || d == nil || m.ID == "" || m.Labels != nil || !m.Deleting.IsZero() || d.Restarts != nil || d.Pending != "" || d.Behind != "" || d.Reason != "" ||
		d.Better != "" || d.Move != nil || d.Attachment != nil || !d.RefitAt.IsZero() {
		return buf, false
	}
	j := jsonWriter{buf: buf, plain: true}
	j.raw(`{"metadata":{`)
	j.text(`"id":`, m.ID)
	j.text(`,"name":`, m.Name)
	j.time(`,"createdAt":`, m.CreatedAt)
	j.time(`,"updatedAt":`, m.UpdatedAt)
	j.number(`,"generation":`, m.Generation)
	j.revisions(m.Revisions)
	j.raw(`},"desired":{"service":`)
	j.quoted(d.Service)
	j.raw(`,"serviceName":`)
	j.quoted(d.ServiceName)
	j.number(`,"slot":`, d.Slot)
	j.text(`,"node":`, d.Node)
	j.raw(`,"attempt":`)
	j.buf = strconv.AppendUint(j.buf, d.Attempt, 10)
	j.number(`,"iteration":`, d.Iteration)
	j.raw(`,"revision":`)
	j.quoted(d.Revision)
	j.raw(`,"state":`)
	j.quoted(d.State.String())
	j.time(`,"startAfter":`, d.StartAfter)
	j.networks(d.Networks)
	if p := d.Placement; p != nil {
		j.raw(`,"placement":{"node":`)
		j.quoted(p.Node)
		j.time(`,"at":`, p.At)
		j.plain = j.plain && len(p.HostPorts) == 0 && len(p.Generic) == 0
		if p.CPUs != 0 {
			j.raw(`,"cpus":`)
			j.raw(p.CPUs.String())
		}
		j.plain = j.plain && p.Memory >= 0
		j.number(`,"memory":`, uint64(p.Memory))
		j.raw("}")
	}
	j.raw("}}")
	if !j.plain {
		return buf, false
	}
	return j.buf, true
}

// jsonWriter appends JSON. It gives up being plain where a value needs more care than it takes.
type jsonWriter struct {
	buf   []byte
	plain bool
}

func (j *jsonWriter) raw(text string) { j.buf = append(j.buf, text...) }

// quoted appends a string that needs no escapes.
func (j *jsonWriter) quoted(text string) {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			j.plain = false
			return
		}
	}
	j.buf = append(append(append(j.buf, '"'), text...), '"')
}

// text, number and time append a field that is left out where it is zero.
func (j *jsonWriter) text(key, value string) {
	if value != "" {
		j.raw(key)
		j.quoted(value)
	}
}

func (j *jsonWriter) number(key string, value uint64) {
	if value != 0 {
		j.raw(key)
		j.buf = strconv.AppendUint(j.buf, value, 10)
	}
}

func (j *jsonWriter) time(key string, at time.Time) {
	if at.IsZero() {
		return
	}
	if at.Location() != time.UTC || at.Year() < 0 || at.Year() > 9999 {
		j.plain = false
		return
	}
	j.raw(key)
	j.buf = append(at.AppendFormat(append(j.buf, '"'), time.RFC3339Nano), '"')
}

func (j *jsonWriter) networks(on []v1.NetworkAddress) {
	before := `,"networks":[`
	for _, n := range on {
		j.raw(before + `{"network":`)
		j.quoted(n.Network)
		j.plain = j.plain && n.Addresses != nil
		j.raw(`,"addresses":[`)
		for i, address := range n.Addresses {
			if i > 0 {
				j.raw(",")
			}
			j.quoted(address)
		}
		j.raw("]}")
		before = ","
	}
	if len(on) > 0 {
		j.raw("]")
	}
}

func (j *jsonWriter) revisions(r v1.Revisions) {
	r[v1.SectionStatus] = 0
	if r == (v1.Revisions{}) {
		return
	}
	j.raw(`,"revisions":{`)
	before := len(j.buf)
	for _, s := range [...]v1.Section{v1.SectionDesired, v1.SectionSpec} {
		if r[s] == 0 {
			continue
		}
		if len(j.buf) > before {
			j.raw(",")
		}
		j.raw(`"` + s.String() + `":`)
		j.buf = strconv.AppendInt(j.buf, r[s], 10)
	}
	j.raw("}")
}
