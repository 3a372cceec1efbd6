package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain makes the binary one that tells of itself, where it is asked to.
func TestMain(m *testing.M) {
	if os.Getenv("SWARMD_TEST_BEGAN") == "" {
		os.Exit(m.Run())
	}
	began, err := processBegan()
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString(began.Format(time.RFC3339Nano))
}

// TestProcessBegan: between when a process was asked for and when it had answered.
func TestProcessBegan(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SWARMD_TEST_BEGAN=1")
	before := time.Now().Add(-20 * time.Millisecond) // the kernel counts in hundredths of a second
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	began, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(out)))
	if err != nil || began.Before(before) || began.After(time.Now()) {
		t.Errorf("it began at %s, %v; it was asked for at %s", began, err, before)
	}
}
