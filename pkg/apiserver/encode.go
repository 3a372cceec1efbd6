package apiserver

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// appendObject appends an object as the API shows it: with apiVersion and kind, without what must not be read back.
func appendObject(buf []byte, kind v1.Kind, obj v1.Object) ([]byte, error) {
	body, err := json.Marshal(shown(obj))
	if err != nil {
		return buf, err
	}
	buf = append(buf, `{"apiVersion":"`+v1.APIVersion+`","kind":"`...)
	buf = append(buf, kind...)
	buf = append(buf, `",`...)
	return append(buf, body[1:]...), nil // every object has its metadata: body is never {}
}

// shown is the object without a secret's data or a registry's password, and without what a user's tokens are known by.
func shown(obj v1.Object) v1.Object {
	switch obj := obj.(type) {
	case *v1.Secret:
		if obj.Spec == nil || obj.Spec.Data == nil {
			return obj
		}
		spec, next := *obj.Spec, *obj
		spec.Data = nil
		next.Spec = &spec
		return &next
	case *v1.Registry:
		if obj.Spec == nil {
			return obj
		}
		next := *obj
		next.Spec = &v1.RegistrySpec{Username: obj.Spec.Username}
		return &next
	case *v1.User:
		if obj.Spec == nil || len(obj.Spec.Tokens) == 0 {
			return obj
		}
		spec, next := *obj.Spec, *obj
		spec.Tokens = slices.Clone(spec.Tokens)
		for i := range spec.Tokens {
			spec.Tokens[i].Hash = ""
		}
		next.Spec = &spec
		return &next
	}
	return obj
}

// writeObject answers with one object, and warnings if there are any.
func writeObject(w http.ResponseWriter, code int, kind v1.Kind, obj v1.Object, warnings []string) error {
	body, err := appendObject(nil, kind, obj)
	if err != nil {
		return err
	}
	if len(warnings) > 0 {
		list, err := json.Marshal(warnings)
		if err != nil {
			return err
		}
		body = append(body[:len(body)-1], `,"warnings":`...)
		body = append(append(body, list...), '}')
	}
	writeBody(w, code, body)
	return nil
}

// writeJSON answers with any value.
func writeJSON(w http.ResponseWriter, code int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	writeBody(w, code, body)
	return nil
}

func writeBody(w http.ResponseWriter, code int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(body, '\n'))
}
