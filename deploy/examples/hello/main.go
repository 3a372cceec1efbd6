// Command hello is the example workload, and that of the tests: it answers HTTP with its host name, task and version, and
// can be told to misbehave.
//
//	hello                serve on $PORT (default 8080)
//	hello exit CODE      end at once with the exit code
//	hello print N        print N numbered lines, alternately on standard output and standard error, and end
//	hello eat BYTES      take that much memory and touch it, then wait
//	hello sleep DURATION end with 0 afterwards
//	hello check          end with 0 if the one that serves in the same container says that it is healthy
//
// It is healthy once $HEALTHY_AFTER (default 0s) is over, until somebody sends POST /sick. Told to stop, it lets the requests that it has come
// to their end, or with $ABRUPT ends at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

// version is set by the linker, so that two images of the same program can be told apart.
var version = "1"

func main() {
	command, argument := "serve", ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	if len(os.Args) > 2 {
		argument = os.Args[2]
	}
	if err := run(command, argument); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func run(command, argument string) error {
	switch command {
	case "serve":
		return serve()
	case "exit":
		code, err := strconv.Atoi(argument)
		if err != nil {
			return fmt.Errorf("exit %q: want a number", argument)
		}
		os.Exit(code)
	case "print":
		return printLines(argument)
	case "eat":
		size, err := strconv.Atoi(argument)
		if err != nil {
			return fmt.Errorf("eat %q: want a number of bytes", argument)
		}
		eat(size)
		select {}
	case "sleep":
		d, err := time.ParseDuration(argument)
		if err != nil {
			return fmt.Errorf("sleep %q: want a duration such as 10s", argument)
		}
		time.Sleep(d)
	case "check":
		return check()
	default:
		return fmt.Errorf("%q is not a command: want serve, exit, print, eat, sleep or check", command)
	}
	return nil
}

func printLines(argument string) error {
	n, err := strconv.Atoi(argument)
	if err != nil {
		return fmt.Errorf("print %q: want a number of lines", argument)
	}
	for i := range n {
		out := os.Stdout
		if i%2 == 1 {
			out = os.Stderr
		}
		fmt.Fprintln(out, "line", i+1)
	}
	return nil
}

// eaten keeps what eat took.
var eaten []byte

func eat(size int) {
	eaten = make([]byte, size)
	for i := 0; i < size; i += os.Getpagesize() {
		eaten[i] = 1
	}
}

// check asks the server of the same container whether it is healthy.
func check() error {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get("http://127.0.0.1:" + port() + "/healthz")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return nil
}

func port() string {
	if p := os.Getenv("PORT"); p != "" {
		return p
	}
	return "8080"
}

// health answers whether the server is healthy, and lets anybody make it sick.
func health(mux *http.ServeMux) error {
	var sick atomic.Bool
	after := time.Duration(0)
	if text := os.Getenv("HEALTHY_AFTER"); text != "" {
		var err error
		if after, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("HEALTHY_AFTER: %w", err)
		}
	}
	healthy := time.Now().Add(after)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case sick.Load():
			http.Error(w, "sick", http.StatusServiceUnavailable)
		case time.Now().Before(healthy):
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		default:
			io.WriteString(w, "healthy\n")
		}
	})
	mux.HandleFunc("POST /sick", func(http.ResponseWriter, *http.Request) { sick.Store(true) })
	return nil
}

// serve answers until it is told to stop, and lets the requests that it has come to their end.
func serve() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from %s on %s, version %s. You are %s.\n", os.Getenv("TASK"), host, version, r.RemoteAddr)
	})
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		io.WriteString(w, "done\n")
	})
	mux.HandleFunc("POST /exit", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	mux.HandleFunc("POST /eat", func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.FormValue("bytes"))
		eat(size)
	})
	if err := health(mux); err != nil {
		return err
	}
	server := &http.Server{Addr: ":" + port(), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- server.ListenAndServe() }()
	fmt.Printf("hello version %s listens on port %s\n", version, port())
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	fmt.Println("hello stops")
	if os.Getenv("ABRUPT") != "" {
		return nil
	}
	finish, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(finish); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
