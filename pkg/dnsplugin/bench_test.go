package dnsplugin

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// processorTime is what this process used.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHandler answers a name without the packets.
func BenchmarkHandler(b *testing.B) {
	for _, name := range []string{"web", "web.front", "rr", "gone"} {
		b.Run(name, func(b *testing.B) {
			s := newInside(b, Options{}, sample())
			b.ReportAllocs()
			for b.Loop() {
				w := udpFrom(one)
				s.core.ServeDNS(context.Background(), w, question(name, dns.TypeA))
			}
		})
	}
}

// BenchmarkUDP asks over loopback, in flights of 16 a client. The answers per second of processor time have the clients' work in them, so the
// server does better.
func BenchmarkUDP(b *testing.B) {
	s := start(b, Options{}, sample())
	wire, err := question("web", dns.TypeA).Pack()
	if err != nil {
		b.Fatal(err)
	}
	var lost atomic.Int64
	before := processorTime(b)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: one.AsSlice()}, net.UDPAddrFromAddrPort(s.addr))
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		answer := make([]byte, 512)
		for more := true; more; {
			flight := 0
			for ; flight < 16; flight++ {
				if more = pb.Next(); !more {
					break
				}
				conn.Write(wire)
			}
			conn.SetReadDeadline(time.Now().Add(time.Second))
			for ; flight > 0; flight-- {
				if _, err := conn.Read(answer); err != nil {
					lost.Add(int64(flight))
					break
				}
			}
		}
	})
	used := processorTime(b) - before
	b.ReportMetric(float64(b.N)/used.Seconds(), "answers/core-s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
	if lost.Load() > 0 {
		b.Errorf("%d answers of %d were lost", lost.Load(), b.N)
	}
}
