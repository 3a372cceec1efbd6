package v1

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"
)

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]Bytes{
		"0": 0, "512": 512, "512b": 512, "64m": 64 << 20, "64M": 64 << 20, "64Mi": 64 << 20, "64MiB": 64 << 20, "64mb": 64 << 20,
		"1.5g": 3 << 29, " 2 k ": 2048, "3T": 3 << 40, "1p": 1 << 50, "9007199254740993": 9007199254740993,
	} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "m", "-1", "1x", "64i", "64ib", "64bb", "1e9", "1..5", "NaN", "inf", "9999999999g", "64mm", "0x10", "1 2"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", in, got)
		}
	}
}

func TestQuantitiesInJSON(t *testing.T) {
	type all struct {
		D Duration `json:"d"`
		B Bytes    `json:"b"`
		C CPUs     `json:"c"`
	}
	var got all
	if err := json.Unmarshal([]byte(`{"d":"1m30s","b":"1k","c":"0.25"}`), &got); err != nil {
		t.Fatal(err)
	}
	if want := (all{Duration(90 * time.Second), 1024, 250_000_000}); got != want {
		t.Errorf("from strings: %+v, want %+v", got, want)
	}
	if err := json.Unmarshal([]byte(`{"d":1000,"b":-5,"c":0.25}`), &got); err != nil {
		t.Fatal(err)
	}
	if want := (all{1000, -5, 250_000_000}); got != want {
		t.Errorf("from numbers: %+v, want %+v", got, want)
	}
	if data, _ := json.Marshal(all{Duration(90 * time.Second), 1024, 1_500_000_000}); string(data) != `{"d":"1m30s","b":1024,"c":1.5}` {
		t.Errorf("wrote %s", data)
	}
	for _, bad := range []string{`{"d":"x"}`, `{"d":1.5}`, `{"d":true}`, `{"b":true}`, `{"b":"x"}`, `{"c":"x"}`, `{"c":[]}`, `{"c":1e99}`, `{"c":"NaN"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was read as %+v", bad, got)
		}
	}
}

func FuzzParseBytes(f *testing.F) {
	for _, s := range []string{"512", "64m", "1.5g", "64MiB", "9223372036854775807", "-1", "0.0000001p", "1 k"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := ParseBytes(text)
		if err != nil {
			return
		}
		if b < 0 {
			t.Fatalf("ParseBytes(%q) = %d", text, b)
		}
		again, err := ParseBytes(strconv.FormatInt(int64(b), 10))
		if err != nil || again != b {
			t.Fatalf("%q is %d, which reads as %d, %v", text, b, again, err)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{`"10s"`, `"1m30s"`, `1000000000`, `"-1h"`, `1e9`, `""`, `"9223372036854775807ns"`, `"2562048h"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d, again Duration
		if err := json.Unmarshal(data, &d); err != nil {
			return
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &again); err != nil || again != d {
			t.Fatalf("%s is %d, written as %s, which reads as %d, %v", data, d, text, again, err)
		}
	})
}

func FuzzCPUs(f *testing.F) {
	for _, s := range []string{"0.5", "2", "-1", "1e6", "0.0000000001", "0x1p-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCPUs(text)
		if err != nil {
			return
		}
		if again, err := ParseCPUs(c.String()); err != nil || again != c {
			t.Fatalf("%q is %d, written as %s, which reads as %d, %v", text, c, c, again, err)
		}
	})
}
