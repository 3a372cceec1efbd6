package v1

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxDecodeErrors is how many errors a decoder reports at most; those after them rarely tell anything new.
const maxDecodeErrors = 20

// DecodeStrict reads JSON into a value and refuses whatever encoding/json would pass over: unknown fields, names in
// another case, duplicate keys, trailing data, invalid UTF-8, NUL bytes, nesting deeper than MaxDepth. The error is
// FieldErrors, with the path of every field at fault (at most 20 of them). null stands for "not given". Its caller bounds
// the size of data. When there is an error, into holds part of what was read.
func DecodeStrict(data []byte, into any) error {
	if err := checkJSON(data); err != nil {
		return FieldErrors{*err}
	}
	d := decoder{cursor: cursor{data: data}, maxEntries: math.MaxInt}
	d.value("", reflect.ValueOf(into).Elem())
	return d.result()
}

// decoder reads valid JSON into Go values, and collects what does not fit.
type decoder struct {
	cursor
	errs       FieldErrors
	maxEntries int
}

func (d *decoder) result() error {
	if len(d.errs) == 0 {
		return nil
	}
	return d.errs
}

func (d *decoder) fail(path, format string, args ...any) {
	if len(d.errs) < maxDecodeErrors {
		d.errs = append(d.errs, FieldError{Field: path, Message: fmt.Sprintf(format, args...)})
	}
}

// value reads the value at the cursor, and leaves the cursor behind it whatever happens.
func (d *decoder) value(path string, v reflect.Value) {
	if d.peek() == 'n' { // null: not given
		d.skip()
		v.SetZero()
		return
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(path, v.Elem())
		return
	}
	if read := ownReader(v); read != nil {
		raw := d.skip()
		if err := read(raw); err != nil {
			d.fail(path, "%s", strings.TrimPrefix(err.Error(), "json: "))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(path, v)
	case reflect.Map:
		d.mapping(path, v)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			d.bytes(path, v)
			return
		}
		d.list(path, v)
	default:
		d.scalar(path, v)
	}
}

// ownReader is how a type reads itself, where it does. Structs are read field by field even then, so that what is wrong in
// them is found, except for those that are written as one value.
func ownReader(v reflect.Value) func([]byte) error {
	switch t := v.Addr().Interface().(type) {
	case *time.Time:
		return func(raw []byte) error {
			if err := json.Unmarshal(raw, t); err != nil {
				return fmt.Errorf("want a time such as 2026-01-31T15:04:05Z, found %s", clip(raw))
			}
			return nil
		}
	case json.Unmarshaler:
		if v.Kind() != reflect.Struct {
			return t.UnmarshalJSON
		}
	case encoding.TextUnmarshaler:
		if v.Kind() != reflect.Struct {
			return func(raw []byte) error { return json.Unmarshal(raw, t) }
		}
	case *any:
		return func(raw []byte) error { return json.Unmarshal(raw, t) }
	}
	return nil
}

// structure reads an object into a struct.
func (d *decoder) structure(path string, v reflect.Value) {
	if d.peek() != '{' {
		d.wrong(path, "an object with fields")
		return
	}
	known := fieldsOf(v.Type())
	var seen uint64 // a bit for each field; no struct here has more than 64
	d.object(func(key string, bad string) {
		at := join(path, key)
		i, ok := known.index[key]
		switch {
		case bad != "":
			d.fail(path, "a field's name %s", bad)
		case !ok:
			d.fail(at, "unknown field%s", suggestion(key, known.names))
		case seen&(1<<i) != 0:
			d.fail(at, "is given twice")
		default:
			seen |= 1 << i
			d.value(at, v.Field(i))
			return
		}
		d.skip()
	})
}

// mapping reads an object into a map.
func (d *decoder) mapping(path string, v reflect.Value) {
	if d.peek() != '{' {
		d.wrong(path, "an object of names and values")
		return
	}
	m := reflect.MakeMap(v.Type())
	full := false
	d.object(func(key string, bad string) {
		at := path + "[" + strconv.Quote(cut(key)) + "]"
		k := reflect.ValueOf(key).Convert(v.Type().Key())
		switch {
		case full:
		case bad != "":
			d.fail(path, "a name in it %s", bad)
		case m.MapIndex(k).IsValid():
			d.fail(at, "is given twice")
		case m.Len() >= d.maxEntries:
			full = true
			d.fail(path, "has more than %d entries", d.maxEntries)
		default:
			e := reflect.New(v.Type().Elem()).Elem()
			d.value(at, e)
			m.SetMapIndex(k, e)
			return
		}
		d.skip()
	})
	v.Set(m)
}

