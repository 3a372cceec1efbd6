package apiserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// BenchmarkGet reads one service, and reports the 99th percentile of its time too.
func BenchmarkGet(b *testing.B) {
	f := serve(b)
	for i := range 100 {
		f.commit(store.Op{Kind: v1.KindService, ID: fmt.Sprintf("s%d", i), Value: web("").Spec, Meta: &v1.Meta{Name: fmt.Sprintf("web%d", i)}, If: store.Absent()})
	}
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		began := time.Now()
		resp, err := f.http.Get("http://swarmd/v1/services/web50")
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkList reads a page of 500 tasks.
func BenchmarkList(b *testing.B) {
	f := serve(b)
	var ops []store.Op
	for i := range 500 {
		ops = append(ops, taskOp(fmt.Sprintf("t%d", i), "s", "node1", "r", uint64(i+1)))
	}
	f.commit(ops...)
	for b.Loop() {
		resp, err := f.http.Get("http://swarmd/v1/tasks")
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// BenchmarkSessions sends 100,000 new tasks, 500 in a commit and spread as a scheduler does, to 1,000 sessions.
func BenchmarkSessions(b *testing.B) {
	const nodes, tasks, each = 1000, 100_000, 500
	for b.Loop() {
		b.StopTimer()
		f := serve(b)
		ops := []store.Op{{Kind: v1.KindServiceRevision, ID: v1.HashID("r"), If: store.Absent(), Value: &v1.ServiceRevisionSpec{Service: "s",
			Task: v1.TaskSpec{Container: v1.ContainerSpec{Image: "nginx:1.27", Env: []string{"A=b"}}}, Number: 1}}}
		var ids []string
		for i := range nodes {
			ids = append(ids, v1.HashID("node", fmt.Sprint(i)))
			ops = append(ops, nodeOp(ids[i], uint32(i+1)))
		}
		f.commit(ops[:nodes/2]...)
		f.commit(ops[nodes/2:]...)
		var received, messages atomic.Int64
		done := make(chan struct{})
		for _, id := range ids {
			open, up := io.Pipe()
			resp, err := f.http.Post("http://swarmd/v1/nodes/"+id+"/session", "application/json",
				io.MultiReader(strings.NewReader(`{"description":{"hostname":"`+id+`"}}`+"\n"), open))
			if err != nil || resp.StatusCode != http.StatusOK {
				b.Fatal(err, resp)
			}
			b.Cleanup(func() { up.Close(); resp.Body.Close() })
			go countTasks(resp.Body, &received, &messages, tasks, done)
		}
		b.StartTimer()
		for first := 0; first < tasks; first += each {
			ops := make([]store.Op, each)
			for i := range ops {
				n := first + i
				ops[i] = taskOp(v1.TaskID("s", fmt.Sprint(n), 1), v1.HashID("s"), ids[n%nodes], v1.HashID("r"), uint64(n+1))
				ops[i].Meta = &v1.Meta{CreatedAt: time.Now().UTC(), UpdatedAt: time.Now().UTC()}
				ops[i].Value.(*v1.TaskDesired).Placement.At = time.Now().UTC()
			}
			f.commit(ops...)
		}
		<-done
		b.ReportMetric(float64(messages.Load()), "messages")
	}
}

// countTasks counts the tasks that come down a session.
func countTasks(body io.Reader, received, messages *atomic.Int64, all int64, done chan struct{}) {
	word := []byte(`"attempt":`)
	buf := make([]byte, 64<<10)
	kept := 0 // the end of the last read, which may be the beginning of a word
	for {
		n, err := body.Read(buf[kept:])
		if n > 0 {
			messages.Add(1)
		}
		n += kept
		if c := int64(bytes.Count(buf[:n], word)); c > 0 && received.Add(c) == all {
			close(done)
		}
		if err != nil {
			return
		}
		kept = min(n, len(word)-1)
		copy(buf, buf[n-kept:n])
	}
}

// BenchmarkReport lets a node report 100 tasks that it has, one of 100 nodes after the other.
func BenchmarkReport(b *testing.B) {
	const nodes, tasks = 100, 100
	f := serve(b)
	bodies := make([]string, nodes)
	for n := range nodes {
		id := v1.HashID("node", fmt.Sprint(n))
		ops := []store.Op{nodeOp(id, uint32(n+1))}
		var report v1.StatusReport
		for i := range tasks {
			task := v1.TaskID("s", fmt.Sprint(n*tasks+i), 1)
			ops = append(ops, taskOp(task, "s", id, "r", uint64(i+1)))
			report.Tasks = append(report.Tasks, v1.TaskReport{ID: task, Status: v1.TaskStatus{State: v1.TaskRunning, At: time.Now(), Message: "started",
				Container: &v1.ContainerStatus{ID: task, PID: 4711}, Address: "100.64.1.7"}})
		}
		f.commit(ops...)
		body, err := json.Marshal(report)
		if err != nil {
			b.Fatal(err)
		}
		bodies[n] = string(body)
	}
	for n := 0; b.Loop(); n++ {
		body := strings.ReplaceAll(bodies[n%nodes], "started", fmt.Sprint("at ", n))
		if got := f.do("POST", "/v1/nodes/"+v1.HashID("node", fmt.Sprint(n%nodes))+"/status", body); got.code != http.StatusOK {
			b.Fatal(got.body)
		}
	}
}
