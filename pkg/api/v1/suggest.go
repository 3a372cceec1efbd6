package v1

import (
	"strings"
)

// suggestion ends the error about an unknown name: the one that was probably meant, or all there are.
func suggestion(name string, known []string) string {
	if best := Nearest(name, known); best != "" {
		return `; did you mean "` + best + `"?`
	}
	return "; want " + oneOf(known)
}

// Nearest is the known name that a mistyped one is nearly, "" where there is none.
func Nearest(name string, known []string) string {
	best, distance := "", 3
	if len(name) <= 3 {
		distance = 2 // nearly anything is like a short name
	}
	if len(name) <= 64 {
		for _, k := range known {
			if d := editDistance(strings.ToLower(name), strings.ToLower(k)); d < distance {
				best, distance = k, d
			}
		}
	}
	return best
}

// oneOf lists words: "a, b or c".
func oneOf[S ~string](words []S) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}

// editDistance is how many letters must be added, removed, replaced or swapped with the next to make b of a.
func editDistance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
