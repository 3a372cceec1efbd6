// Workload is what the tests run in containers: each argument pair is one thing to do.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	for args := os.Args[1:]; len(args) > 0; args = args[2:] {
		if len(args) == 1 {
			args = append(args, "")
		}
		do(args[0], args[1])
	}
}

func do(verb, value string) {
	number, _ := strconv.Atoi(value)
	switch verb {
	case "exit":
		os.Exit(number)
	case "forever":
		select {
		case <-time.After(time.Hour):
		}
	case "sleep":
		d, _ := time.ParseDuration(value)
		time.Sleep(d)
	case "wait": // until the file is there
		for {
			if _, err := os.Stat(value); err == nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	case "out":
		fmt.Fprintln(os.Stdout, value)
	case "err":
		fmt.Fprintln(os.Stderr, value)
	case "words": // without a newline
		fmt.Fprint(os.Stdout, value)
	case "lines":
		for i := range number {
			fmt.Println("line", i)
		}
	case "long":
		os.Stdout.Write(append(bytes.Repeat([]byte{'x'}, number), '\n'))
	case "cat":
		cat(value)
	case "write":
		if err := os.WriteFile(value, []byte("written"), 0o644); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("wrote", value)
	case "stat":
		var s syscall.Stat_t
		if err := syscall.Stat(value, &s); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%o %d %d\n", s.Mode&0o7777, s.Uid, s.Gid)
	case "env":
		fmt.Println(os.Getenv(value))
	case "id":
		groups, _ := os.Getgroups()
		fmt.Println(os.Getuid(), os.Getgid(), groups)
	case "pid":
		fmt.Println(os.Getpid())
	case "cwd":
		dir, _ := os.Getwd()
		fmt.Println(dir)
	case "hostname":
		name, _ := os.Hostname()
		fmt.Println(name)
	case "tty":
		_, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		fmt.Println("tty", err == nil)
	case "links":
		links, _ := net.Interfaces()
		for _, l := range links {
			fmt.Println(l.Name)
		}
	case "unshare":
		fmt.Println(syscall.Unshare(syscall.CLONE_NEWUSER))
	case "eat": // megabytes
		eat(number)
	case "child":
		out, err := exec.Command("/proc/self/exe", strings.Fields(value)...).CombinedOutput()
		fmt.Print(string(out))
		fmt.Println("child", err)
	case "trap":
		trap()
	case "echo":
		echo()
	case "size": // of the terminal, and each other size
		sizes()
	}
}

// echo answers each line, with a prompt for the next; "quit N" ends it.
func echo() {
	lines := bufio.NewScanner(os.Stdin)
	for fmt.Print("> "); lines.Scan(); fmt.Print("> ") {
		if code, ok := strings.CutPrefix(lines.Text(), "quit "); ok {
			fmt.Println("bye")
			number, _ := strconv.Atoi(code)
			os.Exit(number)
		}
		fmt.Println("heard", lines.Text())
		fmt.Fprintln(os.Stderr, "length", len(lines.Text()))
	}
	fmt.Println("the input has ended")
}

func sizes() {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	go echo()
	for range changed {
		var s [4]uint16
		syscall.Syscall(syscall.SYS_IOCTL, 0, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&s)))
		fmt.Printf("%dx%d\n", s[0], s[1])
	}
}

func cat(name string) {
	f, err := os.Open(name)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	io.Copy(os.Stdout, f)
}

func eat(megabytes int) {
	var all [][]byte
	for range megabytes {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		all = append(all, block)
	}
	fmt.Println("ate", len(all))
}

// trap says which signal came, and ends.
func trap() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGINT, syscall.SIGHUP)
	fmt.Println("ready")
	fmt.Println("got", <-signals)
}
