package v1

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// TestFrameReader: output is read until the end, whose error is that of the stream, as is an end that never comes.
func TestFrameReader(t *testing.T) {
	for name, c := range map[string]struct {
		end   *TunnelEnd
		ended bool
		want  string
	}{
		"well":       {&TunnelEnd{}, true, ""},
		"not well":   {&TunnelEnd{Error: "disk full"}, true, "disk full"},
		"cut off":    {nil, false, io.ErrUnexpectedEOF.Error()},
		"exit codes": {&TunnelEnd{ExitCode: new(int)}, true, ""},
	} {
		var tunnel, errs bytes.Buffer
		for _, err := range []error{WriteFrame(&tunnel, FrameOutput, []byte("some ")), WriteFrame(&tunnel, FrameErrors, []byte("warning")),
			WriteFrame(&tunnel, FrameOutput, nil), WriteFrame(&tunnel, FrameOutput, []byte("output"))} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if c.end != nil {
			if err := WriteFrameJSON(&tunnel, FrameEnd, c.end); err != nil {
				t.Fatal(err)
			}
		}
		r := &FrameReader{From: &tunnel, Errors: &errs}
		got, err := io.ReadAll(r)
		if string(got) != "some output" || errs.String() != "warning" || r.Ended != c.ended || (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%s: %q, %q, ended %t, %v", name, got, errs.String(), r.Ended, err)
		}
	}
	if _, err := io.ReadAll(&FrameReader{From: bytes.NewReader([]byte{byte(FrameOutput), 0, 0})}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half a frame: %v", err)
	}
}
