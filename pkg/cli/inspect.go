package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/template"
)

// inspect prints each object that the refs mean: as indented JSON in one list, as compact JSON (format "json"), or through
// a template, one line each. What is not found is told after those that are.
func inspect(w io.Writer, format string, refs []string, get func(ref string) (any, error)) error {
	var elements []any
	var errs []error
	for _, ref := range refs {
		e, err := get(ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		elements = append(elements, e)
	}
	if err := writeInspected(w, format, elements); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func writeInspected(w io.Writer, format string, elements []any) error {
	if format == "" || format == "json" {
		return writeJSON(w, elements, format == "")
	}
	tmpl, err := parseTemplate(format)
	if err != nil {
		return &exitError{code: 64, text: err.Error()}
	}
	var out bytes.Buffer
	for _, e := range elements {
		var line bytes.Buffer
		if err := execute(tmpl, &line, e); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		out.Write(line.Bytes())
		out.WriteByte('\n')
	}
	if len(elements) == 0 {
		out.WriteByte('\n')
	}
	_, err = out.WriteTo(w)
	return err
}

// execute runs a template on an object, and where it does not know a field so, on the object as JSON: Docker takes {{.Id}} for a
// network's {{.ID}}, because that is what the field is called in JSON.
func execute(tmpl *template.Template, out *bytes.Buffer, e any) error {
	failed := tmpl.Execute(out, e)
	if failed == nil {
		return nil
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	var fields any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return err
	}
	strict, err := tmpl.Clone()
	if err != nil {
		return err
	}
	out.Reset()
	if strict.Option("missingkey=error").Execute(out, fields) != nil {
		return failed
	}
	return nil
}

func writeJSON(w io.Writer, elements []any, indent bool) error {
	if len(elements) == 0 {
		_, err := io.WriteString(w, "[]\n")
		return err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if indent {
		e.SetIndent("", "    ")
	}
	if err := e.Encode(elements); err != nil {
		return err
	}
	_, err := io.WriteString(w, strings.TrimRight(out.String(), "\n")+"\n")
	return err
}
