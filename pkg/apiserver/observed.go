package apiserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"unicode"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Limits on what a node says of itself and of its tasks, in bytes where nothing else is said. All of it is stored; an honest agent
// is far below.
const (
	maxReport     = 10_000 // tasks
	maxReportBody = 16 << 20
	maxStatusText = 4096 // of a message or an error; more is cut off

	maxContainerID = 128
	maxAddr        = 64
	maxPortName    = 64
	maxPorts       = 1000 // in number, as in a spec
	maxAloneTimes  = v1.MaxRestartAttempts

	maxDescription = 32 << 10
	maxHostname    = 253
	maxWord        = 128 // a version, a platform
	maxDigests     = 8   // in number
	maxDigest      = 64
	maxGeneric     = v1.MaxGenericResources
	maxEngineLabel = 512
	maxLabelText   = 4096
)

// decodeReport reads a report strictly, refuses what no honest agent sends, and cuts texts that are too long to be stored.
func decodeReport(body []byte, report *v1.StatusReport) error {
	if err := v1.DecodeStrict(body, report); err != nil {
		return err
	}
	if len(report.Tasks) > maxReport {
		return problemf(http.StatusRequestEntityTooLarge, "%d tasks are too many in one report: at most %d", len(report.Tasks), maxReport)
	}
	seen := make(map[string]int, len(report.Tasks))
	for i := range report.Tasks {
		t := &report.Tasks[i]
		field := fmt.Sprintf("tasks[%d]", i)
		if t.ID == "" || len(t.ID) > maxID {
			return v1.FieldErrors{{Field: field + ".id", Message: fmt.Sprintf("want 1 to %d characters", maxID)}}
		}
		if first, twice := seen[t.ID]; twice {
			return v1.FieldErrors{{Field: field + ".id", Message: fmt.Sprintf("is that of tasks[%d] already: a report has each task once", first)}}
		}
		seen[t.ID] = i
		if errs := checkStatus(&t.Status, field+".status"); len(errs) > 0 {
			return errs
		}
	}
	return nil
}

// checkStatus is what is wrong with a task's status. Texts for people are cut and cleaned instead.
func checkStatus(st *v1.TaskStatus, field string) v1.FieldErrors {
	var c checker
	st.Message, st.Err = cleaned(cut(st.Message)), cleaned(cut(st.Err))
	if st.Container != nil {
		c.word(field+".container.id", st.Container.ID, maxContainerID)
	}
	c.addr(field+".address", st.Address)
	c.count(field+".ports", len(st.Ports), maxPorts)
	for i := range st.Ports {
		p, at := &st.Ports[i], fmt.Sprintf("%s.ports[%d]", field, i)
		c.word(at+".name", p.Name, maxPortName)
		c.word(at+".protocol", string(p.Protocol), maxPortName)
		c.word(at+".mode", string(p.Mode), maxPortName)
	}
	if own := st.Alone; own != nil {
		own.Last = cleaned(cut(own.Last))
		c.count(field+".alone.times", len(own.Times), maxAloneTimes)
	}
	return c.errs
}

// statusSize is about what a status takes in the store, in bytes.
func statusSize(st *v1.TaskStatus) int {
	size := 160 + len(st.Message) + len(st.Err) + len(st.Address)
	for i := range st.Ports {
		size += 80 + len(st.Ports[i].Name)
	}
	if st.Container != nil {
		size += 60 + len(st.Container.ID)
	}
	if st.Alone != nil {
		size += 80 + len(st.Alone.Last) + 40*len(st.Alone.Times)
	}
	return size
}

