package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
)

// maxTemplate bounds a --format template, in bytes.
const maxTemplate = 64 << 10

// templateFuncs are those that Docker gives to its templates.
var templateFuncs = template.FuncMap{
	"json":  toJSON,
	"split": strings.Split,
	"join":  joinAny,
	"title": func(s string) string {
		var up bool
		return strings.Map(func(r rune) rune {
			was := up
			up = r != ' '
			if !was {
				return []rune(strings.ToUpper(string(r)))[0]
			}
			return r
		}, s)
	},
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"pad": func(s string, before, after int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", max(0, min(before, 1000))) + s + strings.Repeat(" ", max(0, min(after, 1000)))
	},
	"truncate": func(s string, n int) string {
		if len(s) < n || n < 0 {
			return s
		}
		return s[:n]
	},
}

// headerFuncs leave a column's heading as it is.
var headerFuncs = template.FuncMap{
	"json": same, "title": same, "lower": same, "upper": same,
	"split":    func(s, _ string) string { return s },
	"join":     func(s, _ string) string { return s },
	"truncate": func(s string, _ int) string { return s },
}

func same(s string) string { return s }

func toJSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}

func joinAny(elems any, sep string) (string, error) {
	if elems == nil {
		return "", nil
	}
	v := reflect.ValueOf(elems)
	if v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return "", fmt.Errorf("join: %T is no list", elems)
	}
	all := make([]string, v.Len())
	for i := range all {
		all[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(all, sep), nil
}

func parseTemplate(text string) (*template.Template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("template parsing error: the template is larger than %d bytes", maxTemplate)
	}
	t, err := template.New("").Funcs(templateFuncs).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

// table prints rows, structs of one type, the way Docker prints lists.
type table struct {
	// columns is the default format, such as "{{.ID}}\t{{.Name}}".
	columns string
	// raw is the format that --format raw means; empty where there is none.
	raw string
	// headings are by field name.
	headings map[string]string
}

// listFlags are those of every list.
type listFlags struct {
	filter  *list[string]
	format  string
	quiet   bool
	noTrunc bool
}

// write prints rows in a format: empty or "table" is the default table, "table TEMPLATE" a table of other columns, "json"
// an object a line, "raw" key: value, and everything else a template. Quiet prints IDs.
func (t table) write(w io.Writer, format string, quiet bool, rows []any) error {
	isTable := format == "" || strings.HasPrefix(format, "table")
	text := strings.TrimPrefix(format, "table")
	switch {
	case format == "" || format == "table":
		text = t.columns
		if quiet {
			text, isTable = "{{.ID}}", false
		}
	case format == "json":
		text = "{{json .}}"
	case format == "raw":
		text = t.raw
		if quiet {
			text = "id: {{.ID}}"
		}
	}
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(text, " "))
	tmpl, err := parseTemplate(text)
	if err != nil {
		return err
	}
	var body bytes.Buffer
	for _, row := range rows {
		if isTable {
			row = cells(row)
		}
		if err := tmpl.Execute(&body, row); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		body.WriteByte('\n')
	}
	if !isTable {
		_, err := body.WriteTo(w)
		return err
	}
	tw := tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
	if err := tmpl.Funcs(headerFuncs).Execute(tw, t.headings); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	fmt.Fprintln(tw)
	if _, err := body.WriteTo(tw); err != nil {
		return err
	}
	return tw.Flush()
}

// pretty capitalises a word the way Docker shows states.
func pretty[S ~string](s S) string {
	if len(s) < 2 {
		return strings.ToLower(string(s))
	}
	return strings.ToUpper(string(s[:1])) + strings.ToLower(string(s[1:]))
}

// shortID is the part of an ID that people are shown.
func shortID(id string) string { return id[:min(len(id), 12)] }

// ellipsis cuts s to width characters, the last of them an ellipsis.
func ellipsis(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:width-1]) + "…"
}

// naturalCompare orders names so that web.2 comes before web.10.
func naturalCompare(x, y string) int {
	i, j := 0, 0
	for i < len(x) && j < len(y) {
		if digit(x[i]) && digit(y[j]) {
			a, b := number(x[i:]), number(y[j:])
			i, j = i+len(a), j+len(b)
			a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
			if c := len(a) - len(b); c != 0 {
				return c
			}
			if c := strings.Compare(a, b); c != 0 {
				return c
			}
			continue
		}
		if x[i] != y[j] {
			return int(x[i]) - int(y[j])
		}
		i, j = i+1, j+1
	}
	if c := (len(x) - i) - (len(y) - j); c != 0 {
		return c
	}
	return strings.Compare(x, y)
}

func digit(b byte) bool { return '0' <= b && b <= '9' }

func number(s string) string {
	for i := range len(s) {
		if !digit(s[i]) {
			return s[:i]
		}
	}
	return s
}
