package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// progress shows lines that change, each known by an ID. On a terminal they are drawn over one another; elsewhere each
// change is a line of its own, so that a log tells what happened.
type progress struct {
	out   io.Writer
	width int // of the terminal; 0 where there is none
	order []string
	lines map[string]progressLine
	drawn int // lines on the terminal that are ours
}

// overall is the ID of the first line.
const overall = "overall progress"

type progressLine struct {
	text  string
	steps int
}

// terminalWidth is that of a terminal in columns, and 0 of everything else.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return 80
	}
	return width
}

func (a *app) newProgress(quiet bool) *progress {
	p := &progress{out: a.Out, width: a.Terminal(), lines: make(map[string]progressLine), order: []string{overall}}
	if quiet {
		p.out, p.width = io.Discard, 0
	}
	return p
}

// set changes a line. Steps, out of stateSteps, are how long its bar is; 0 is none.
func (p *progress) set(id, text string, steps int) {
	old, known := p.lines[id]
	line := progressLine{text, steps}
	if known && old == line {
		return
	}
	if !known && id != overall {
		p.order = append(p.order, id)
	}
	p.lines[id] = line
	if p.width == 0 {
		fmt.Fprintf(p.out, "%s: %s\n", id, text)
		return
	}
	p.draw()
}

// draw writes all lines over those that were drawn before.
func (p *progress) draw() {
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	drawn := 0
	for _, id := range p.order {
		line, known := p.lines[id]
		if !known {
			continue
		}
		drawn++
		text := id + ": " + line.text
		if line.steps > 0 {
			text = fmt.Sprintf("%s: %-9s %s", id, line.text, bar(line.steps, p.width))
		}
		b.WriteString("\r\x1b[2K" + ellipsis(text, max(p.width-1, 1)) + "\n")
	}
	p.drawn = drawn
	fmt.Fprint(p.out, b.String())
}

// end leaves what was drawn where it is.
func (p *progress) end() { p.drawn = 0 }

// bar is a bar of steps out of stateSteps, as wide as the terminal lets it be.
func bar(steps, width int) string {
	inner := min(50, width-30)
	if inner < 10 {
		return ""
	}
	full := inner * steps / stateSteps
	if full >= inner {
		return "[" + strings.Repeat("=", inner) + ">]"
	}
	return "[" + strings.Repeat("=", full) + ">" + strings.Repeat(" ", inner-full) + "]"
}

// oneLine is text without line ends and control characters, short enough for a narrow terminal.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	return ellipsis(text, 200)
}
