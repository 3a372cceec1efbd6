package apiserver

import (
	"net/http"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// ownRoutes are events, counts, and what the server says of itself.
func (s *Server) ownRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/events", resource: "events", stream: true, may: rightsView, query: []string{"filter", "after"}, out: v1.Event{},
			summary: "Watch what happens in the swarm.", handle: s.events},
		{method: http.MethodGet, path: "/v1/services:status", resource: "services", may: rightsView, query: []string{"id"}, out: map[string]v1.ServiceStatus{},
			summary: "Count the tasks of services, by ID.", handle: s.serviceStatus},
		{method: http.MethodGet, path: "/v1/audit", resource: "audit", may: rightsAdmin, audit: auditAlways, query: []string{"since", "limit"}, out: v1.AuditLog{},
			summary: "Read the newest of this manager's audit log, newest last.", handle: s.showAudit},
		{method: http.MethodGet, path: "/openapi.json", resource: "openapi", may: rightsView, summary: "This document.", handle: s.document},
		{method: http.MethodGet, path: "/healthz", resource: "healthz", may: rightsAnyone, free: true, unlocked: true, summary: "Tell whether the server lives.", handle: healthy},
		{method: http.MethodGet, path: "/readyz", resource: "readyz", may: rightsView, summary: "Tell whether the server has a store and has read it.", handle: s.ready},
		{method: http.MethodGet, path: "/metrics", resource: "metrics", may: rightsView, summary: "Metrics for Prometheus.", handle: s.showMetrics},
	}
}

func healthy(w http.ResponseWriter, _ *http.Request) error {
	writeBody(w, http.StatusOK, []byte(`{"status":"ok"}`))
	return nil
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	b, err := s.attached()
	if err != nil {
		return err
	}
	if !b.ready.Load() {
		return problemf(http.StatusServiceUnavailable, "the store is being read")
	}
	if _, err := b.store.Snapshot(r.Context(), 0); err != nil {
		return err
	}
	return healthy(w, r)
}

func (s *Server) showMetrics(w http.ResponseWriter, r *http.Request) error {
	s.metrics.handler().ServeHTTP(w, r)
	return nil
}

func (s *Server) document(w http.ResponseWriter, _ *http.Request) error {
	body, err := s.openapi()
	if err != nil {
		return err
	}
	writeBody(w, http.StatusOK, body)
	return nil
}

// maxStatuses bounds how many services one request names.
const maxStatuses = 1000

// serviceStatus counts the tasks of services: Docker's ServiceStatus, for "service ls".
func (s *Server) serviceStatus(w http.ResponseWriter, r *http.Request) error {
	snapshot, err := s.snapshot(r)
	if err != nil {
		return err
	}
	ids := r.URL.Query()["id"]
	if len(ids) > maxStatuses {
		return problemf(http.StatusBadRequest, "%d services are too many: at most %d, or none for all", len(ids), maxStatuses)
	}
	statuses := make(map[string]v1.ServiceStatus)
	if len(ids) == 0 {
		for service := range store.All(snapshot, v1.Services) {
			if there(service) {
				statuses[service.Meta.ID] = statusOf(snapshot, service)
			}
		}
	}
	for _, id := range ids {
		if service, ok := store.Get(snapshot, v1.Services, id); ok {
			statuses[id] = statusOf(snapshot, service)
		}
	}
	return writeJSON(w, http.StatusOK, statuses)
}

// statusOf counts as Docker does: what a global service desires is what its nodes were given and are not lost with, and have not
// completed.
func statusOf(s *store.Snapshot, service *v1.Service) v1.ServiceStatus {
	counts := s.CountsOf(service.Meta.ID)
	st := v1.ServiceStatus{RunningTasks: uint64(counts.Running), CompletedTasks: uint64(counts.Complete)}
	switch service.Spec.Mode {
	case v1.ModeReplicatedJob:
		st.DesiredTasks = orZero(service.Spec.MaxConcurrent)
	case v1.ModeCron:
		st.DesiredTasks = uint64(counts.Live)
	case v1.ModeGlobal, v1.ModeGlobalJob:
		for t := range s.TasksOfService(service.Meta.ID) {
			if t.Desired.State > v1.TaskComplete || v1.Observed(t) == v1.TaskComplete {
				continue
			}
			if n, ok := store.Get(s, v1.Nodes, v1.TaskNode(t)); !ok || !v1.NodeLost(n) {
				st.DesiredTasks++
			}
		}
	default:
		st.DesiredTasks = orZero(service.Spec.Replicas)
	}
	return st
}

func orZero(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}
