package v1

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestReferenceNamesEveryField holds docs/service.md to the types: no field of a service is left out.
func TestReferenceNamesEveryField(t *testing.T) {
	data, err := os.ReadFile("../../../docs/service.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, field := range fieldNames(reflect.TypeFor[ServiceSpec](), map[reflect.Type]bool{}) {
		if !strings.Contains(page, "`"+field) && !strings.Contains(page, "."+field+"`") && !strings.Contains(page, "."+field+"[") && !strings.Contains(page, "."+field+".") {
			t.Errorf("docs/service.md does not name the field %s", field)
		}
	}
}

// fieldNames are the JSON names of all fields of a struct, and of those that it holds.
func fieldNames(t reflect.Type, seen map[reflect.Type]bool) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return nil
	}
	seen[t] = true
	var names []string
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
		names = append(names, fieldNames(field.Type, seen)...)
	}
	return names
}
