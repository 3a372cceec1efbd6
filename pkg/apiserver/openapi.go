package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"sync"

	"github.com/invopop/jsonschema"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// anyObject stands for a body that the document does not describe.
type anyObject struct{}

// objectList stands for a list of a kind in the table of routes.
type objectList struct{ kind v1.Descriptor }

func listOf(d v1.Descriptor) any { return objectList{d} }

// documentOf makes the OpenAPI document of the routes, when it is first asked for.
func documentOf(table []route) func() ([]byte, error) {
	return sync.OnceValues(func() ([]byte, error) {
		doc := document{schemas: make(map[string]any), paths: make(map[string]map[string]any)}
		for i := range table {
			if err := doc.add(&table[i]); err != nil {
				return nil, err
			}
		}
		return json.MarshalIndent(map[string]any{
			"openapi": "3.1.0",
			"info": map[string]any{"title": "swarmd", "version": strings.TrimPrefix(v1.APIVersion, "swarm/"),
				"description": "Docker Swarm mode over HTTP. Errors are problem documents (RFC 9457)."},
			"paths": doc.paths,
			"components": map[string]any{"schemas": doc.schemas, "securitySchemes": map[string]any{
				"certificate": map[string]any{"type": "mutualTLS", "description": "A certificate of the swarm: of a node, or of a user."},
				"token":       map[string]any{"type": "http", "scheme": "bearer", "description": "A user's token."},
			}},
		}, "", " ")
	})
}

// document gathers paths and schemas.
type document struct {
	schemas map[string]any
	paths   map[string]map[string]any
}

var pathParameter = regexp.MustCompile(`\{(\w+)\}`)

func (d *document) add(rt *route) error {
	problem, err := d.schema(v1.Problem{})
	if err != nil {
		return err
	}
	success := map[string]any{"description": "Done."}
	if rt.out != nil {
		if success["content"], err = d.content(rt, rt.out); err != nil {
			return err
		}
	}
	operation := map[string]any{
		"summary": rt.summary, "description": "For: " + rt.may.String() + ".", "security": rt.may.schemes(), "tags": []string{rt.resource}, "operationId": operationID(rt),
		"responses": map[string]any{
			"2XX":     success,
			"default": map[string]any{"description": "A problem.", "content": map[string]any{"application/problem+json": map[string]any{"schema": problem}}},
		},
	}
	var parameters []any
	for _, m := range pathParameter.FindAllStringSubmatch(rt.path, -1) {
		parameters = append(parameters, map[string]any{"name": m[1], "in": "path", "required": true, "schema": map[string]any{"type": "string"}})
	}
	for _, name := range rt.query {
		parameters = append(parameters, queryParameter(name))
	}
	if parameters != nil {
		operation["parameters"] = parameters
	}
	if rt.in != nil {
		schema, err := d.schema(rt.in)
		if err != nil {
			return err
		}
		operation["requestBody"] = map[string]any{"content": map[string]any{"application/json": map[string]any{"schema": schema}}}
	}
	if d.paths[rt.path] == nil {
		d.paths[rt.path] = make(map[string]any)
	}
	d.paths[rt.path][strings.ToLower(rt.method)] = operation
	return nil
}

func operationID(rt *route) string {
	return strings.ToLower(rt.method) + pathParameter.ReplaceAllString(strings.NewReplacer("/", "_", ".", "_", ":", "_").Replace(rt.path), "$1")
}

// queryParameter describes a parameter by what its name means everywhere.
func queryParameter(name string) map[string]any {
	schema := map[string]any{"type": "string"}
	switch name {
	case "filter", "id":
		schema = map[string]any{"type": "array", "items": schema}
	case "role":
		schema["enum"] = []string{string(v1.RoleWorker), string(v1.RoleManager)}
	case "limit", "after", "revision", "again":
		schema = map[string]any{"type": "integer"}
	case "watch", "dryRun", "force", "stdout", "stderr", "follow", "timestamps":
		schema = map[string]any{"type": "boolean"}
	case "resolveImage":
		schema["enum"] = []string{resolveAlways, resolveChanged, resolveNever}
	}
	return map[string]any{"name": name, "in": "query", "schema": schema}
}

