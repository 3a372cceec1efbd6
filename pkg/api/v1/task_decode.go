package v1

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
)

// The sections of tasks are read a million times where everything else is read a few times, so they are read without
// reflection, in a third of the time. What is not exactly as json.Marshal writes it, or is rare, is left to encoding/json:
// a new field is read correctly without a word here, only more slowly.

// UnmarshalJSON reads what encoding/json would read.
func (d *TaskDesired) UnmarshalJSON(data []byte) error {
	if d.Placement == nil && d.Restarts == nil && d.Networks == nil {
		next, r := *d, lean{data: data}
		if r.desired(&next); r.done() {
			*d = next
			return nil
		}
	}
	type plain TaskDesired
	return json.Unmarshal(data, (*plain)(d))
}

// UnmarshalJSON reads what encoding/json would read.
func (s *TaskStatus) UnmarshalJSON(data []byte) error {
	if s.Container == nil && s.Ports == nil {
		next, r := *s, lean{data: data}
		if r.status(&next); r.done() {
			*s = next
			return nil
		}
	}
	type plain TaskStatus
	return json.Unmarshal(data, (*plain)(s))
}

func (r *lean) desired(d *TaskDesired) {
	first := r.open()
	if r.field("service", &first) {
		d.Service = r.text()
	}
	if r.field("serviceName", &first) {
		d.ServiceName = r.text()
	}
	if r.field("slot", &first) {
		d.Slot = r.number()
	}
	if r.field("node", &first) {
		d.Node = r.text()
	}
	if r.field("attempt", &first) {
		d.Attempt = r.number()
	}
	if r.field("iteration", &first) {
		d.Iteration = r.number()
	}
	if r.field("revision", &first) {
		d.Revision = r.text()
	}
	if r.field("state", &first) {
		d.State = r.state()
	}
	if r.field("startAfter", &first) {
		d.StartAfter = r.time()
	}
	if r.field("networks", &first) {
		d.Networks = list(r, (*lean).network)
	}
	if r.field("placement", &first) {
		d.Placement = r.placement()
	}
	if r.field("pending", &first) {
		d.Pending = r.text()
	}
	r.close()
}

func (r *lean) network() NetworkAddress {
	n, first := NetworkAddress{}, r.open()
	if r.field("network", &first) {
		n.Network = r.text()
	}
	if r.field("addresses", &first) {
		n.Addresses = list(r, (*lean).text)
	}
	r.close()
	return n
}

func (r *lean) placement() *TaskPlacement {
	p, first := new(TaskPlacement), r.open()
	if r.field("node", &first) {
		p.Node = r.text()
	}
	if r.field("at", &first) {
		p.At = r.time()
	}
	if r.field("cpus", &first) {
		p.CPUs = r.cpus()
	}
	if r.field("memory", &first) {
		n := r.number()
		p.Memory = Bytes(n)
		r.bad = r.bad || n > math.MaxInt64/2
	}
	r.close()
	return p
}

func (r *lean) status(s *TaskStatus) {
	first := r.open()
	if r.field("state", &first) {
		s.State = r.state()
	}
	if r.field("at", &first) {
		s.At = r.time()
	}
	if r.field("message", &first) {
		s.Message = r.text()
	}
	if r.field("err", &first) {
		s.Err = r.text()
	}
	if r.field("container", &first) {
		s.Container = r.container()
	}
	if r.field("address", &first) {
		s.Address = r.text()
	}
	r.close()
}

func (r *lean) container() *ContainerStatus {
	c, first := new(ContainerStatus), r.open()
	if r.field("id", &first) {
		c.ID = r.text()
	}
	if r.field("pid", &first) {
		n := r.number()
		c.PID = uint32(n)
		r.bad = r.bad || n > math.MaxUint32
	}
	if r.field("exitCode", &first) {
		n := r.number()
		code := int(n)
		c.ExitCode = &code
		r.bad = r.bad || n > math.MaxInt32
	}
	r.close()
	return c
}

// lean reads JSON whose fields are in the order that they are asked for, without spaces and escapes. Anything else makes
// it bad, and its results void.
type lean struct {
	data []byte
	at   int
	bad  bool
}

// done tells whether all of the data was read.
func (r *lean) done() bool { return !r.bad && r.at == len(r.data) }

// take passes over a byte that has to be there.
func (r *lean) take(b byte) {
	if r.at >= len(r.data) || r.data[r.at] != b {
		r.bad = true
		return
	}
	r.at++
}

// open begins an object; the result goes to its fields.
func (r *lean) open() (first bool) {
	r.take('{')
	return true
}

func (r *lean) close() { r.take('}') }

// list reads an array, element by element.
func list[V any](r *lean, element func(*lean) V) []V {
	r.take('[')
	values := []V{}
	for !r.bad && r.at < len(r.data) && r.data[r.at] != ']' {
		if len(values) > 0 {
			r.take(',')
		}
		values = append(values, element(r))
	}
	r.take(']')
	return values
}

// field tells whether the next field is the named one, and if so passes over its name.
func (r *lean) field(name string, first *bool) bool {
	at := r.at
	if !*first {
		if at >= len(r.data) || r.data[at] != ',' {
			return false
		}
		at++
	}
	end := at + len(name) + 3
	if r.bad || end > len(r.data) || r.data[at] != '"' || string(r.data[at+1:end-2]) != name || r.data[end-2] != '"' || r.data[end-1] != ':' {
		return false
	}
	r.at, *first = end, false
	return true
}

// quoted is a string without escapes and beyond ASCII, between its quotes.
func (r *lean) quoted() []byte {
	r.take('"')
	for i := r.at; i < len(r.data); i++ {
		switch c := r.data[i]; {
		case c == '"':
			text := r.data[r.at:i]
			r.at = i + 1
			return text
		case c < ' ' || c == '\\' || c >= 0x80:
			r.bad = true
			return nil
		}
	}
	r.bad = true
	return nil
}

func (r *lean) text() string { return string(r.quoted()) }

func (r *lean) state() TaskState {
	s, known := taskStates[string(r.quoted())]
	r.bad = r.bad || !known
	return s
}

func (r *lean) time() time.Time {
	var t time.Time
	r.bad = r.bad || t.UnmarshalText(r.quoted()) != nil
	return t
}

// number is a whole number that is not negative.
func (r *lean) number() uint64 {
	digits := r.digits("")
	n, err := strconv.ParseUint(string(digits), 10, 64)
	r.bad = r.bad || err != nil || len(digits) > 1 && digits[0] == '0'
	return n
}

// cpus is a number of cores, such as 0.5; those that JSON writes otherwise are rare.
func (r *lean) cpus() CPUs {
	text := r.digits(".")
	c, err := ParseCPUs(string(text))
	whole, fraction, dotted := bytes.Cut(text, []byte("."))
	r.bad = r.bad || err != nil || len(whole) == 0 || len(whole) > 1 && whole[0] == '0' || dotted && len(fraction) == 0
	return c
}

// digits is what follows of digits and other characters.
func (r *lean) digits(others string) []byte {
	start := r.at
	for r.at < len(r.data) && (isDigit(r.data[r.at]) || strings.IndexByte(others, r.data[r.at]) >= 0) {
		r.at++
	}
	return r.data[start:r.at]
}
