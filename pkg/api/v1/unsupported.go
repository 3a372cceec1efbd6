package v1

import (
	"slices"
	"strconv"
)

// Unsupported tells which fields of a valid object this version does not honour yet, sorted by field, or nil. Whoever takes
// objects from users refuses those: a field is never silently ignored.
func Unsupported(obj Object) FieldErrors {
	u := unsupported{new(checker)}
	switch o := obj.(type) {
	case *Service:
		if o.Spec != nil {
			u.service(o.Spec)
		}
	case *Secret:
		if o.Spec != nil {
			u.when(o.Spec.Driver != nil, "spec.driver")
		}
	case *Volume:
		if o.Spec != nil && o.Spec.Driver != "" && o.Spec.Driver != VolumeLocal {
			u.value("spec.driver", o.Spec.Driver, VolumeLocal)
		}
	}
	return u.sorted()
}

// unsupported collects what is not honoured.
type unsupported struct{ *checker }

// when notes a field that is given.
func (u unsupported) when(given bool, field string) {
	if given {
		u.fail(field, "is not supported yet")
	}
}

// value notes a field with a value that is not honoured, and which ones are.
func (u unsupported) value(field, value string, honoured ...string) {
	u.fail(field, "%s is not supported yet: want %s", cut(value), oneOf(honoured))
}

func (u unsupported) service(s *ServiceSpec) {
	u.task("spec.task", &s.Task)
}

func (u unsupported) task(field string, t *TaskSpec) {
	for i, n := range t.Networks {
		u.when(len(n.DriverOpts) > 0, at(field+".networks", i)+".driverOpts")
	}
	if d := t.LogDriver; d != nil {
		if !slices.Contains([]string{"", "json-file", "local", "none"}, d.Name) {
			u.value(field+".logDriver.name", d.Name, "json-file", "local", "none")
		}
		for name := range d.Options {
			if name != "max-size" && name != "max-file" {
				u.fail(field+".logDriver.options["+strconv.Quote(cut(name))+"]", "is not supported yet: want max-size or max-file")
			}
		}
	}
	u.container(field+".container", &t.Container)
}

func (u unsupported) container(field string, s *ContainerSpec) {
	for i := range s.Mounts {
		if v := s.Mounts[i].Volume; v != nil {
			entry := at(field+".mounts", i) + ".volume"
			if d := v.Driver; d != nil && d.Name != "" && d.Name != VolumeLocal {
				u.value(entry+".driver.name", d.Name, VolumeLocal)
			}
		}
	}
	if p := s.Privileges; p != nil {
		u.when(p.AppArmor != nil, field+".privileges.appArmor")
		u.when(p.SELinux != nil, field+".privileges.seLinux")
	}
}
