package v1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span that JSON and YAML write as Go does ("1m30s"). It also reads a plain number, as nanoseconds,
// like Docker's API.
type Duration time.Duration

// String is the duration as Go writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalJSON writes the duration as a string.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads "1m30s" or a number of nanoseconds.
func (d *Duration) UnmarshalJSON(data []byte) error {
	text, number, err := scalar(data)
	if err != nil {
		return fmt.Errorf("want a duration such as 10s or 1m30s: %w", err)
	}
	if number {
		ns, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%s is not a duration: want one such as 10s or 1m30s, or whole nanoseconds", cut(text))
		}
		*d = Duration(ns)
		return nil
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration: want one such as 10s or 1m30s", cut(text))
	}
	*d = Duration(parsed)
	return nil
}

// Bytes is a size in bytes. JSON and YAML read a number or a string with a unit; units are powers of 1024 whether they
// are written as Docker does (64m, 1g) or as Kubernetes does (64Mi, 1GiB). It is written as a number.
type Bytes int64

var byteUnits = map[string]int64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}

// ParseBytes reads a size such as "512", "64m", "64MiB" or "1.5g". It is at most a quarter of what 64 bits hold, so that
// adding some up is safe; whole numbers are read exactly.
func ParseBytes(text string) (Bytes, error) {
	unit := strings.ToLower(strings.TrimSpace(text))
	end := strings.IndexFunc(unit, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if end < 0 {
		end = len(unit)
	}
	number, unit := unit[:end], strings.TrimSpace(unit[end:])
	unit = strings.TrimSuffix(unit, "b")
	if len(unit) == 2 {
		unit = strings.TrimSuffix(unit, "i")
	}
	const most = math.MaxInt64 / 2
	factor, known := byteUnits[unit]
	if whole, err := strconv.ParseInt(number, 10, 64); known && err == nil && whole <= most/factor {
		return Bytes(whole * factor), nil
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || !known || value*float64(factor) > most {
		return 0, fmt.Errorf("%q is not a size: want a number with an optional unit b, k, m, g or t, such as 64m or 1.5g", cut(text))
	}
	return Bytes(value * float64(factor)), nil
}

// UnmarshalJSON reads a number of bytes or a string that ParseBytes reads.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	text, _, err := scalar(data)
	if err != nil {
		return fmt.Errorf("want a size such as 64m: %w", err)
	}
	negative := strings.HasPrefix(text, "-")
	*b, err = ParseBytes(strings.TrimPrefix(text, "-"))
	if negative {
		*b = -*b // for validation to refuse with the field's name
	}
	return err
}

// CPUs is an amount of processor time in billionths of a core, Docker's NanoCPUs. JSON and YAML read and write cores, such as 0.5.
type CPUs int64

// ParseCPUs reads a number of cores such as "0.5".
func ParseCPUs(text string) (CPUs, error) {
	cores, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(cores) || math.Abs(cores) > 1e6 {
		return 0, fmt.Errorf("%q is not a number of cpus: want one such as 0.5 or 2", cut(text))
	}
	return CPUs(math.Round(cores * 1e9)), nil
}

// String is the number of cores.
func (c CPUs) String() string { return strconv.FormatFloat(float64(c)/1e9, 'f', -1, 64) }

// MarshalJSON writes the number of cores.
func (c CPUs) MarshalJSON() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalJSON reads a number of cores, as a number or a string.
func (c *CPUs) UnmarshalJSON(data []byte) error {
	text, _, err := scalar(data)
	if err != nil {
		return fmt.Errorf("want a number of cpus such as 0.5: %w", err)
	}
	*c, err = ParseCPUs(text)
	return err
}

// scalar is the text of a JSON string or number.
func scalar(data []byte) (text string, number bool, err error) {
	data = bytes.TrimSpace(data)
	if len(data) > 0 && data[0] == '"' {
		err = json.Unmarshal(data, &text)
		return text, false, err
	}
	var n json.Number
	if err := json.Unmarshal(data, &n); err != nil || n == "" {
		return "", false, fmt.Errorf("got %.40s", data)
	}
	return n.String(), true, nil
}
