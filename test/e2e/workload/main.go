// Command workload stands in for the images that the tutorial names, on machines that reach no registry:
//
//	workload             answer HTTP on port 80 (nginx), and wait to be stopped (redis)
//	workload ping HOST   print a line each second, as ping does (alpine)
//	workload cat         copy the input to the output
//	workload whoami      print the user, the folder, $GREETING and whether there is a terminal, and end with status 7
//	workload size        print the terminal's size, and each other size that it gets, until a line of input
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	switch {
	case len(os.Args) == 1:
		serve(ctx)
	case len(os.Args) == 3 && os.Args[1] == "ping":
		ping(ctx, os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "cat":
		_, _ = io.Copy(os.Stdout, os.Stdin)
	case len(os.Args) == 2 && os.Args[1] == "whoami":
		dir, _ := os.Getwd()
		fmt.Printf("uid %d in %s says %q, terminal: %t\n", os.Getuid(), dir, os.Getenv("GREETING"), size() != "")
		fmt.Fprintln(os.Stderr, "that is all")
		os.Exit(7)
	case len(os.Args) == 2 && os.Args[1] == "size":
		sizes()
	default:
		fmt.Fprintf(os.Stderr, "workload: %q is no command: want nothing, ping HOST, cat, whoami or size\n", os.Args[1:])
		os.Exit(2)
	}
}

func serve(ctx context.Context) {
	server := &http.Server{Addr: ":80", ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "Welcome to nginx!\n")
	})}
	go func() { fmt.Println(server.ListenAndServe()) }()
	fmt.Println("Ready to accept connections")
	<-ctx.Done()
	server.Close()
}

// size is such as "24x80", and "" where there is no terminal.
func size() string {
	s, err := unix.IoctlGetWinsize(int(os.Stdin.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%dx%d", s.Row, s.Col)
}

func sizes() {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	fmt.Println(size())
	go func() {
		for range changed {
			fmt.Println(size())
		}
	}()
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

func ping(ctx context.Context, host string) {
	for i := 0; ; i++ {
		fmt.Printf("64 bytes from %s: seq=%d\n", host, i)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}
