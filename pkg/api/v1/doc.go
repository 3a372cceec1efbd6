// Package v1 holds the nouns of swarmd: every kind of object, the sections it is cut into, its defaults and its
// validation.
//
// An object is cut by who writes it. The user writes the Spec, the leader's rules write what they decided (Desired), the
// node's agent writes what it observed (Status). Each section is stored under its own key, so that writers never conflict
// and a frequent status never rewrites a spec. Readers see one whole object.
//
// Objects are immutable once they are in a snapshot: copy before changing, and never write through a pointer that came
// from a store.
//
// The package owns words and their rules. It never does I/O, never reads a clock, never logs, and imports nothing but the
// standard library.
package v1
