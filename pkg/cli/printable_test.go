package cli

import (
	"bytes"
	"strings"
	"testing"
)

// TestTablesCannotBeForged: what a node or a stranger calls itself stays in its cell.
func TestTablesCannotBeForged(t *testing.T) {
	var out bytes.Buffer
	rows := []any{auditRow{Who: "root", What: "DELETE /v1/services/x\n2026-11-22T14:30:00Z   root\x1b[K\u202e"}, nodeRow{}}[:1]
	if err := auditTable.write(&out, "", false, rows); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "\n"); n != 2 || strings.ContainsAny(out.String(), "\x1b\u202e") {
		t.Errorf("%d lines, want a heading and a row without escapes:\n%q", n, out.String())
	}
	if got := paragraph("a\tb\nc\x07\u009b"); got != "a\tb\nc\uFFFD\uFFFD" {
		t.Errorf("%q", got)
	}
	if got := cell("plain ✓ text"); got != "plain ✓ text" {
		t.Errorf("%q", got)
	}
}
