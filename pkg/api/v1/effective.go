package v1

// Effective is a service as its tasks are to be: what its user asks for, unless that failed and was rolled back. It shares all with s
// but the spec, and is s itself where nothing was rolled back. Who edits a service for its user begins with it, so that what failed
// does not come back with the next change.
func Effective(s *Service) *Service {
	if s == nil || s.Spec == nil || s.Desired == nil || s.Desired.RolledBack == nil {
		return s
	}
	back := s.Desired.RolledBack
	if back.From != RevisionID(s) {
		return s
	}
	spec := *s.Spec
	spec.Task, spec.Endpoint = back.Task, back.Endpoint
	as := *s
	as.Spec = &spec
	return &as
}

// RollingBack tells whether a service is on its way back to an earlier revision, or stopped on it: then ServiceSpec.Rollback holds in
// the place of Update.
func RollingBack(s *Service) bool {
	if s.Desired == nil || s.Desired.Update == nil {
		return false
	}
	state := s.Desired.Update.State
	return state == UpdateRollbackStarted || state == UpdateRollbackPaused
}

// PreviousRevision is the one of a service's revisions that a rollback goes to, or nil: what its latest rollout says, or else the latest that it
// is not at.
func PreviousRevision(s *Service, all []*ServiceRevision) (previous *ServiceRevision) {
	current := RevisionID(Effective(s))
	for _, r := range all {
		switch {
		case r.Meta.ID == current:
		case s.Desired == nil || s.Desired.Update == nil:
			if previous == nil || r.Spec.Number > previous.Spec.Number {
				previous = r
			}
		case r.Meta.ID == s.Desired.Update.Previous:
			return r
		}
	}
	return previous
}

// OrderNow is the order in which the tasks of a slot are replaced now.
func OrderNow(s *Service) UpdateOrder {
	u := s.Spec.Update
	if RollingBack(s) {
		u = s.Spec.Rollback
	}
	if u == nil || u.Order == "" {
		return StopFirst
	}
	return u.Order
}