// checkDescription is what is wrong with what a node says of itself. A host may be called anything: what is no part of a host's name
// is replaced.
func checkDescription(d *v1.NodeDescription) error {
	if body, err := json.Marshal(d); err != nil || len(body) > maxDescription {
		return v1.FieldErrors{{Field: "description", Message: fmt.Sprintf("is larger than %d bytes", maxDescription)}}
	}
	var c checker
	if len(d.Hostname) > maxHostname {
		c.wrong("description.hostname", fmt.Sprintf("is longer than %d bytes", maxHostname))
	}
	d.Hostname = strings.Map(hostRune, d.Hostname)
	c.addr("description.addr", d.Addr)
	c.addr("description.dataAddr", d.DataAddr)
	for _, w := range []struct{ field, text string }{
		{"platform.architecture", d.Platform.Architecture}, {"platform.os", d.Platform.OS},
		{"engine.version", d.Engine.Version}, {"engine.runtime", d.Engine.Runtime},
	} {
		c.word("description."+w.field, w.text, maxWord)
	}
	c.word("description.dataKey", d.DataKey, maxWord)
	c.tls(d.TLS)
	c.count("description.resources.generic", len(d.Resources.Generic), maxGeneric)
	for i, g := range d.Resources.Generic {
		c.word(fmt.Sprintf("description.resources.generic[%d].kind", i), g.Kind, maxWord)
		c.word(fmt.Sprintf("description.resources.generic[%d].value", i), g.Value, maxWord)
		if g.Kind == "" || g.Count < 0 || g.Value != "" && g.Count != 0 {
			c.wrong(fmt.Sprintf("description.resources.generic[%d]", i), "is no generic resource: want a kind with a value, or with a count")
		}
	}
	c.labels(d.Engine.Labels)
	c.volumes(d.Volumes)
	if len(c.errs) > 0 {
		return c.errs
	}
	return nil
}

// descriptionSize is about what a description takes in the store, in bytes.
func descriptionSize(d *v1.NodeDescription) int {
	body, _ := json.Marshal(d) // it was checked
	return len(body)
}

// checker gathers what is wrong.
type checker struct{ errs v1.FieldErrors }

func (c *checker) wrong(field, message string) {
	c.errs = append(c.errs, v1.FieldError{Field: field, Message: message})
}

// word is for what may be empty, and else is short and printable.
func (c *checker) word(field, text string, most int) {
	if len(text) > most || !isLine(text) {
		c.wrong(field, fmt.Sprintf("want at most %d bytes, all printable", most))
	}
}

func (c *checker) count(field string, n, most int) {
	if n > most {
		c.wrong(field, fmt.Sprintf("has %d entries, at most %d are allowed", n, most))
	}
}

func (c *checker) addr(field, text string) {
	if text == "" {
		return
	}
	if _, err := netip.ParseAddr(text); err != nil || len(text) > maxAddr || !isLine(text) {
		c.wrong(field, "want an IP address, or none")
	}
}

func (c *checker) tls(t *v1.NodeTLS) {
	if t == nil {
		return
	}
	c.word("description.tls.issuer", t.Issuer, maxDigest)
	c.count("description.tls.roots", len(t.Roots), maxDigests)
	for i, root := range t.Roots {
		c.word(fmt.Sprintf("description.tls.roots[%d]", i), root, maxDigest)
	}
}

func (c *checker) labels(labels map[string]string) {
	for key, value := range labels {
		if len(key) > maxEngineLabel || !isLine(key) || len(value) > maxLabelText || !isLine(value) {
			c.wrong("description.engine.labels", fmt.Sprintf("label %q: want at most %d bytes in its name and %d in its value, all printable",
				clip(key), maxEngineLabel, maxLabelText))
			return
		}
	}
}

func (c *checker) volumes(names []string) {
	size := 0
	for i, name := range names {
		if size += len(name); size > v1.MaxNodeVolumes || v1.ValidateName(v1.KindVolume, name) != nil {
			c.wrong("description.volumes", fmt.Sprintf("entry %d: want names of volumes, %d bytes in all", i, v1.MaxNodeVolumes))
			return
		}
	}
}

// hostRune is a character of a host's name, or what stands for one that is none.
func hostRune(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.', r == '_':
		return r
	}
	return '-'
}

// cleaned is a text without what would change how a terminal shows it, or what is around it: control characters but for ends of lines
// and tabs, and marks of direction.
func cleaned(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == ' ' || unicode.IsGraphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// isLine tells whether a text is one line that a terminal shows as it is.
func isLine(text string) bool { return cleaned(text) == text && !strings.ContainsAny(text, "\n\t") }

func cut(text string) string {
	if len(text) <= maxStatusText {
		return text
	}
	return strings.ToValidUTF8(text[:maxStatusText], "") + "…"
}
