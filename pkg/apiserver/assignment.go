package apiserver

import (
	"encoding/json"
	"strconv"
	"sync"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// assignment is a v1.Assignment that is about to be sent.
type assignment v1.Assignment

func (a *assignment) empty() bool {
	return !a.Complete && a.Node == nil && a.GatewayPool == "" && a.GatewayPrefix6 == "" && a.Swarm == nil && len(a.Tasks) == 0 && len(a.Removed) == 0 &&
		len(a.Services) == 0 && len(a.Secrets) == 0 && len(a.Configs) == 0 && len(a.Streams) == 0 && len(a.Released) == 0 && a.Logins == nil
}

// encoder writes assignments. A service revision goes to many nodes and hardly ever changes: its JSON is kept.
type encoder struct {
	mu        sync.Mutex
	revisions map[string][]byte
	size      int
}

// maxKept bounds the JSON of revisions that is kept, in bytes.
const maxKept = 16 << 20

// append appends an assignment as one line. What it says of the swarm and of peers is given, as JSON that is the same for many
// nodes.
func (e *encoder) append(buf []byte, a *assignment, swarm []byte, peers *peerChanges) ([]byte, error) {
	var err error
	buf = strconv.AppendInt(append(buf, `{"revision":`...), a.Revision, 10)
	if a.Complete {
		buf = append(buf, `,"complete":true`...)
	}
	if a.Node != nil {
		node := *a.Node
		node.Status = nil
		if buf, err = appendField(buf, "node", &node); err != nil {
			return buf, err
		}
	}
	if buf, err = a.appendGateway(buf); err != nil {
		return buf, err
	}
	if a.Swarm != nil {
		buf = append(append(buf, `,"swarm":`...), swarm...)
	}
	if len(a.Tasks) > 0 {
		buf = append(buf, `,"tasks":[`...)
		for i, t := range a.Tasks {
			if i > 0 {
				buf = append(buf, ',')
			}
			if buf, err = a.appendTask(buf, t); err != nil {
				return buf, err
			}
		}
		buf = append(buf, ']')
	}
	if len(a.Services) > 0 {
		buf = append(buf, `,"services":[`...)
		for i, r := range a.Services {
			if i > 0 {
				buf = append(buf, ',')
			}
			body, err := e.revision(r)
			if err != nil {
				return buf, err
			}
			buf = append(buf, body...)
		}
		buf = append(buf, ']')
	}
	for _, field := range []struct {
		name string
		v    any
		is   bool
	}{
		{"removed", a.Removed, len(a.Removed) > 0}, {"secrets", a.Secrets, len(a.Secrets) > 0}, {"configs", a.Configs, len(a.Configs) > 0},
		{"logins", a.Logins, a.Logins != nil}, {"streams", a.Streams, len(a.Streams) > 0}, {"released", a.Released, len(a.Released) > 0},
	} {
		if !field.is {
			continue
		}
		if buf, err = appendField(buf, field.name, field.v); err != nil {
			return buf, err
		}
	}
	if !peers.empty() {
		if buf, err = peers.append(append(buf, `,"peers":`...)); err != nil {
			return buf, err
		}
	}
	return append(buf, "}\n"...), nil
}

// appendGateway writes what the addresses of the gateway network follow from.
func (a *assignment) appendGateway(buf []byte) (_ []byte, err error) {
	for _, f := range [][2]string{{"gatewayPool", a.GatewayPool}, {"gatewayPrefix6", a.GatewayPrefix6}} {
		if f[1] == "" {
			continue
		}
		if buf, err = appendField(buf, f[0], f[1]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// appendTask appends a task. Its status goes along at the beginning of a session only, for an agent that lost what it
// remembered: a task that ended must not run again.
func (a *assignment) appendTask(buf []byte, t *v1.Task) ([]byte, error) {
	if !a.Complete || t.Status == nil {
		return appendTask(buf, t)
	}
	body, err := json.Marshal(t)
	return append(buf, body...), err
}

func appendField(buf []byte, name string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return buf, err
	}
	buf = append(append(append(buf, `,"`...), name...), `":`...)
	return append(buf, body...), nil
}

// revision is the JSON of a service revision.
func (e *encoder) revision(r *v1.ServiceRevision) ([]byte, error) {
	key := r.Meta.ID + "@" + strconv.FormatInt(r.Meta.Revisions.Max(), 10)
	e.mu.Lock()
	body, ok := e.revisions[key]
	e.mu.Unlock()
	if ok {
		return body, nil
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.revisions == nil || e.size+len(body) > maxKept {
		e.revisions, e.size = make(map[string][]byte), 0
	}
	if _, raced := e.revisions[key]; !raced {
		e.revisions[key] = body
		e.size += len(body)
	}
	return body, nil
}

// appendFarewell appends the last line of a session.
func appendFarewell(buf []byte, p *v1.Problem) []byte {
	body, err := json.Marshal(p)
	if err != nil {
		return buf
	}
	buf = append(append(buf, `{"revision":0,"problem":`...), body...)
	return append(buf, "}\n"...)
}
