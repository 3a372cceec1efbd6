package v1

import (
	"regexp"
	"strings"
	"testing"
)

func constraintNode() *Node {
	return &Node{
		Meta: Meta{ID: "abc123", Labels: map[string]string{"zone": "East", "Rack": "7", "empty": ""}},
		Spec: &NodeSpec{Role: RoleManager},
		Status: &NodeStatus{Addr: "10.1.2.3", Description: NodeDescription{
			Hostname: "Box-1", Platform: Platform{Architecture: "amd64", OS: "linux"},
			Engine: Engine{Labels: map[string]string{"disk": "ssd"}},
		}},
	}
}

func TestConstraintMatch(t *testing.T) {
	node, bare := constraintNode(), &Node{Meta: Meta{ID: "bare"}}
	for _, test := range []struct {
		expr       string
		node, bare bool
	}{
		{"node.id==abc123", true, false},
		{"node.id == ABC123", true, false},
		{"NODE.ID==abc123", true, false},
		{"node.id!=abc123", false, true},
		{"node.hostname==box-1", true, false},
		{"node.hostname!=box-1", false, true},
		{"node.role==manager", true, false},
		{"node.role==Worker", false, true},
		{"node.role!=manager", false, true},
		{"node.platform.os==linux", true, false},
		{"node.platform.arch==amd64", true, false},
		{"node.platform.arch==x86_64", true, false},
		{"node.platform.arch==aarch64", false, false},
		{"node.platform.arch!=x86_64", false, true},
		{"node.labels.zone==east", true, false},
		{"Node.Labels.zone==east", true, false},
		{"node.labels.Zone==east", false, false}, // a label's name is case-sensitive
		{"node.labels.rack==7", false, false},
		{"node.labels.zone!=west", true, true},
		{"node.labels.missing!=x", true, true}, // missing is "", which is not x
		{"node.labels.missing==x", false, false},
		{"node.labels.empty!=x", true, true},
		{"node.labels.zone==ea*", false, false}, // no patterns
		{"engine.labels.disk==SSD", true, false},
		{"engine.labels.disk!=ssd", false, true},
		{"engine.labels.zone==east", false, false},
		{"node.ip==10.1.2.3", true, false},
		{"node.ip!=10.1.2.3", false, true},
		{"node.ip==10.1.0.0/16", true, false},
		{"node.ip==10.1.2.9/16", true, false},
		{"node.ip!=10.2.0.0/16", true, true},
		{"node.ip==::ffff:10.1.2.3", true, false},
		{"node.ip==::ffff:10.1.0.0/112", true, false},
		{"node.ip==2001:db8::/32", false, false},
		{"node.ip==east", false, false}, // malformed: matches nothing, either way
		{"node.ip!=east", false, false},
		{"node.color==blue", false, false}, // unknown key: matches nothing, either way
		{"node.color!=blue", false, false},
		{"node.labels.==x", false, false},
		{"node.labels.!=x", false, false},
		{"zone!=x", false, false},
	} {
		c, err := ParseConstraint(test.expr)
		if err != nil {
			t.Errorf("%s: %v", test.expr, err)
			continue
		}
		if got := c.Match(node); got != test.node {
			t.Errorf("%s matches the node: %v", test.expr, got)
		}
		if got := c.Match(bare); got != test.bare {
			t.Errorf("%s matches a node that told nothing: %v", test.expr, got)
		}
	}
	if (Constraint{}).Match(node) {
		t.Error("the zero Constraint matches")
	}
}

