package apiserver

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// events streams what happens in the swarm, in the words of Docker's events. It begins now where no revision is named.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	filter, err := filterOf(r, v1.KindEvent)
	if err != nil {
		return err
	}
	return s.watching(w, r, func(f *feed, _ *store.Snapshot) error {
		f.add = func(buf []byte, c *store.Change, revision int64) ([]byte, error) {
			event, ok := eventOf(c, revision, s.now)
			if !ok || !passes(filter, &event, c) {
				return buf, nil
			}
			body, err := json.Marshal(&event)
			return f.stream.appendEvent(buf, "event", revision, body), err
		}
		return nil
	})
}

// The actions of events.
const (
	actionCreate = "create"
	actionUpdate = "update"
	actionRemove = "remove"
)

// eventOf is the event that a change is, if it is one. A service is removed when its owner says so, not when the last of
// it is gone.
func eventOf(c *store.Change, revision int64, now func() time.Time) (v1.Event, bool) {
	typ := strings.ToLower(string(c.Kind))
	switch c.Kind {
	case v1.KindClaim, v1.KindServiceRevision, v1.KindCluster, v1.KindUser, v1.KindAuthority, v1.KindPresence, v1.KindMember:
		return v1.Event{}, false
	}
	wasThere, isThere := there(c.Old), there(c.New)
	event := v1.Event{Type: typ, ID: c.ID, Revision: revision, Attributes: make(map[string]string)}
	seen := c.New
	switch {
	case !wasThere && !isThere:
		return v1.Event{}, false
	case !wasThere:
		event.Action = actionCreate
	case !isThere:
		event.Action = actionRemove
		if c.New == nil {
			seen = c.Old
		}
	default:
		event.Action = actionUpdate
		if !differs(event.Attributes, c.Old, c.New) {
			return v1.Event{}, false
		}
	}
	event.Time = timeOf(seen, revision, now)
	if name := nameOf(seen); name != "" {
		event.Attributes["name"] = name
	}
	if t, ok := seen.(*v1.Task); ok {
		event.Attributes["service"] = t.Desired.Service
		if node := v1.TaskNode(t); node != "" {
			event.Attributes["node"] = node
		}
	}
	return event, true
}

func there(o v1.Object) bool { return o != nil && o.GetMeta().Deleting.IsZero() }

// timeOf is when the change was made, where the object tells.
func timeOf(o v1.Object, revision int64, now func() time.Time) time.Time {
	m := o.GetMeta()
	home := v1.SectionSpec
	status := time.Time{}
	switch o := o.(type) {
	case *v1.Task:
		home = v1.SectionDesired
		if o.Status != nil {
			status = o.Status.At
		}
	case *v1.Node:
		if o.Status != nil {
			status = o.Status.At
		}
	}
	switch {
	case m.Revisions[home] == revision && !m.UpdatedAt.IsZero():
		return m.UpdatedAt
	case m.Revisions[v1.SectionStatus] == revision && !status.IsZero():
		return status
	}
	return now().UTC()
}

// differs tells whether an update is worth an event, and notes what changed.
func differs(attributes map[string]string, before, after v1.Object) bool {
	note := func(what, was, is string) {
		if was != is {
			attributes[what+".old"], attributes[what+".new"] = was, is
		}
	}
	switch after := after.(type) {
	case *v1.Service:
		before := before.(*v1.Service)
		note("image", before.Spec.Task.Container.Image, after.Spec.Task.Container.Image)
		note("replicas", replicas(before), replicas(after))
		note("updatestate", updateState(before), updateState(after))
	case *v1.Node:
		before := before.(*v1.Node)
		note("availability", string(before.Spec.Availability), string(after.Spec.Availability))
		note("role", string(before.Spec.Role), string(after.Spec.Role))
		note("state", string(nodeState(before)), string(nodeState(after)))
	case *v1.Task:
		before := before.(*v1.Task)
		note("state", v1.Observed(before).String(), v1.Observed(after).String())
		note("desiredstate", before.Desired.State.String(), after.Desired.State.String())
		return len(attributes) > 0
	}
	was, is := before.GetMeta().Revisions, after.GetMeta().Revisions
	return len(attributes) > 0 || was[v1.SectionSpec] != is[v1.SectionSpec]
}

func replicas(s *v1.Service) string {
	if s.Spec.Replicas == nil {
		return ""
	}
	return strconv.FormatUint(*s.Spec.Replicas, 10)
}

func updateState(s *v1.Service) string {
	if s.Desired == nil || s.Desired.Update == nil {
		return ""
	}
	return string(s.Desired.Update.State)
}

// passes tells whether an event passes a filter. A kind's own key lets through that kind's events alone.
func passes(f v1.Filter, e *v1.Event, c *store.Change) bool {
	for key, values := range f {
		ok := false
		switch key {
		case "type":
			ok = slices.Contains(values, e.Type)
		case "event":
			ok = slices.Contains(values, e.Action)
		case "scope":
			ok = slices.Contains(values, "swarm")
		case "label":
			obj := c.New
			if obj == nil {
				obj = c.Old
			}
			ok = labelled(obj.GetMeta().Labels, values)
		default:
			ok = key == e.Type && (slices.Contains(values, e.ID) || slices.Contains(values, e.Attributes["name"]))
		}
		if !ok {
			return false
		}
	}
	return true
}
