package arch

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page that compares swarmd with Swarm row by row, and what its second column says.
const (
	semanticsPage = "docs/semantics.md"
	asDocker      = "`=`"
	onPurpose     = "`≠`"
	notHere       = "`✗`"
	notYet        = "`…`"
)

// named is something between backticks.
var named = regexp.MustCompile("`([^`]+)`")

// semantic is a row of the page.
type semantic struct {
	line           int
	feature, mark  string
	shown          string
	tests          []string // as they are written
	isNot, noTests bool     // it says that there is nothing to test, or no test
}

// semanticsOf reads the tables of a page that have four columns, without their heads.
func semanticsOf(page string) (rows []semantic, errs []string) {
	sections := 0
	for i, line := range strings.Split(page, "\n") {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		switch {
		case strings.HasPrefix(line, "## "):
			sections++
			continue
		case sections == 0 || !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| feature |"):
			continue
		case len(cells) != 4:
			errs = append(errs, fmt.Sprintf("%s:%d: has %d columns, want 4", semanticsPage, i+1, len(cells)))
			continue
		}
		r := semantic{line: i + 1, feature: strings.TrimSpace(cells[0]), mark: "`" + strings.TrimSpace(cells[1]) + "`", shown: strings.TrimSpace(cells[3])}
		for _, m := range named.FindAllStringSubmatch(r.shown, -1) {
			r.tests = append(r.tests, m[1])
		}
		r.isNot, r.noTests = strings.HasPrefix(r.shown, "not here"), r.shown == "no test"
		rows = append(rows, r)
	}
	return rows, errs
}

// errors are what is wrong with a row, apart from its tests not being there.
func (r *semantic) errors() (errs []string) {
	fail := func(text string) {
		errs = append(errs, fmt.Sprintf("%s:%d: %s: %s", semanticsPage, r.line, r.feature, text))
	}
	if !slices.Contains([]string{asDocker, onPurpose, notHere, notYet}, r.mark) {
		fail(fmt.Sprintf("%s says nothing of how it compares", r.mark))
	}
	if len(r.tests) == 0 && !r.isNot && !r.noTests {
		fail(fmt.Sprintf("%q names no test: say \"no test\" or \"not here\"", r.shown))
	}
	if r.isNot && r.mark != notHere && r.mark != notYet {
		fail("is not here, and compares")
	}
	return errs
}

// check looks for what a row names: a file of testdata, or a test function of a package.
func (r *semantic) check(top string, functions map[string]map[string]bool) (errs []string) {
	for _, test := range r.tests {
		where, name, isFunction := strings.Cut(test, " ")
		if !isFunction {
			folder, file, _ := strings.Cut(where, "/")
			if _, err := os.Stat(filepath.Join(top, "pkg", folder, "testdata", filepath.FromSlash(file))); err != nil || filepath.Ext(file) != ".txtar" {
				errs = append(errs, fmt.Sprintf("%s:%d: %s: there is no scenario pkg/%s/testdata/%s", semanticsPage, r.line, r.feature, folder, file))
			}
			continue
		}
		known, read := functions[where]
		if !read {
			var err error
			if known, err = testFunctions(filepath.Join(top, filepath.FromSlash(where))); err != nil {
				errs = append(errs, fmt.Sprintf("%s:%d: %s: %v", semanticsPage, r.line, r.feature, err))
			}
			functions[where] = known
		}
		name, _, _ = strings.Cut(name, "/") // of a subtest
		if !known[name] {
			errs = append(errs, fmt.Sprintf("%s:%d: %s: there is no test %s in %s", semanticsPage, r.line, r.feature, name, where))
		}
	}
	return errs
}

// testFunctions are the names of the tests and fuzz targets in a package.
func testFunctions(folder string) (map[string]bool, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err == nil && len(files) == 0 {
		err = errors.New("there are no tests in " + folder)
	}
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) {
				found[f.Name.Name] = true
			}
		}
	}
	return found, nil
}

// TestSemantics holds the page to naming tests that are there, and tells which rows name none.
func TestSemantics(t *testing.T) {
	top := root(t)
	page, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(semanticsPage)))
	if err != nil {
		t.Fatal(err)
	}
	rows, errs := semanticsOf(string(page))
	if len(rows) < 100 {
		t.Fatalf("%s has %d rows", semanticsPage, len(rows))
	}
	functions := make(map[string]map[string]bool)
	marks := make(map[string]int)
	var without, absent []string
	for _, r := range rows {
		errs = append(errs, append(r.errors(), r.check(top, functions)...)...)
		marks[r.mark]++
		switch {
		case r.noTests:
			without = append(without, r.feature)
		case r.isNot:
			absent = append(absent, r.feature)
		}
	}
	for _, e := range errs {
		t.Error(e)
	}
	t.Logf("%d rows: %d as Docker does, %d differently on purpose, %d not here, %d not here yet", len(rows), marks[asDocker], marks[onPurpose], marks[notHere], marks[notYet])
	t.Logf("%d without a test: %s", len(without), strings.Join(without, "; "))
	t.Logf("%d with nothing to test: %s", len(absent), strings.Join(absent, "; "))
}

// TestTheSemanticsBite breaks each rule on the page.
func TestTheSemanticsBite(t *testing.T) {
	const head = "## Services\n\n| feature | | what swarmd does | shown by |\n|---|---|---|---|\n"
	for _, test := range []struct {
		row string
		ok  bool
	}{
		{"| a | = | b | `test/arch TestSemantics` |", true},
		{"| a | ≠ | b | `test/arch TestSemantics/one`, `controllers/01_create.txtar` |", true},
		{"| a | = | b | `pkg/api/v1 FuzzParseConstraint` |", true},
		{"| a | = | b | no test |", true},
		{"| a | ✗ | b | not here |", true},
		{"| a | … | b | not here yet: somewhere |", true},
		{"| a | … | b | `test/arch TestSemantics` |", true},
		{"| a | = | b | `test/arch TestNothing` |", false},
		{"| a | = | b | `test/nowhere TestSemantics` |", false},
		{"| a | = | b | `test/arch testFunctions` |", false},
		{"| a | = | b | `controllers/00_nothing.txtar` |", false},
		{"| a | = | b | `controllers/rapid` |", false},
		{"| a | = | b | not here |", false},
		{"| a | = | b | soon |", false},
		{"| a | ? | b | no test |", false},
		{"| a | | b | no test |", false},
		{"| a | b | no test |", false},
	} {
		rows, errs := semanticsOf(head + test.row + "\n")
		for _, r := range rows {
			errs = append(errs, append(r.errors(), r.check(root(t), map[string]map[string]bool{})...)...)
		}
		if (len(errs) == 0) != test.ok || test.ok && len(rows) != 1 {
			t.Errorf("%s: %q, %d rows", test.row, errs, len(rows))
		}
	}
}