func TestParseConstraint(t *testing.T) {
	for in, want := range map[string]string{
		" node.role  ==  worker ":     "node.role==worker",
		"node.labels.a!=b c":          "node.labels.a!=b c",
		"node.labels.a==x/y:z|(1)[2]": "node.labels.a==x/y:z|(1)[2]",
	} {
		if c, err := ParseConstraint(in); err != nil || c.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, c, err, want)
		}
	}
	for in, want := range map[string]string{
		"":                    `"" is not a constraint: want key==value or key!=value, such as node.role==worker`,
		"node.role=worker":    `"node.role=worker" is not a constraint: want key==value or key!=value, such as node.role==worker`,
		"node.role>worker":    `"node.role>worker" is not a constraint: want key==value or key!=value, such as node.role==worker`,
		"==worker":            `"==worker" is not a constraint: the key "" has to begin with a letter or _, and to go on with letters, digits, dots, - and _`,
		"1a==b":               `"1a==b" is not a constraint: the key "1a" has to begin with a letter or _, and to go on with letters, digits, dots, - and _`,
		"a==b":                `"a==b" is not a constraint: the key "a" has to begin with a letter or _, and to go on with letters, digits, dots, - and _`,
		"node.role==":         `"node.role==" is not a constraint: the value "" has to be of letters, digits, spaces and :-_.*()?+[]\^$|/`,
		"node.role==a==b":     `"node.role==a==b" is not a constraint: the value "a==b" has to be of letters, digits, spaces and :-_.*()?+[]\^$|/`,
		"node.role==wörker":   `"node.role==wörker" is not a constraint: the value "wörker" has to be of letters, digits, spaces and :-_.*()?+[]\^$|/`,
		"node.role!=a==b":     `"node.role!=a==b" is not a constraint: the key "node.role!=a" has to begin with a letter or _, and to go on with letters, digits, dots, - and _`,
		"node.labels.a==\x00": `"node.labels.a==\x00" is not a constraint: the value "\x00" has to be of letters, digits, spaces and :-_.*()?+[]\^$|/`,
	} {
		if _, err := ParseConstraint(in); err == nil || err.Error() != want {
			t.Errorf("%q:\ngot  %v\nwant %s", in, err, want)
		}
	}
	if _, err := ParseConstraint("node.labels.a==" + strings.Repeat("x", MaxConstraint)); err == nil {
		t.Error("a constraint of any length is taken")
	}
}

// The grammar as Docker writes it, but for the letters that Unicode folds to ASCII.
var (
	dockerKey   = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9\-_.]+$`)
	dockerValue = regexp.MustCompile(`^[a-zA-Z0-9:\-_\s\.\*\(\)\?\+\[\]\\\^\$\|\/]+$`)
)

func FuzzParseConstraint(f *testing.F) {
	for _, s := range []string{"node.role==worker", "node.ip!=10.0.0.0/8", "a==b!=c", "node.labels.a b==c", "==", "node.labels.K==\tx\v"} {
		f.Add(s)
	}
	node := constraintNode()
	f.Fuzz(func(t *testing.T, expr string) {
		c, err := ParseConstraint(expr)
		if want := len(expr) <= MaxConstraint && dockerTakes(expr); want != (err == nil) {
			t.Fatalf("%q: Docker takes it: %v; here: %v", expr, want, err)
		}
		if err != nil {
			return
		}
		again, err := ParseConstraint(c.String())
		if err != nil || again != c {
			t.Fatalf("%q is %+v, written as %q, which reads as %+v, %v", expr, c, c, again, err)
		}
		c.not = !c.not
		if both := c.Match(node) && again.Match(node); both {
			t.Fatalf("%q and its opposite match", expr)
		}
	})
}

func dockerTakes(expr string) bool {
	for _, op := range []string{"==", "!="} {
		key, value, ok := strings.Cut(expr, op)
		if !ok {
			continue
		}
		return dockerKey.MatchString(strings.TrimSpace(key)) && dockerValue.MatchString(strings.TrimSpace(value))
	}
	return false
}

func BenchmarkConstraintMatch(b *testing.B) {
	node := constraintNode()
	for _, expr := range []string{"node.labels.zone==east", "node.ip==10.1.0.0/16", "node.platform.arch==x86_64"} {
		c, err := ParseConstraint(expr)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(expr, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !c.Match(node) {
					b.Fatal("no match")
				}
			}
		})
	}
}
