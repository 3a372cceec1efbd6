package storetest

import (
	"context"
	"errors"
	"strings"
	"testing"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

func runRefuse(t *testing.T, open Open) {
	t.Run("Invalid", func(t *testing.T) { testInvalid(fix(t, open)) })
	t.Run("TooMany", func(t *testing.T) { testTooMany(fix(t, open)) })
	t.Run("EndedContext", func(t *testing.T) { testEndedContext(fix(t, open)) })
}

func testInvalid(f *fixture) {
	for name, op := range map[string]store.Op{
		"unknown kind":           {Kind: "Pod", ID: "a", Value: &v1.TaskDesired{}},
		"kind that is not kept":  {Kind: v1.KindEvent, ID: "a"},
		"no kind":                {ID: "a"},
		"no ID":                  {Kind: v1.KindSecret, Value: &v1.SecretSpec{}},
		"long ID":                {Kind: v1.KindSecret, ID: strings.Repeat("x", 513), Value: &v1.SecretSpec{}},
		"NUL in the ID":          {Kind: v1.KindSecret, ID: "a\x00b", Value: &v1.SecretSpec{}},
		"newline in the ID":      {Kind: v1.KindSecret, ID: "a\n", Value: &v1.SecretSpec{}},
		"no such section":        {Kind: v1.KindSecret, ID: "a", Section: v1.SectionStatus, Value: &v1.TaskStatus{}},
		"removal of no section":  {Kind: v1.KindSecret, ID: "a", Section: v1.SectionStatus},
		"section out of range":   {Kind: v1.KindSecret, ID: "a", Section: 77},
		"another kind's value":   {Kind: v1.KindSecret, ID: "a", Value: &v1.ConfigSpec{}},
		"value and no pointer":   {Kind: v1.KindSecret, ID: "a", Value: v1.SecretSpec{}},
		"nil pointer":            {Kind: v1.KindSecret, ID: "a", Value: (*v1.SecretSpec)(nil)},
		"another section's":      {Kind: v1.KindTask, ID: "a", Section: v1.SectionStatus, Value: &v1.TaskDesired{}},
		"value of no type known": {Kind: v1.KindSecret, ID: "a", Value: 7},
	} {
		op.If = store.Always()
		f.Run(name, func(t *testing.T) {
			sub := &fixture{t, f.ctx, f.Store}
			sub.fails(store.ErrInvalid, desired("b", 1, store.Absent()), op)
		})
	}
	if n := f.now().Count(v1.KindTask); n != 0 {
		f.Errorf("%d tasks were written beside what was refused", n)
	}
}

func testTooMany(f *fixture) {
	most := store.MaxOps
	if l, ok := f.Store.(store.Limited); ok {
		most = min(most, l.MaxOps())
	}
	f.commit(newTasks(most)...)
	if n := f.now().Count(v1.KindTask); n != most {
		f.Errorf("%d tasks of %d", n, most)
	}
	ops := newTasks(store.MaxOps + 1)
	for i := range ops {
		ops[i].If = store.Always()
	}
	f.fails(store.ErrTooLarge, ops...)
	// The most operations with the most conditions: of sections that are not there yet.
	for i := range ops {
		ops[i] = status(ops[i].ID, "", store.AtRevision(0))
	}
	f.commit(ops[:most]...)
}

func testEndedContext(f *fixture) {
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(f.ctx)
	cancel(why)
	if _, err := f.Commit(ctx, store.Commit{Ops: newTasks(1)}); !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		f.Errorf("commit: %v", err)
	}
	if f.now().Count(v1.KindTask) != 0 {
		f.Error("a commit whose context had ended happened")
	}
}
