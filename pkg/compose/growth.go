package compose

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	definition = regexp.MustCompile(`^\s*(?:export\s+)?([A-Za-z0-9_.\-]+)\s*[=:]\s*(.*)$`)
	referenced = regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)
)

// maxVariables is what the variables of one file may hold together, in bytes, once they are filled in.
const maxVariables = 8 << 20

// checkGrowth refuses a file whose variables refer to each other so that a few lines would fill the memory. It counts what each may
// hold at most, before anything is filled in.
func checkGrowth(name string, data []byte, lookup func(string) (string, bool)) error {
	sizes := make(map[string]int)
	total, current, quote := 0, "", ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		if quote == "" {
			m := definition.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			current = m[1]
			sizes[current] = 0
			quote = opens(m[2])
		} else if closes(line, quote) {
			quote = ""
		}
		size := len(line)
		for _, ref := range referenced.FindAllStringSubmatch(line, -1) {
			outer, _ := lookup(ref[1])
			size += max(sizes[ref[1]], len(outer))
			if size > maxVariables {
				break
			}
		}
		sizes[current] += size
		if total += size; total > maxVariables {
			return fmt.Errorf("%s: the variables are too large once they are filled in: want at most %d bytes", name, maxVariables)
		}
	}
	return nil
}

// opens is the quote that a value begins with and that its line does not close; empty where there is none.
func opens(value string) string {
	if value == "" || value[0] != '"' && value[0] != '\'' {
		return ""
	}
	if quote := value[:1]; !closes(value[1:], quote) {
		return quote
	}
	return ""
}

func closes(line, quote string) bool {
	return strings.Contains(strings.ReplaceAll(line, `\`+quote, ""), quote)
}