// content is the body of an answer: JSON, or for what goes on, lines of it.
func (d *document) content(rt *route, out any) (any, error) {
	schema, err := d.schema(out)
	if err != nil {
		return nil, err
	}
	mediaType := "application/json"
	if rt.stream && rt.path != "/v1/images/load" && rt.path != "/v1/swarm/restore" {
		mediaType = "application/x-ndjson"
	}
	return map[string]any{mediaType: map[string]any{"schema": schema}}, nil
}

// schema is a reference to a type's schema among the components.
func (d *document) schema(v any) (any, error) {
	switch v := v.(type) {
	case anyObject:
		return map[string]any{"type": "object"}, nil
	case objectList:
		item, err := d.schema(v.kind.New())
		return map[string]any{"type": "object", "required": []string{"items", "revision"}, "properties": map[string]any{
			"apiVersion": map[string]any{"const": v1.APIVersion}, "kind": map[string]any{"const": string(v.kind.Kind()) + "List"},
			"revision": map[string]any{"type": "integer"}, "items": map[string]any{"type": "array", "items": item},
			"continue": map[string]any{"type": "string"},
		}}, err
	}
	r := jsonschema.Reflector{Anonymous: true, Mapper: special, Namer: typeName, AllowAdditionalProperties: true}
	body, err := json.Marshal(r.Reflect(v))
	if err != nil {
		return nil, fmt.Errorf("apiserver: schema of %T: %w", v, err)
	}
	body = bytes.ReplaceAll(body, []byte(`"#/$defs/`), []byte(`"#/components/schemas/`))
	var schema map[string]any
	if err := json.Unmarshal(body, &schema); err != nil {
		return nil, err
	}
	defs, _ := schema["$defs"].(map[string]any)
	for name, def := range defs {
		if kind, ok := v1.Describe(v1.Kind(name)); ok {
			addHead(def, kind.Kind())
		}
		d.schemas[name] = def
	}
	delete(schema, "$defs")
	delete(schema, "$schema")
	return schema, nil
}

// addHead adds what every object begins with.
func addHead(def any, k v1.Kind) {
	if d, ok := def.(map[string]any); ok {
		if properties, ok := d["properties"].(map[string]any); ok {
			properties["apiVersion"] = map[string]any{"const": v1.APIVersion}
			properties["kind"] = map[string]any{"const": string(k)}
		}
	}
}

// typeName names a schema: kinds of objects by their kind, others by their type.
func typeName(t reflect.Type) string {
	for _, d := range v1.Kinds {
		if t == reflect.TypeOf(d.New()).Elem() {
			return string(d.Kind())
		}
	}
	return t.Name()
}

// special are the types that are written in another way than they are made.
func special(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[v1.Duration]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "string"}, {Type: "integer"}}, Description: "A time span such as 1m30s, or nanoseconds."}
	case reflect.TypeFor[v1.Bytes]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "integer"}, {Type: "string"}}, Description: "Bytes, or a size such as 64m."}
	case reflect.TypeFor[v1.CPUs]():
		return &jsonschema.Schema{OneOf: []*jsonschema.Schema{{Type: "number"}, {Type: "string"}}, Description: "Cores, such as 0.5."}
	case reflect.TypeFor[v1.TaskState]():
		return &jsonschema.Schema{Type: "string", Description: "A task's state, such as running."}
	case reflect.TypeFor[v1.Revisions]():
		return &jsonschema.Schema{Type: "object", AdditionalProperties: &jsonschema.Schema{Type: "integer"},
			Description: "The store's revision at which each section was last written."}
	case reflect.TypeFor[v1.None]():
		return &jsonschema.Schema{Type: "null"}
	}
	return nil
}
