package v1

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Validate tells all that is wrong with an object that a user wrote, sorted by field, or nil. It expects the defaults to be
// filled in (see Default), and knows nothing of other objects: whether a name is free, or a secret there, is for others to
// say. Kinds that users do not write are always fine.
func Validate(obj Object) FieldErrors {
	c := new(checker)
	switch o := obj.(type) {
	case *Service:
		c.meta(KindService, &o.Meta)
		specified(c, o.Spec, c.service)
		if o.Spec != nil {
			c.templates(o)
		}
	case *Network:
		c.meta(KindNetwork, &o.Meta)
		specified(c, o.Spec, c.network)
	case *Secret:
		c.meta(KindSecret, &o.Meta)
		specified(c, o.Spec, c.secret)
	case *Config:
		c.meta(KindConfig, &o.Meta)
		specified(c, o.Spec, c.config)
	case *Volume:
		c.meta(KindVolume, &o.Meta)
		specified(c, o.Spec, c.volume)
	case *Registry:
		c.meta(KindRegistry, &o.Meta)
		specified(c, o.Spec, c.registry)
	case *Node:
		c.meta(KindNode, &o.Meta)
		specified(c, o.Spec, c.node)
	case *Cluster:
		c.meta(KindCluster, &o.Meta)
		specified(c, o.Spec, c.cluster)
	case *User:
		c.meta(KindUser, &o.Meta)
		specified(c, o.Spec, c.user)
	case *Attachment:
		c.meta(KindAttachment, &o.Meta)
		specified(c, o.Spec, c.attachment)
	}
	return c.sorted()
}

// checker collects what is wrong.
type checker struct{ errs FieldErrors }

// maxFindings is how many errors one object gets at most.
const maxFindings = 100

func (c *checker) sorted() FieldErrors {
	slices.SortStableFunc(c.errs, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) })
	return c.errs
}

// fail notes what is wrong with a field. What users wrote goes into the message through cut.
func (c *checker) fail(field, format string, args ...any) {
	if len(c.errs) < maxFindings {
		c.errs = append(c.errs, FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
	}
}

// specified checks a spec that has to be there.
func specified[S any](c *checker, spec *S, check func(string, *S)) {
	if spec == nil {
		c.fail("spec", "is missing")
		return
	}
	check("spec", spec)
}

// meta checks an object's name and labels.
func (c *checker) meta(kind Kind, m *Meta) {
	if err := ValidateName(kind, m.Name); err != nil {
		c.fail("metadata.name", "%v", err)
	}
	c.labels("metadata.labels", m.Labels)
}

// size refuses a spec that is too large to be stored as one value.
func (c *checker) size(field string, spec any) {
	data, err := json.Marshal(spec)
	switch {
	case err != nil:
		c.fail(field, "cannot be stored: %v", err)
	case len(data) > MaxSpecSize:
		c.fail(field, "is %d bytes long, at most %d are allowed", len(data), MaxSpecSize)
	}
}

// labels checks labels of any kind.
func (c *checker) labels(field string, labels map[string]string) {
	c.dictionary(field, labels, "a label", MaxLabels, MaxLabelKey, MaxLabelValue)
	size := 0
	for k, v := range labels {
		size += len(k) + len(v)
	}
	if size > MaxLabelsSize {
		c.fail(field, "take %d bytes together, at most %d are allowed", size, MaxLabelsSize)
	}
}

// dictionary checks a map of strings: how many entries, and how long keys and values are.
func (c *checker) dictionary(field string, m map[string]string, noun string, most, mostKey, mostValue int) {
	if len(m) > most {
		c.fail(field, "has %d entries, at most %d are allowed", len(m), most)
		return
	}
	for k, v := range m {
		at := field + "[" + strconv.Quote(cut(k)) + "]"
		switch {
		case k == "":
			c.fail(at, "%s needs a name", noun)
		case len(k) > mostKey:
			c.fail(at, "the name has %d bytes, at most %d are allowed", len(k), mostKey)
		case !printable(k) || strings.TrimSpace(k) != k:
			c.fail(at, "the name holds control characters, or spaces at its ends")
		case len(v) > mostValue:
			c.fail(at, "the value has %d bytes, at most %d are allowed", len(v), mostValue)
		}
		c.noNUL(at, v)
	}
}

func (c *checker) noNUL(field, s string) {
	if strings.IndexByte(s, 0) >= 0 {
		c.fail(field, "holds a NUL byte")
	}
}

// word checks a short text without control characters.
func (c *checker) word(field, s string) {
	switch {
	case len(s) > MaxString:
		c.fail(field, "has %d bytes, at most %d are allowed", len(s), MaxString)
	case !printable(s):
		c.fail(field, "%q holds control characters", cut(s))
	}
}

// absolute checks a path in a container.
func (c *checker) absolute(field, s string) {
	c.word(field, s)
	if !strings.HasPrefix(s, "/") {
		c.fail(field, "%q is not an absolute path: want one such as /data", cut(s))
	}
}

// duration checks a time span.
func (c *checker) duration(field string, d Duration) {
	if d < 0 || d > MaxDuration {
		c.fail(field, "%s is out of range: want 0s to %s", d, MaxDuration)
	}
}

// count checks a list's length, and tells whether its entries are worth checking.
func (c *checker) count(field string, n, most int) bool {
	if n > most {
		c.fail(field, "has %d entries, at most %d are allowed", n, most)
	}
	return n <= most
}

// choice checks a word against those that are allowed.
func choice[S ~string](c *checker, field string, value S, allowed ...S) {
	if !slices.Contains(allowed, value) {
		c.fail(field, "%q is not allowed: want %s", cut(string(value)), oneOf(allowed))
	}
}

// at is the path of a list's entry.
func at(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
