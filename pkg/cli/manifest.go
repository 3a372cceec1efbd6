package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Limits on what is read of manifests.
const (
	maxFile      = 64 << 20 // bytes of one file, or of In
	maxDocuments = 10_000   // of one command
	maxFiles     = 10_000   // of one directory
	maxAliases   = 100      // of one YAML document
)

// document is one object as it was written somewhere.
type document struct {
	v1.Manifest
	// where is the file, and the document in it where it has several.
	where string
	// forces tells that the manifest says how often the service was forced to start anew.
	forces bool
	// conditional tells that the manifest came from the API, and is for the object as it was then.
	conditional bool
	// resolve says when a service's image is looked up: always, changed or never. "" is changed.
	resolve string
}

func (d document) name() string { return ref(d.Kind, d.Object.GetMeta().Name) }

// ref is what people call an object: its kind and name.
func ref(k v1.Kind, name string) string { return strings.ToLower(string(k)) + "/" + name }

// readManifests reads all documents of files, directories and "-", which is In. It tells all that is wrong with all of them
// at once, so that nothing was done yet when something is.
func (a *app) readManifests(paths []string, recursive bool) ([]document, error) {
	if len(paths) == 0 {
		return nil, errors.New("nothing to read: want --filename FILE, a directory, or - for standard input")
	}
	var docs []document
	var errs []error
	for _, path := range paths {
		files, err := a.expand(path, recursive)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := a.readFile(file)
			if err != nil {
				return nil, err
			}
			more, err := parseManifests(file, data)
			docs = append(docs, more...)
			if err != nil {
				errs = append(errs, err)
			}
			if len(docs) > maxDocuments {
				return nil, fmt.Errorf("%s: more than %d documents in all", file, maxDocuments)
			}
		}
	}
	errs = append(errs, repeated(docs)...)
	if len(errs) > 0 {
		return nil, fmt.Errorf("%w\n%s", errors.Join(errs...), "nothing was changed")
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("no objects in %s", strings.Join(paths, ", "))
	}
	return docs, nil
}

// expand is the files that a path means.
func (a *app) expand(path string, recursive bool) ([]string, error) {
	if path == "-" {
		return []string{path}, nil
	}
	if strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://") {
		return nil, fmt.Errorf("%s: manifests are read from files: download it and read it first", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	var files []string
	err = filepath.WalkDir(path, func(p string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && p != path && (!recursive || strings.HasPrefix(e.Name(), ".")):
			return filepath.SkipDir
		case !e.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(p)) && !strings.HasPrefix(e.Name(), "."):
			files = append(files, p)
		}
		if len(files) > maxFiles {
			return fmt.Errorf("%s: more than %d files", path, maxFiles)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no .yaml, .yml or .json files", path)
	}
	return files, err
}

func (a *app) readFile(path string) ([]byte, error) {
	data, err := a.readSome(path, maxFile+1)
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return data, err
}

// readSome reads a file, or In for "-", and no more than most bytes of it.
func (a *app) readSome(path string, most int64) ([]byte, error) {
	in := a.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, most))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// repeated finds objects that are written twice.
func repeated(docs []document) []error {
	var errs []error
	first := make(map[string]string)
	for _, d := range docs {
		if where, ok := first[d.name()]; ok {
			errs = append(errs, fmt.Errorf("%s: %s is given twice, first in %s", d.where, d.name(), where))
			continue
		}
		first[d.name()] = d.where
	}
	return errs
}

// parseManifests reads the documents of one file, and tells what is wrong with those that are not right.
func parseManifests(file string, data []byte) ([]document, error) {
	if file == "-" {
		file = "standard input"
	}
	parts, err := split(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var docs []document
	var errs []error
	for i, part := range parts {
		where := file
		if len(parts) > 1 {
			where = fmt.Sprintf("%s, document %d (line %d)", file, i+1, part.line)
		}
		d, err := parseManifest(part)
		if err != nil {
			errs = append(errs, located(where, err))
			continue
		}
		d.where = where
		docs = append(docs, d)
	}
	return docs, errors.Join(errs...)
}

// located says where it is that something is wrong, on each line of it.
func located(where string, err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		lines[i] = where + ": " + line
	}
	return errors.New(strings.Join(lines, "\n"))
}