// list reads an array into a slice.
func (d *decoder) list(path string, v reflect.Value) {
	if d.peek() != '[' {
		d.wrong(path, "a list")
		return
	}
	s := reflect.MakeSlice(v.Type(), 0, 0)
	n := 0
	d.array(func() {
		if n++; n > d.maxEntries {
			if n == d.maxEntries+1 {
				d.fail(path, "has more than %d entries", d.maxEntries)
			}
			d.skip()
			return
		}
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(path+"["+strconv.Itoa(n-1)+"]", e)
		s = reflect.Append(s, e)
	})
	v.Set(s)
}

// bytes reads base64.
func (d *decoder) bytes(path string, v reflect.Value) {
	if d.peek() != '"' {
		d.wrong(path, "data in base64")
		return
	}
	text, _ := d.text()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		d.fail(path, "is not base64: %v", err)
		return
	}
	v.SetBytes(data)
}

// scalar reads a string, a number or a boolean.
func (d *decoder) scalar(path string, v reflect.Value) {
	c := d.peek()
	number := c == '-' || c >= '0' && c <= '9'
	switch v.Kind() {
	case reflect.String:
		if c != '"' {
			d.wrong(path, "a string")
			return
		}
		text, bad := d.text()
		if bad != "" {
			d.fail(path, "%s", bad)
			return
		}
		v.SetString(text)
	case reflect.Bool:
		if c != 't' && c != 'f' {
			d.wrong(path, "true or false")
			return
		}
		v.SetBool(d.skip()[0] == 't')
	case reflect.Float32, reflect.Float64:
		if !number {
			d.wrong(path, "a number")
			return
		}
		raw := d.skip()
		f, err := strconv.ParseFloat(string(raw), v.Type().Bits())
		if err != nil {
			d.fail(path, "%s is too large", clip(raw))
			return
		}
		v.SetFloat(f)
	default:
		d.integer(path, v, number)
	}
}

// integer reads a whole number of whatever size v has.
func (d *decoder) integer(path string, v reflect.Value, number bool) {
	bits := v.Type().Bits()
	var err error
	switch {
	case v.CanInt():
		want := fmt.Sprintf("a whole number from %d to %d", int64(-1)<<(bits-1), int64(1)<<(bits-1)-1)
		if bits == 64 {
			want = "a whole number"
		}
		if !number {
			d.wrong(path, want)
			return
		}
		raw := d.skip()
		var n int64
		if n, err = strconv.ParseInt(string(raw), 10, bits); err == nil {
			v.SetInt(n)
			return
		}
		d.fail(path, "want %s, found %s", want, clip(raw))
	case v.CanUint():
		want := fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<bits-1)
		if bits == 64 {
			want = "a whole number from 0"
		}
		if !number {
			d.wrong(path, want)
			return
		}
		raw := d.skip()
		var n uint64
		if n, err = strconv.ParseUint(string(raw), 10, bits); err == nil {
			v.SetUint(n)
			return
		}
		d.fail(path, "want %s, found %s", want, clip(raw))
	default:
		d.skip()
		d.fail(path, "cannot be set")
	}
}

// wrong reports a value of another type than is wanted, and passes over it.
func (d *decoder) wrong(path, want string) {
	c := d.peek()
	raw := d.skip()
	hint := ""
	if want == "a string" && c != '{' && c != '[' {
		hint = "; put it in quotes"
	}
	d.fail(path, "want %s, found %s%s", want, describe(c, raw), hint)
}

// describe names a JSON value in an error.
func describe(c byte, raw []byte) string {
	switch c {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "the string " + clip(raw)
	case 't', 'f':
		return clip(raw)
	}
	return "the number " + clip(raw)
}

// fields are the JSON names of a struct's fields.
type fields struct {
	index map[string]int
	names []string
}

var fieldCache sync.Map // reflect.Type → *fields; types are few and never change

func fieldsOf(t reflect.Type) *fields {
	if f, ok := fieldCache.Load(t); ok {
		return f.(*fields)
	}
	f := &fields{index: make(map[string]int)}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "-" || !t.Field(i).IsExported() {
			continue
		}
		if name == "" {
			name = t.Field(i).Name
		}
		f.index[name] = i
		f.names = append(f.names, name)
	}
	fieldCache.Store(t, f)
	return f
}
