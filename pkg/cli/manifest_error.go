package cli

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
)

var yamlLine = regexp.MustCompile(`line (\d+): ?`)

// yamlError is an error of the YAML reader with the lines of the file, not of the document, and without the reader's own
// names.
func yamlError(err error, first int) error {
	text := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	text = strings.TrimPrefix(text, "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n")
	text = yamlLine.ReplaceAllStringFunc(text, func(match string) string {
		n, err := strconv.Atoi(yamlLine.FindStringSubmatch(match)[1])
		if err != nil {
			return match
		}
		return "line " + strconv.Itoa(n+first-1) + ": "
	})
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = "YAML: " + strings.TrimSpace(line)
	}
	return errors.New(strings.Join(lines, "\n"))
}
