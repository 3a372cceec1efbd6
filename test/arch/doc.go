// Package arch holds the house rules as tests: which room may import which, where each big foreign library lives, how long
// files and functions get, what every package says of itself.
//
// It owns the table of rooms. A new room, a new direction or a new home is a line there, so that it is a decision and not
// an accident. It never runs what it reads.
package arch
