package logfile

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 123456789, time.UTC)

func TestRecord(t *testing.T) {
	for _, want := range []Record{
		{Time: noon, Stream: "stdout", Line: []byte("hello")},
		{Time: noon, Stream: "stderr", Partial: true, Line: []byte{}},
		{Time: noon, Stream: "stdout", Line: []byte(" F \x00\xff\r")},
	} {
		line := want.Append(nil)
		got, err := Parse(bytes.TrimSuffix(line, []byte{'\n'}))
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q: %v, %s", line, err, cmp.Diff(want, got))
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-11-22T12:00:00.123456789Z stdout F hello"))
	f.Add([]byte(""))
	f.Add([]byte("2026-11-22T12:00:00.123456789Z stdin F hello"))
	f.Add([]byte("a b c"))
	f.Add([]byte("2026-11-22T12:00:00,123456789Z stdout F a comma, which Go reads as a point"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		line := r.Append(nil)
		if again, err := Parse(bytes.TrimSuffix(line, []byte{'\n'})); err != nil || !cmp.Equal(again, r) {
			t.Errorf("%q was read, is written as %q, and read as %+v, %v", b, line, again, err)
		}
	})
}

// TestSplitter: however a stream is cut into reads, its records put together are the stream.
func TestSplitter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.OneOf(rapid.Just("\n"), rapid.Just("x"), rapid.Just("line\n"),
			rapid.Custom(func(t *rapid.T) string {
				return strings.Repeat("y", rapid.IntRange(MaxLine-2, 3*MaxLine).Draw(t, "long"))
			}))
		stream := strings.Join(rapid.SliceOfN(line, 0, 12).Draw(t, "stream"), "")
		s := NewSplitter("stdout")
		var out []byte
		for rest := stream; rest != ""; {
			space := s.Space()
			n := min(rapid.IntRange(1, len(space)).Draw(t, "read"), len(rest))
			copy(space, rest[:n])
			out = s.Advance(n, noon, out)
			rest = rest[n:]
		}
		if s.Pending() != (stream != "" && !strings.HasSuffix(stream, "\n")) {
			t.Errorf("Pending: %t", s.Pending())
		}
		out = s.Flush(noon, out)
		var got strings.Builder
		for line := range bytes.Lines(out) {
			r, err := Parse(bytes.TrimSuffix(line, []byte{'\n'}))
			if err != nil || len(r.Line) > MaxLine {
				t.Fatalf("record of %d bytes: %v", len(r.Line), err)
			}
			got.Write(r.Line)
			if !r.Partial {
				got.WriteByte('\n')
			}
		}
		if got.String() != stream {
			t.Errorf("got %d bytes, want %d", got.Len(), len(stream))
		}
	})
}

// lines is what the directory's files hold.
func lines(t *testing.T, dir string) (all []string) {
	t.Helper()
	numbers, err := Numbers(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		data, err := os.ReadFile(filepath.Join(dir, Name(n)))
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			r, err := Parse(bytes.TrimSuffix(line, []byte{'\n'}))
			if err != nil {
				all = append(all, "broken")
				continue
			}
			all = append(all, string(r.Line))
		}
	}
	return all
}

func record(text string) []byte {
	return Record{Time: noon, Stream: "stdout", Line: []byte(text)}.Append(nil)
}

func TestWriterRotates(t *testing.T) {
	dir := t.TempDir()
	size := int64(3 * len(record("line 000")))
	w, err := Open(dir, size, 2)
	if err != nil {
		t.Fatal(err)
	}
	var batch []byte
	for i := range 100 {
		batch = append(batch, record(fmt.Sprintf("line %03d", i))...)
		if i%7 == 0 {
			w.Write(batch)
			batch = batch[:0]
		}
	}
	w.Write(batch)
	w.Write(record(strings.Repeat("z", int(2*size)))) // alone in its file, whole
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"line 099", strings.Repeat("z", int(2*size))}
	if diff := cmp.Diff(want, lines(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// TestWriterGoesOn: a second writer continues, also after one that was killed in the middle of a record.
func TestWriterGoesOn(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, Name(7)), append(record("one"), "2026-11-22T12"...), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Open(dir, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(record("two"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one", "broken", "two"}, lines(t, dir)); diff != "" {
		t.Error(diff)
	}
}

func TestNumbers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{Name(10), Name(9), End, "x.log", "0.log", "-1.log", "11.log.gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Numbers(dir)
	if err != nil || !cmp.Equal(got, []int{9, 10}) {
		t.Errorf("got %v, %v", got, err)
	}
}
