package cli

import (
	"reflect"
	"strings"
	"unicode"
)

// What nodes, containers and strangers say of themselves is shown to people: it must not move the cursor, forge a line, or turn text
// around. JSON, YAML and templates of the user's own are data and stay as they are.

// cell is text without what a table cannot hold: control characters, line breaks among them, become visible.
func cell(text string) string { return visible(text, "") }

// paragraph is cell for text that may have several lines.
func paragraph(text string) string { return visible(text, "\n\t") }

func visible(text, but string) string {
	odd := func(r rune) bool {
		return (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) && !strings.ContainsRune(but, r)
	}
	if !strings.ContainsFunc(text, odd) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if odd(r) {
			r = unicode.ReplacementChar
		}
		b.WriteRune(r)
	}
	return b.String()
}

// cells is a row, a struct, with its texts as cells.
func cells(row any) any {
	v := reflect.ValueOf(row)
	if v.Kind() != reflect.Struct {
		return row
	}
	clean := reflect.New(v.Type()).Elem()
	clean.Set(v)
	for _, f := range clean.Fields() {
		if f.Kind() == reflect.String && f.CanSet() {
			f.SetString(cell(f.String()))
		}
	}
	return clean.Interface()
}
