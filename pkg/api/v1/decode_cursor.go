package v1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// checkJSON tells why data is not one JSON value that may be read, or nil.
func checkJSON(data []byte) *FieldError {
	if len(bytes.TrimSpace(data)) == 0 {
		return &FieldError{Message: "there is nothing in it: want a JSON object"}
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return &FieldError{Message: "NUL byte at " + position(data, i)}
	}
	if !utf8.Valid(data) {
		at := 0
		for at < len(data) {
			r, size := utf8.DecodeRune(data[at:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			at += size
		}
		return &FieldError{Message: "invalid UTF-8 at " + position(data, at)}
	}
	if at := tooDeep(data); at >= 0 {
		return &FieldError{Message: fmt.Sprintf("nested deeper than %d levels at %s", MaxDepth, position(data, at))}
	}
	var raw json.RawMessage
	err := json.Unmarshal(data, &raw)
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax) && strings.HasSuffix(syntax.Error(), "after top-level value"):
		return &FieldError{Message: "there is more after the end of the object, at " + position(data, int(syntax.Offset)-1)}
	case errors.As(err, &syntax):
		return &FieldError{Message: fmt.Sprintf("not JSON, at %s: %s", position(data, int(syntax.Offset)-1), syntax)}
	default:
		return &FieldError{Message: "not JSON: " + err.Error()}
	}
}

// tooDeep is where data first nests too deep, or -1.
func tooDeep(data []byte) int {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return i
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return -1
}

// position names an offset for people.
func position(data []byte, offset int) string {
	before := data[:min(max(offset, 0), len(data))]
	line := bytes.Count(before, []byte{'\n'}) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return "line " + strconv.Itoa(line) + ", column " + strconv.Itoa(column)
}

// cursor moves over valid JSON, value by value.
type cursor struct {
	data []byte
	at   int
}

// peek is the first byte of the next token.
func (c *cursor) peek() byte {
	for {
		switch b := c.data[c.at]; b {
		case ' ', '\t', '\n', '\r':
			c.at++
		default:
			return b
		}
	}
}

// skip passes over the value at the cursor and returns it.
func (c *cursor) skip() []byte {
	first := c.peek()
	start := c.at
	switch first {
	case '"':
		c.skipString()
	case '{', '[':
		for depth := 0; ; {
			switch c.data[c.at] {
			case '"':
				c.skipString()
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			if c.at++; depth == 0 {
				break
			}
			continue
		}
	default:
		for c.at < len(c.data) && !bytes.ContainsRune([]byte(" \t\n\r,]}"), rune(c.data[c.at])) {
			c.at++
		}
	}
	return c.data[start:c.at]
}

func (c *cursor) skipString() {
	for c.at++; c.data[c.at] != '"'; c.at++ {
		if c.data[c.at] == '\\' {
			c.at++
		}
	}
	c.at++
}

// text reads the string at the cursor. bad says what is wrong with it, if anything.
func (c *cursor) text() (text, bad string) {
	raw := c.skip()
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), ""
	}
	if err := json.Unmarshal(raw, &text); err != nil {
		return "", "is not a string"
	}
	if strings.Contains(text, "\x00") {
		return text, "holds a NUL byte"
	}
	// Half a surrogate pair was silently replaced; nothing else adds replacement characters.
	written := bytes.Count(inner, []byte("\uFFFD")) + bytes.Count(bytes.ToLower(inner), []byte(`\ufffd`))
	if strings.Count(text, "\uFFFD") > written {
		return text, "holds half of a surrogate pair"
	}
	return text, ""
}

// object calls member for each member of the object at the cursor, which then is before the member's value; member has to
// pass over it. bad says what is wrong with the key.
func (c *cursor) object(member func(key, bad string)) {
	c.peek()
	c.at++
	for c.peek() != '}' {
		if c.peek() == ',' {
			c.at++
			c.peek()
		}
		key, bad := c.text()
		c.peek()
		c.at++ // the colon
		member(key, bad)
	}
	c.at++
}

// array calls element for each element of the array at the cursor, which then is before the element; element has to pass
// over it.
func (c *cursor) array(element func()) {
	c.peek()
	c.at++
	for c.peek() != ']' {
		if c.peek() == ',' {
			c.at++
		}
		element()
	}
	c.at++
}

// join adds a field's name to a path.
func join(path, name string) string {
	if path == "" {
		return cut(name)
	}
	return path + "." + cut(name)
}

// cut shortens what a user wrote for use in an error.
func cut(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	end := most
	for end > most-utf8.UTFMax && !utf8.RuneStart(s[end]) { // what is no UTF-8 is cut anywhere
		end--
	}
	return s[:end] + "…"
}

// clip shortens raw JSON for use in an error.
func clip(raw []byte) string { return cut(string(raw)) }
