// Command workload stands in for the images that the tutorial names, on machines that reach no registry:
//
//	workload             answer HTTP on port 80 (nginx), and wait to be stopped (redis)
//	workload ping HOST   print a line each second, as ping does (alpine)
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	switch {
	case len(os.Args) == 1:
		serve(ctx)
	case len(os.Args) == 3 && os.Args[1] == "ping":
		ping(ctx, os.Args[2])
	default:
		fmt.Fprintf(os.Stderr, "workload: %q is no command: want nothing, or ping HOST\n", os.Args[1:])
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
