package cli_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/swarmd/swarmd/pkg/cli"
)

// TestForwardingFollowsTheService: a connection is for the task that runs when it is made, and not for the one of when forwarding began.
func TestForwardingFollowsTheService(t *testing.T) {
	s := newSwarm(t)
	s.start(1)
	ctl := func(args string) {
		t.Helper()
		if code, _, stderr := run(t, s.host(), strings.Fields(args)...); code != 0 {
			t.Fatalf("%s: %s", args, stderr)
		}
	}
	ctl("service create -q --name web hello:1")
	out, said := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		ended <- cli.Run(ctx, cli.Options{Out: said, Err: said, Getenv: func(string) string { return s.host() }}, []string{"port-forward", "web", "0:80"})
	}()
	lines := bufio.NewReader(out)
	line := func() string {
		text, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(text)
	}
	var at string
	if _, err := fmt.Sscanf(line(), "Forwarding from %s to port 80 of web.1", &at); err != nil {
		t.Fatal(err)
	}
	ctl("service scale web=0")
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, want := line(), "no task of service web runs"; got != want {
		t.Errorf("a connection when no task runs: %q, want %q", got, want)
	}
	cancel()
	<-ended
}
