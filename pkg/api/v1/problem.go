package v1

import "strings"

// Problem is how the API reports an error: an RFC 9457 problem document.
type Problem struct {
	Type   string `json:"type,omitempty"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	// Detail says what was wrong and what to do about it.
	Detail string `json:"detail,omitempty"`
	// Errors are the fields at fault, where there are any.
	Errors []FieldError `json:"errors,omitempty"`
}

// ProblemNotManager is the type of the problem of a daemon that did nothing because it is no manager, or not yet: another may do
// what was asked.
const ProblemNotManager = "swarm/v1/not-manager"

// Error is the problem for people.
func (p *Problem) Error() string {
	if len(p.Errors) == 0 {
		if p.Detail != "" {
			return p.Detail
		}
		return p.Title
	}
	lines := make([]string, len(p.Errors))
	for i, e := range p.Errors {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// FieldError is what is wrong with one field.
type FieldError struct {
	// Field is the path, such as spec.endpoint.ports[0].target.
	Field string `json:"field"`
	// Message says what is wrong, and what would be right.
	Message string `json:"message"`
}

// Error implements error.
func (e FieldError) Error() string {
	if e.Field == "" { // the document as a whole
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// FieldErrors are all that is wrong with an object.
type FieldErrors []FieldError

// Error lists them, one a line.
func (e FieldErrors) Error() string {
	return (&Problem{Errors: e}).Error()
}
