package apiserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func paths(records []v1.AuditRecord) string {
	var list []string
	for i := range records {
		list = append(list, records[i].Path)
	}
	return strings.Join(list, " ")
}

// TestRotation: the log stays within its bounds, and is read over the borders of its files.
func TestRotation(t *testing.T) {
	f := &rotated{path: filepath.Join(t.TempDir(), "audit"), size: 400, keep: 2}
	defer f.close()
	for i := range 40 {
		if err := f.append(&v1.AuditRecord{Path: fmt.Sprint(i), Time: time.Unix(int64(i), 0).UTC()}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(f.path + "*")
	if err != nil || len(files) != 3 {
		t.Errorf("%v, %v", files, err)
	}
	for _, name := range files {
		if info, err := os.Stat(name); err != nil || info.Size() > 400 || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %d bytes, %v, %v", name, info.Size(), info.Mode(), err)
		}
	}
	got, err := f.newest(6, time.Time{})
	if err != nil || paths(got) != "34 35 36 37 38 39" {
		t.Errorf("%s, %v", paths(got), err)
	}
	if got, err = f.newest(100, time.Unix(37, 0)); err != nil || paths(got) != "37 38 39" {
		t.Errorf("%s, %v", paths(got), err)
	}
	all, err := f.newest(100, time.Time{})
	if err != nil || len(all) < 6 || len(all) >= 40 || all[len(all)-1].Path != "39" {
		t.Errorf("%s, %v", paths(all), err)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Time.Sub(all[i-1].Time) != time.Second {
			t.Errorf("there is a gap in %s", paths(all))
		}
	}
}

// TestAfterACrash: a line that was not finished harms no other, and a log that somebody moved away begins anew.
func TestAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit")
	if err := os.WriteFile(path, []byte(`{"path":"a","status":200}`+"\n"+`{"path":"b","sta`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &rotated{path: path, size: 1 << 20, keep: 2}
	defer f.close()
	if err := f.append(&v1.AuditRecord{Path: "c"}); err != nil {
		t.Fatal(err)
	}
	if got, err := f.newest(10, time.Time{}); err != nil || paths(got) != "a c" {
		t.Errorf("%s, %v", paths(got), err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err := f.append(&v1.AuditRecord{Path: "d"}); err != nil {
		t.Fatal(err)
	}
	if got, err := f.newest(10, time.Time{}); err != nil || paths(got) != "d" {
		t.Errorf("%s, %v", paths(got), err)
	}
}

// TestWritersTogether: lines of many writers stay whole, and none is lost while nothing has to go.
func TestWritersTogether(t *testing.T) {
	f := &rotated{path: filepath.Join(t.TempDir(), "audit"), size: 2000, keep: 100}
	defer f.close()
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 50 {
				if err := f.append(&v1.AuditRecord{Path: fmt.Sprintf("%d-%d", w, i)}); err != nil {
					t.Error(err)
				}
				if i%10 == 0 {
					if _, err := f.newest(5, time.Time{}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	if got, err := f.newest(1000, time.Time{}); err != nil || len(got) != 400 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

func TestAttempts(t *testing.T) {
	now := time.Unix(0, 0)
	a := newAttempts(3, func() time.Time { return now })
	for range 3 {
		if err := a.allow("x"); err != nil {
			t.Fatal(err)
		}
		a.failed("x")
	}
	if a.allow("x") == nil {
		t.Error("a fourth try")
	}
	if err := a.allow("y"); err != nil {
		t.Error("somebody else is held up")
	}
	now = now.Add(tryWindow)
	if err := a.allow("x"); err != nil {
		t.Error("it is not over")
	}
	for i := range 3 * maxTriers {
		a.failed(fmt.Sprint(i))
		now = now.Add(time.Millisecond)
	}
	if len(a.from) > maxTriers {
		t.Errorf("%d are remembered", len(a.from))
	}
}
