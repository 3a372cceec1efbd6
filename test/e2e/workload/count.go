package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// countAt answers each INCR with the next number, in redis' words.
func countAt(addr string) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Println(err)
		return
	}
	var hits atomic.Int64
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Println(err)
			return
		}
		go func() {
			defer conn.Close()
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if strings.HasPrefix(lines.Text(), "INCR ") {
					fmt.Fprintf(conn, ":%d\r\n", hits.Add(1))
				} else {
					fmt.Fprintf(conn, "-ERR unknown command\r\n")
				}
			}
		}()
	}
}

// counted is the page of the stack tutorial.
func counted(w http.ResponseWriter, _ *http.Request) {
	hits, err := count("redis:6379")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	fmt.Fprintf(w, "Hello World! I have been seen %d times.\n", hits)
}

// count is the next number of whoever counts at the address.
func count(addr string) (hits int, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "INCR hits\r\n"); err != nil {
		return 0, err
	}
	_, err = fmt.Fscanf(conn, ":%d\r\n", &hits)
	return hits, err
}
