// Command workload stands in for the images that the tutorial names, on machines that reach no registry:
//
//	workload             answer HTTP on port 80 (nginx), count on port 6379 (redis), and wait to be stopped
//	workload ping HOST   print a line each second, as ping does (alpine)
//	workload cat [FILE]  copy the input, or a file, to the output
//	workload registry    keep images in memory, on port 5000
//	workload counter     answer HTTP on port 8000 with how often it was asked, which redis knows
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

	"github.com/google/go-containerregistry/pkg/registry"
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
	case len(os.Args) == 3 && os.Args[1] == "cat":
		show(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "registry":
		answer(ctx, ":5000", registry.New())
	case len(os.Args) == 2 && os.Args[1] == "counter":
		answer(ctx, ":8000", http.HandlerFunc(counted))
	case len(os.Args) == 2 && os.Args[1] == "whoami":
		dir, _ := os.Getwd()
		fmt.Printf("uid %d in %s says %q, terminal: %t\n", os.Getuid(), dir, os.Getenv("GREETING"), size() != "")
		fmt.Fprintln(os.Stderr, "that is all")
		os.Exit(7)
	case len(os.Args) == 2 && os.Args[1] == "size":
		sizes()
	default:
		fmt.Fprintf(os.Stderr, "workload: %q is no command: want nothing, ping HOST, cat [FILE], registry, counter, whoami or size\n", os.Args[1:])
		os.Exit(2)
	}
}

func serve(ctx context.Context) {
	go countAt(":6379")
	answer(ctx, ":80", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if page, err := os.ReadFile("/usr/share/nginx/html/index.html"); err == nil {
			_, _ = w.Write(page)
			return
		}
		_, _ = io.WriteString(w, "Welcome to nginx!\n")
	}))
}

// answer answers HTTP until it is time to end.
func answer(ctx context.Context, addr string, h http.Handler) {
	server := &http.Server{Addr: addr, ReadHeaderTimeout: 10 * time.Second, Handler: h}
	go func() { fmt.Println(server.ListenAndServe()) }()
	fmt.Println("Ready to accept connections")
	<-ctx.Done()
	server.Close()
}

// show prints a file, as cat does.
func show(path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cat:", err)
		os.Exit(1)
	}
	_, _ = os.Stdout.Write(data)
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
