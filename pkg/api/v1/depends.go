package v1

import (
	"fmt"
	"slices"
)

// Dependency is a service that has to be there before the tasks of another are given nodes for the first time.
type Dependency struct {
	// Service is its name.
	Service string `json:"service"`
	// Condition is what it has to have come to; default started.
	Condition DependencyCondition `json:"condition,omitempty"`
	// Optional: it is not waited for where there is no such service.
	Optional bool `json:"optional,omitempty"`
}

// DependencyCondition is what a service has to have come to.
type DependencyCondition string

// The conditions, in Compose's words.
const (
	// DependsStarted: all its tasks were started; they need not be healthy.
	DependsStarted DependencyCondition = "started"
	// DependsHealthy: all its tasks run and are healthy, where they have a health check.
	DependsHealthy DependencyCondition = "healthy"
	// DependsCompleted: all its tasks have ended with exit code 0, and are not started again.
	DependsCompleted DependencyCondition = "completed"
)

const maxDependencies = 100

func (c *checker) dependencies(field string, list []Dependency) {
	if !c.count(field, len(list), maxDependencies) {
		return
	}
	seen := make(map[string]bool, len(list))
	for i, d := range list {
		entry := at(field, i)
		switch err := ValidateName(KindService, d.Service); {
		case err != nil:
			c.fail(entry+".service", "%v", err)
		case seen[d.Service]:
			c.fail(entry+".service", "%q is given twice", cut(d.Service))
		}
		seen[d.Service] = true
		choice(c, entry+".condition", d.Condition, DependsStarted, DependsHealthy, DependsCompleted)
	}
}

// Wants is how the condition is said to people who wait for it.
func (d Dependency) Wants() string {
	switch d.Condition {
	case DependsHealthy:
		return "be healthy"
	case DependsCompleted:
		return "complete"
	}
	return "be started"
}

// Meets tells whether a task has come to what a dependency on its service wants.
func (d Dependency) Meets(t *Task) bool {
	state := Observed(t)
	switch d.Condition {
	case DependsCompleted:
		return state == TaskComplete
	case DependsHealthy:
		return Serves(t) || state == TaskComplete
	}
	return t.Desired.State <= TaskComplete && (state == TaskStarting || state == TaskRunning) || state == TaskComplete
}

// cycle says how services depend on each other in a circle.
func cycle(path []string) string {
	text := path[0]
	for _, name := range path[1:] {
		text = fmt.Sprintf("%s needs %s", text, name)
	}
	return text
}

// DependencyCycle is how a service comes to depend on itself, such as "a needs b needs a", and "" where it does not. On tells what a
// service of a name depends on.
func DependencyCycle(name string, on func(string) []Dependency) string {
	seen := make(map[string]bool)
	var visit func(path []string) string
	visit = func(path []string) string {
		for _, d := range on(path[len(path)-1]) {
			if d.Service == name {
				return cycle(append(path, name))
			}
			if seen[d.Service] {
				continue
			}
			seen[d.Service] = true
			if found := visit(append(slices.Clip(path), d.Service)); found != "" {
				return found
			}
		}
		return ""
	}
	return visit([]string{name})
}
