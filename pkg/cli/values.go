package cli

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/docker/go-units"
	"github.com/google/shlex"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// value is a flag whose text is read by parse. Given again, it replaces what was there.
type value[T any] struct {
	v     T
	set   bool
	text  string
	kind  string
	parse func(string) (T, error)
}

func newValue[T any](kind string, parse func(string) (T, error)) *value[T] {
	return &value[T]{kind: kind, parse: parse}
}

// Set implements pflag.Value.
func (f *value[T]) Set(text string) error {
	v, err := f.parse(text)
	if err != nil {
		return err
	}
	f.v, f.set, f.text = v, true, text
	return nil
}

// String implements pflag.Value.
func (f *value[T]) String() string { return f.text }

// Type implements pflag.Value.
func (f *value[T]) Type() string { return f.kind }

// list is a flag that may be given many times; each text is read by parse.
type list[T any] struct {
	all   []T
	kind  string
	parse func(string) ([]T, error)
}

func newList[T any](kind string, parse func(string) (T, error)) *list[T] {
	return &list[T]{kind: kind, parse: func(text string) ([]T, error) {
		v, err := parse(text)
		return []T{v}, err
	}}
}

func newStrings() *list[string] {
	return newList("list", func(text string) (string, error) { return text, nil })
}

// Set implements pflag.Value.
func (f *list[T]) Set(text string) error {
	more, err := f.parse(text)
	if err != nil {
		return err
	}
	f.all = append(f.all, more...)
	return nil
}

// String implements pflag.Value.
func (f *list[T]) String() string { return "" }

// Type implements pflag.Value.
func (f *list[T]) Type() string { return f.kind }

func parseWords(text string) ([]string, error) { return shlex.Split(text) }

func parseUint(text string) (uint64, error) { return strconv.ParseUint(text, 0, 64) }

func parseDuration(text string) (v1.Duration, error) {
	d, err := time.ParseDuration(text)
	return v1.Duration(d), err
}

func parsePositiveDuration(text string) (v1.Duration, error) {
	d, err := parseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("duration cannot be negative")
	}
	return d, err
}

func parseRatio(text string) (float64, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
		err = fmt.Errorf("%q is not a ratio: want a number between 0 and 1", text)
	}
	return f, err
}

func parseBytes(text string) (v1.Bytes, error) {
	n, err := units.RAMInBytes(text)
	return v1.Bytes(n), err
}

// parseSwap reads an amount of memory or -1, which is unlimited.
func parseSwap(text string) (v1.Bytes, error) {
	if text == "-1" {
		return -1, nil
	}
	return parseBytes(text)
}

func parseCPUs(text string) (v1.CPUs, error) {
	// SetString would expand a huge exponent into a number of as many digits.
	if len(text) > 64 || strings.ContainsAny(text, "eEpP") {
		return 0, fmt.Errorf("failed to parse %.80s as a rational number", text)
	}
	cpus, ok := new(big.Rat).SetString(text)
	if !ok {
		return 0, fmt.Errorf("failed to parse %v as a rational number", text)
	}
	nano := cpus.Mul(cpus, big.NewRat(1e9, 1))
	if !nano.IsInt() {
		return 0, errors.New("value is too precise")
	}
	if !nano.Num().IsInt64() {
		return 0, fmt.Errorf("%s is out of range", text)
	}
	return v1.CPUs(nano.Num().Int64()), nil
}

const blanks = " \t"

func parseLabel(text string) (string, error) {
	key, _, _ := strings.Cut(text, "=")
	key = strings.TrimLeft(key, blanks)
	if key == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", text)
	}
	if strings.ContainsAny(key, blanks) {
		return "", fmt.Errorf("label '%s' contains whitespaces", key)
	}
	return text, nil
}

func parseAddress(text string) (string, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || a.Zone() != "" {
		return "", fmt.Errorf("IP address is not correctly formatted: %s", text)
	}
	return a.Unmap().String(), nil
}

var (
	domainLetter = regexp.MustCompile(`[a-zA-Z]`)
	domainName   = regexp.MustCompile(`^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*)\.?$`)
)

// parseSearch reads a DNS search domain; a lone dot is none.
func parseSearch(text string) (string, error) {
	text = strings.Trim(text, " ")
	if text == "." {
		return text, nil
	}
	if m := domainName.FindStringSubmatch(text); m != nil && domainLetter.MatchString(text) && len(m[1]) < 255 {
		return m[1], nil
	}
	return "", fmt.Errorf("%s is not a valid domain", text)
}

// parseHost reads host:ip (or host=ip) into a line of /etc/hosts.
func parseHost(text string) (string, error) {
	host, ip, ok := strings.Cut(text, "=")
	if !ok {
		host, ip, ok = strings.Cut(text, ":")
	}
	if blank := func(r rune) bool { return r == ':' || unicode.IsSpace(r) || unicode.IsControl(r) }; !ok || host == "" || strings.ContainsFunc(host, blank) {
		return "", fmt.Errorf("bad format for add-host: %q", text)
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if _, err := parseAddress(ip); err != nil {
		return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return strings.TrimSpace(ip) + " " + host, nil
}

func parsePreference(text string) (v1.PlacementPreference, error) {
	strategy, arg, ok := strings.Cut(text, "=")
	if !ok || strategy == "" {
		return v1.PlacementPreference{}, errors.New(`placement preference must be of the format "<strategy>=<arg>"`)
	}
	if strategy != "spread" {
		return v1.PlacementPreference{}, fmt.Errorf("unsupported placement preference %s (only spread is supported)", strategy)
	}
	return v1.PlacementPreference{Spread: arg}, nil
}

// parseUlimit reads name=soft[:hard].
func parseUlimit(text string) (v1.Ulimit, error) {
	l, err := units.ParseUlimit(text)
	if err != nil {
		return v1.Ulimit{}, err
	}
	return v1.Ulimit{Name: l.Name, Soft: l.Soft, Hard: l.Hard}, nil
}

// parseGeneric reads kind=N.
func parseGeneric(text string) (v1.GenericResource, error) {
	kind, count, ok := strings.Cut(text, "=")
	if !ok {
		return v1.GenericResource{}, fmt.Errorf("invalid generic-resource format `%s` expected `name=value`", text)
	}
	kind, count = strings.TrimSpace(kind), strings.TrimSpace(count)
	if kind == "" || strings.Contains(count, "=") {
		return v1.GenericResource{}, fmt.Errorf("invalid generic resource specification: could not parse GenericResource: incorrect term %s, missing '=' or malformed expression", text)
	}
	n, err := strconv.ParseInt(count, 10, 64)
	switch {
	case err != nil:
		return v1.GenericResource{}, fmt.Errorf("invalid generic-resource request `%s=%s`, Named Generic Resources is not supported for service create or update", kind, count)
	case n < 0:
		return v1.GenericResource{}, fmt.Errorf("invalid generic resource specification: could not parse GenericResource: cannot ask for negative resource %s", kind)
	}
	return v1.GenericResource{Kind: kind, Count: n}, nil
}

// toMap is a list of key=value as a map; the last of equal keys counts.
func toMap(pairs []string) map[string]string {
	if len(pairs) == 0 {
		return nil
	}
	m := make(map[string]string, len(pairs))
	for _, p := range pairs {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return m
}
