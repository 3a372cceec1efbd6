package v1

import (
	"fmt"
	"strings"
)

// ImageReference is a parsed image reference: domain/path:tag@digest, in the grammar of the distribution project.
type ImageReference struct {
	// Domain is the registry's host, with its port where there is one; docker.io if none was given.
	Domain string
	// Path is that of the repository, such as library/nginx.
	Path string
	// Tag and Digest may be empty; without either, the tag latest is meant.
	Tag, Digest string
}

// The longest parts of an image reference, in bytes.
const (
	maxImageName = 255
	maxImageTag  = 128
)

const (
	defaultDomain = "docker.io"
	officialRepo  = "library/"
)

// digestSizes are the lengths in hexadecimal digits of the digests that are known.
var digestSizes = map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}

// ParseImageReference reads a reference such as nginx, nginx:1.27, registry.example.org:5000/team/app@sha256:….
func ParseImageReference(text string) (ImageReference, error) {
	wrong := func(format string, args ...any) (ImageReference, error) {
		return ImageReference{}, fmt.Errorf("%q is not an image reference: %s; want one such as nginx:1.27 or "+
			"registry.example.org:5000/team/app:v2", cut(text), fmt.Sprintf(format, args...))
	}
	if text == "" {
		return ImageReference{}, fmt.Errorf("is missing: want an image reference such as nginx:1.27")
	}
	name, digest, pinned := strings.Cut(text, "@")
	if pinned {
		if err := checkDigest(digest); err != nil {
			return wrong("%v", err)
		}
	}
	var tag string
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, tag = name[:colon], name[colon+1:]
		if !isTag(tag) {
			return wrong("the tag %q is not 1 to %d letters, digits, _, . and -, beginning with none of the last two", cut(tag), maxImageTag)
		}
	}
	if len(name) == 64 && isHex(name) {
		return wrong("64 hexadecimal digits are an image's ID, not its name")
	}
	r := ImageReference{Tag: tag, Digest: digest}
	r.Domain, r.Path = splitDomain(name)
	if !isDomain(r.Domain) {
		return wrong("%q is not a registry's host", cut(r.Domain))
	}
	if r.Path != strings.ToLower(r.Path) {
		return wrong("the repository's name must be in small letters")
	}
	for part := range strings.SplitSeq(r.Path, "/") {
		if !isPathPart(part) {
			return wrong("%q in it is not small letters and digits with single ., _, __ or dashes between", cut(part))
		}
	}
	if len(r.Domain)+1+len(r.Path) > maxImageName {
		return wrong("the repository's name is longer than %d characters", maxImageName)
	}
	return r, nil
}

// String is the whole reference, in which nothing is left to be guessed.
func (r ImageReference) String() string {
	s := r.Domain + "/" + r.Path
	if r.Tag != "" {
		s += ":" + r.Tag
	} else if r.Digest == "" {
		s += ":latest"
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// splitDomain takes the registry off a name, the way Docker guesses whether there is one.
func splitDomain(name string) (domain, path string) {
	first, rest, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		domain, path = defaultDomain, name
	} else {
		domain, path = first, rest
	}
	if domain == "index.docker.io" {
		domain = defaultDomain
	}
	if domain == defaultDomain && !strings.Contains(path, "/") {
		path = officialRepo + path
	}
	return domain, path
}

// isDomain is a host name, or an IPv6 address in brackets, with an optional port.
func isDomain(s string) bool {
	host := s
	if colon := strings.LastIndexByte(s, ':'); colon > strings.LastIndexByte(s, ']') {
		host = s[:colon]
		if !isDigits(s[colon+1:]) {
			return false
		}
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		inner := host[1 : len(host)-1]
		return inner != "" && strings.Trim(inner, "0123456789abcdefABCDEF:") == ""
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if !isAlnum(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return true
}

// isPathPart is [a-z0-9]+ ((. | _ | __ | -+) [a-z0-9]+)*.
func isPathPart(s string) bool {
	small := func(c byte) bool { return c >= 'a' && c <= 'z' || isDigit(c) }
	for i := 0; i < len(s); {
		end := i
		for end < len(s) && small(s[end]) {
			end++
		}
		if end == i {
			return false
		}
		if end == len(s) {
			return true
		}
		i = end
		for i < len(s) && !small(s[i]) {
			i++
		}
		if sep := s[end:i]; sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
	}
	return false
}

// isTag is [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}.
func isTag(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '_' && (i == 0 || s[i] != '.' && s[i] != '-') {
			return false
		}
	}
	return s != "" && len(s) <= maxImageTag
}

func checkDigest(s string) error {
	algorithm, digits, _ := strings.Cut(s, ":")
	size, known := digestSizes[algorithm]
	if !known {
		return fmt.Errorf("the digest %q is not sha256, sha384 or sha512 followed by : and hexadecimal digits", cut(s))
	}
	if len(digits) != size || !isHex(digits) {
		return fmt.Errorf("a %s digest has %d hexadecimal digits in small letters", algorithm, size)
	}
	return nil
}

func isHex(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdef") == "" }

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
