package v1

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// FuzzDecodeManifest feeds the whole way of a manifest: whatever is taken has to be stable under defaults, to be written
// and read again as the same thing, and to be a plain JSON document of the same meaning to encoding/json.
func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(helloManifest))
	for _, m := range fullManifests(f) {
		f.Add(m)
	}
	for _, s := range []string{
		`{"apiVersion":"swarm/v1","kind":"Secret","metadata":{"name":"s"},"spec":{"data":"aGk="}}`,
		`{"apiVersion":"swarm/v1","kind":"Node","metadata":{"labels":{"a\ud83d\ude00":"\ufffd"}},"spec":null}`,
		`{"kind":"Service","apiVersion":"swarm/v1","spec":{"task":{"container":{"args":[null,"\u0041"]}}}}`,
		`{"apiVersion":"swarm/v1","kind":"Cluster","spec":{"taskHistoryLimit":-1}} x`,
		strings.Repeat(`{"a":`, 40),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeManifest(data)
		if err != nil {
			var errs FieldErrors
			if !errors.As(err, &errs) || len(errs) == 0 || len(errs) > maxDecodeErrors || err.Error() == "" {
				t.Fatalf("error is %#v", err)
			}
			return
		}
		if !json.Valid(data) {
			t.Fatal("what is not JSON was taken")
		}
		Default(m.Object)
		once := encodeManifest(t, m)
		Default(m.Object)
		if twice := encodeManifest(t, m); string(once) != string(twice) {
			t.Fatalf("Default is not idempotent:\n%s\n%s", once, twice)
		}
		Unsupported(m.Object)
		if Validate(m.Object) != nil || len(once) > MaxManifestSize {
			return
		}
		again, err := DecodeManifest(withoutID(t, m))
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, once)
		}
		m.Object.GetMeta().ID, m.Object.GetMeta().Generation, m.Object.GetMeta().Revisions = "", 0, Revisions{}
		if want, got := encodeManifest(t, m), encodeManifest(t, again); string(want) != string(got) {
			t.Fatalf("written and read again:\n%s\n%s", want, got)
		}
	})
}

func encodeManifest(t *testing.T, m Manifest) []byte {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// withoutID is the manifest as a person would write it.
func withoutID(t *testing.T, m Manifest) []byte {
	t.Helper()
	meta := *m.Object.GetMeta()
	defer func() { *m.Object.GetMeta() = meta }()
	*m.Object.GetMeta() = Meta{Name: meta.Name, Labels: meta.Labels}
	return encodeManifest(t, m)
}
