package v1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"time"
)

// Manifest is one object the way people write and read it.
type Manifest struct {
	APIVersion string
	Kind       Kind
	Object     Object
}

// manifestKinds are those that people write. The rest is made by the swarm.
var manifestKinds = []Kind{KindService, KindNetwork, KindSecret, KindConfig, KindVolume, KindRegistry, KindNode, KindCluster, KindUser, KindAttachment}

// manifestFields are those of every manifest.
var manifestFields = []string{"apiVersion", "kind", "metadata", "spec"}

// DecodeManifest reads one manifest in JSON: {"apiVersion","kind","metadata","spec"}, as strictly as DecodeStrict, up to
// MaxManifestSize. It neither fills in defaults nor validates.
//
// What only the swarm writes (metadata.id, createdAt, updatedAt, generation and deleting; desired; status) is refused in a
// manifest that a person wrote. One that came from the API, which metadata.revisions tells, may be given back as it is:
// of what the swarm wrote, the object keeps its ID, its Generation and the revision of its spec, as conditions for whoever
// wants them; the rest is dropped.
func DecodeManifest(data []byte) (Manifest, error) {
	if len(data) > MaxManifestSize {
		return Manifest{}, FieldErrors{{Message: fmt.Sprintf("%d bytes are too many: a manifest holds at most %d", len(data), MaxManifestSize)}}
	}
	if err := checkJSON(data); err != nil {
		return Manifest{}, FieldErrors{*err}
	}
	d := decoder{cursor: cursor{data: data}, maxEntries: MaxEntries}
	if d.peek() != '{' {
		d.wrong("", "an object with "+oneOf(manifestFields))
		return Manifest{}, d.result()
	}
	m, describer := d.manifestHead()
	if describer == nil {
		return Manifest{}, d.result()
	}
	d.at = 0
	m.Object = describer.New()
	d.manifestBody(m.Object)
	return m, d.result()
}

// manifestHead reads what kind of object it is, which may stand anywhere in it.
func (d *decoder) manifestHead() (Manifest, Descriptor) {
	var m Manifest
	d.object(func(key, _ string) {
		switch key {
		case "apiVersion":
			d.value(key, reflect.ValueOf(&m.APIVersion).Elem())
		case "kind":
			d.value(key, reflect.ValueOf(&m.Kind).Elem())
		default:
			d.skip()
		}
	})
	if len(d.errs) > 0 {
		return m, nil
	}
	switch m.APIVersion {
	case APIVersion:
	case "":
		d.fail("apiVersion", "is missing: want %s", APIVersion)
	default:
		d.fail("apiVersion", "want %s, found %q", APIVersion, cut(m.APIVersion))
	}
	for _, k := range manifestKinds {
		if k == m.Kind {
			describer, _ := Describe(k)
			return m, describer
		}
	}
	switch _, known := Describe(m.Kind); {
	case m.Kind == "":
		d.fail("kind", "is missing: want %s", oneOf(manifestKinds))
	case known || m.Kind == KindEvent:
		d.fail("kind", "%s is made by the swarm, not by a manifest: want %s", m.Kind, oneOf(manifestKinds))
	default:
		names := make([]string, len(manifestKinds))
		for i, k := range manifestKinds {
			names[i] = string(k)
		}
		d.fail("kind", "%q is not a kind%s", cut(string(m.Kind)), suggestion(string(m.Kind), names))
	}
	return m, nil
}

// manifestBody reads metadata and spec into an empty object of the right kind, and everything else for its errors alone.
func (d *decoder) manifestBody(obj Object) {
	meta := obj.GetMeta()
	seen := make(map[string]bool)
	var told []string // sections that are the swarm's
	d.object(func(key, bad string) {
		switch {
		case bad != "":
			d.fail("", "a field's name %s", bad)
		case seen[key]:
			d.fail(join("", key), "is given twice")
		case key == "metadata":
			d.value(key, reflect.ValueOf(meta).Elem())
			seen[key] = true
			return
		case key == "spec":
			d.value(key, reflect.ValueOf(obj).Elem().FieldByName("Spec"))
			seen[key] = true
			return
		case key == "desired" || key == "status":
			told = append(told, key)
		case key != "apiVersion" && key != "kind":
			d.fail(join("", key), "unknown field%s", suggestion(key, manifestFields))
		}
		seen[key] = true
		d.skip()
	})
	d.manifestMeta(meta, told)
}

// manifestMeta keeps of an object's metadata what a manifest may say.
func (d *decoder) manifestMeta(meta *Meta, told []string) {
	const swarms = "is written by the swarm, not by a manifest: leave it out"
	if meta.Revisions == (Revisions{}) {
		for _, section := range told {
			d.fail(section, swarms)
		}
		for _, f := range []struct {
			name  string
			given bool
		}{
			{"id", meta.ID != ""}, {"createdAt", !meta.CreatedAt.IsZero()}, {"updatedAt", !meta.UpdatedAt.IsZero()},
			{"generation", meta.Generation != 0}, {"deleting", !meta.Deleting.IsZero()},
		} {
			if f.given {
				d.fail("metadata."+f.name, swarms)
			}
		}
	}
	if meta.Generation > math.MaxInt64 || meta.Revisions[SectionSpec] < 0 {
		d.fail("metadata", "is not what the API gave: generation or revisions are out of range")
	}
	meta.CreatedAt, meta.UpdatedAt, meta.Deleting = time.Time{}, time.Time{}, time.Time{}
	meta.Revisions = Revisions{SectionSpec: meta.Revisions[SectionSpec]}
}

// MarshalJSON writes the manifest: apiVersion and kind, and then the object with all of its sections.
func (m Manifest) MarshalJSON() ([]byte, error) {
	object, err := json.Marshal(m.Object)
	if err != nil {
		return nil, err
	}
	head, err := json.Marshal(struct {
		APIVersion string `json:"apiVersion"`
		Kind       Kind   `json:"kind"`
	}{m.APIVersion, m.Kind})
	if err != nil || !bytes.HasPrefix(object, []byte("{")) {
		return nil, fmt.Errorf("manifest of kind %q without an object: %w", m.Kind, err)
	}
	head[len(head)-1] = ','
	return append(head, object[1:]...), nil
}

// ManifestOf is the manifest of an object.
func ManifestOf(obj Object) Manifest {
	for _, d := range Kinds {
		if reflect.TypeOf(d.New()) == reflect.TypeOf(obj) {
			return Manifest{APIVersion: APIVersion, Kind: d.Kind(), Object: obj}
		}
	}
	return Manifest{APIVersion: APIVersion, Object: obj}
}
