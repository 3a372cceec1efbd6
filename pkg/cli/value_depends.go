package cli

import (
	"fmt"
	"strings"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// parseDependency reads SERVICE[=started|healthy|completed].
func parseDependency(text string) (v1.Dependency, error) {
	service, condition, given := strings.Cut(text, "=")
	d := v1.Dependency{Service: service, Condition: v1.DependencyCondition(condition)}
	if service == "" || given && condition == "" {
		return d, fmt.Errorf("%q is no dependency: want SERVICE, or SERVICE=started, healthy or completed", text)
	}
	return d, nil
}
