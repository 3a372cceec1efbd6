package v1

import "testing"

// TestSameButPlacement: which changes of secrets and configs replace a task, and which it has to be told of.
func TestSameButPlacement(t *testing.T) {
	file := func(target, id string, action ChangeAction) FileReference {
		return FileReference{Source: id, ID: id, Target: target, OnChange: action}
	}
	with := func(refs ...FileReference) TaskSpec { return TaskSpec{Container: ContainerSpec{Secrets: refs}} }
	for name, c := range map[string]struct {
		before, now TaskSpec
		stays, same bool
	}{
		"nothing":                              {with(file("/a", "a", "")), with(file("/a", "a", "")), true, true},
		"none were, and none are":              {with(), TaskSpec{Container: ContainerSpec{Secrets: []FileReference{}}}, true, true},
		"the order":                            {with(file("/a", "a", ""), file("/b", "b", "")), with(file("/b", "b", ""), file("/a", "a", "")), true, true},
		"the default is said":                  {with(file("/a", "a", "")), with(file("/a", "a", ChangeRestart)), true, true},
		"what follows":                         {with(file("/a", "a", ChangeNone)), with(file("/a", "a", ChangeSignal)), true, true},
		"it is to change":                      {with(file("/a", "a", "")), with(file("/a", "a", ChangeNone)), true, true},
		"it is to change no more":              {with(file("/a", "a", ChangeNone)), with(file("/a", "a", "")), true, true},
		"another":                              {with(file("/a", "a", "")), with(file("/a", "b", "")), false, false},
		"another, which changes":               {with(file("/a", "a", ChangeNone)), with(file("/a", "b", ChangeSignal)), true, false},
		"another, from now on":                 {with(file("/a", "a", "")), with(file("/a", "b", ChangeNone)), false, false},
		"another, no more":                     {with(file("/a", "a", ChangeNone)), with(file("/a", "b", "")), false, false},
		"another target":                       {with(file("/a", "a", ChangeNone)), with(file("/b", "a", ChangeNone)), false, false},
		"one changes, one is to from now on":   {with(file("/a", "a", ""), file("/b", "b", ChangeNone)), with(file("/a", "a", ChangeNone), file("/b", "c", ChangeNone)), false, false},
		"one changes, and the default is said": {with(file("/a", "a", ""), file("/b", "b", ChangeNone)), with(file("/a", "a", ChangeRestart), file("/b", "c", ChangeNone)), true, false},
	} {
		r, s := &ServiceRevisionSpec{Task: c.before}, &ServiceSpec{Task: c.now}
		if stays, same := SameButPlacement(r, s), SameFiles(r, s); stays != c.stays || same != c.same {
			t.Errorf("%s: tasks stay %v and have the same files %v, want %v and %v", name, stays, same, c.stays, c.same)
		}
	}
}