// parseManifest reads one document and refuses what the API server would refuse.
func parseManifest(p part) (document, error) {
	data, err := p.json()
	if err != nil {
		return document{}, err
	}
	m, err := v1.DecodeManifest(data)
	if err != nil {
		return document{}, err
	}
	// Checked on a copy: what the user left out stays out, so that the server's defaults and what is there already hold.
	checked, err := v1.DecodeManifest(data)
	if err != nil {
		return document{}, err
	}
	v1.Default(checked.Object)
	if errs := v1.Validate(checked.Object); len(errs) > 0 {
		return document{}, errs
	}
	if errs := v1.Unsupported(checked.Object); len(errs) > 0 {
		return document{}, errs
	}
	d := document{Manifest: m, conditional: m.Object.GetMeta().Revisions != v1.Revisions{}}
	d.forces, err = saysForce(m.Kind, data)
	return d, err
}

// saysForce tells whether a manifest says forceUpdate, which an object does not tell: 0 can be said, too.
func saysForce(k v1.Kind, data []byte) (bool, error) {
	if k != v1.KindService {
		return false, nil
	}
	var said struct {
		Spec struct {
			Task struct {
				ForceUpdate *uint64 `json:"forceUpdate"`
			} `json:"task"`
		} `json:"spec"`
	}
	err := json.Unmarshal(data, &said)
	return said.Spec.Task.ForceUpdate != nil, err
}

// part is one document of a file, and the line that it begins on.
type part struct {
	data []byte
	line int
	raw  bool // JSON
}

// split takes a file apart into its documents: JSON values one after another, or YAML documents between lines of ---.
func split(data []byte) ([]part, error) {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && trimmed[0] == '{' {
		if parts, ok := splitJSON(data); ok {
			return parts, nil
		}
	}
	return splitYAML(data)
}

func splitJSON(data []byte) ([]part, bool) {
	var parts []part
	d := json.NewDecoder(bytes.NewReader(data))
	for {
		var raw json.RawMessage
		start := d.InputOffset()
		if err := d.Decode(&raw); err == io.EOF {
			return parts, true
		} else if err != nil || len(parts) >= maxDocuments {
			return nil, false
		}
		line := 1 + bytes.Count(data[:start], []byte("\n"))
		if len(parts) > 0 {
			line += bytes.Count(data[start:d.InputOffset()-int64(len(raw))], []byte("\n"))
		}
		parts = append(parts, part{raw, line, true})
	}
}

func splitYAML(data []byte) ([]part, error) {
	var parts []part
	current := part{line: 1}
	flush := func() {
		if !blank(current.data) {
			parts = append(parts, current)
		}
	}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		text := bytes.TrimRight(line, "\r\n")
		marker := bytes.Equal(text, []byte("---")) || bytes.HasPrefix(text, []byte("--- ")) || bytes.HasPrefix(text, []byte("---\t"))
		if !marker && !bytes.Equal(text, []byte("...")) {
			current.data = append(current.data, line...)
			continue
		}
		flush()
		if len(parts) >= maxDocuments {
			return nil, fmt.Errorf("more than %d documents", maxDocuments)
		}
		current = part{line: n}
		if marker { // what follows on the line belongs to the document
			current.data = append(append(current.data, "   "...), line[3:]...)
		} else {
			current.data = append(current.data, '\n')
		}
	}
	flush()
	return parts, nil
}

// blank tells whether a document holds nothing but white space and comments.
func blank(data []byte) bool {
	for line := range bytes.Lines(data) {
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] != '#' {
			return false
		}
	}
	return true
}

// json is the document as JSON. YAML's duplicate keys are errors; aliases, which could blow a small file up into a huge one,
// are few.
func (p part) json() ([]byte, error) {
	if len(p.data) > v1.MaxManifestSize {
		return nil, fmt.Errorf("%d bytes are too many: a manifest holds at most %d", len(p.data), v1.MaxManifestSize)
	}
	if p.raw {
		return p.data, nil
	}
	if n := aliases(p.data); n > maxAliases {
		return nil, fmt.Errorf("%d aliases are too many: want at most %d", n, maxAliases)
	}
	data, err := yaml.YAMLToJSONStrict(p.data)
	if err != nil {
		return nil, yamlError(err, p.line)
	}
	return data, nil
}

// aliases counts what may be an alias: *name where a value may begin. It may count too many, in text, never too few.
func aliases(data []byte) int {
	n := 0
	for i, b := range data {
		if b != '*' || i+1 == len(data) || bytes.IndexByte([]byte(" \t\r\n"), data[i+1]) >= 0 {
			continue
		}
		if i == 0 || bytes.IndexByte([]byte(" \t\r\n[{,:-?"), data[i-1]) >= 0 {
			n++
		}
	}
	return n
}
