package netplugin

import "fmt"

// TaskError says why one task's link is not as it should be; the other tasks' are. The error of Apply may hold several:
// see TaskErrors.
type TaskError struct {
	// Task is the task's ID.
	Task string
	Err  error
}

// Error implements error.
func (e *TaskError) Error() string { return fmt.Sprintf("task %s: %v", e.Task, e.Err) }

// Unwrap is the cause.
func (e *TaskError) Unwrap() error { return e.Err }

// PortError says why one published port is not as it should be; the other ports and all links are.
type PortError struct {
	Protocol string
	Port     uint16
	Err      error
}

// Error implements error.
func (e *PortError) Error() string {
	return fmt.Sprintf("published port %s/%d: %v", e.Protocol, e.Port, e.Err)
}

// Unwrap is the cause.
func (e *PortError) Unwrap() error { return e.Err }

// PeerError says why another node cannot be reached; the others can.
type PeerError struct {
	// Node is its index.
	Node uint32
	Err  error
}

// Error implements error.
func (e *PeerError) Error() string { return fmt.Sprintf("node %d: %v", e.Node, e.Err) }

// Unwrap is the cause.
func (e *PeerError) Unwrap() error { return e.Err }

// TaskErrors are the causes by task ID that an error of Apply holds. Where alone is true, there are no others, but for a
// PortError, PeerError or OverlayError: the links of all other tasks are made. Where it is false, no link can be relied on before Apply is called again.
func TaskErrors(err error) (byTask map[string]error, alone bool) {
	byTask, alone = map[string]error{}, true
	for _, one := range single(err) {
		if e, is := one.(*TaskError); is {
			byTask[e.Task] = e.Err
		}
		alone = alone && isAlone(one)
	}
	return byTask, alone
}

// single are the errors that an error of Apply joins, each with what is said around it.
func single(err error) (all []error) {
	if isAlone(err) {
		return []error{err}
	}
	switch e := err.(type) {
	case nil:
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			all = append(all, single(one)...)
		}
	case interface{ Unwrap() error }:
		if all = single(e.Unwrap()); len(all) == 0 || len(all) == 1 && !isAlone(all[0]) {
			all = []error{err}
		}
	default:
		all = append(all, err)
	}
	return all
}

// isAlone tells whether an error is of one task, port, node or network.
func isAlone(err error) bool {
	switch err.(type) {
	case *TaskError, *PortError, *PeerError, *OverlayError:
		return true
	}
	return false
}

// OverlayError says why an overlay network is not as it should be, or what of it was left out; the other networks are. Tasks
// that cannot be linked for it have a TaskError each.
type OverlayError struct {
	// Overlay is the network's ID.
	Overlay string
	Err     error
}

// Error implements error.
func (e *OverlayError) Error() string { return fmt.Sprintf("network %s: %v", e.Overlay, e.Err) }

// Unwrap is the cause.
func (e *OverlayError) Unwrap() error { return e.Err }
