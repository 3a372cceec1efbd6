package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

type logFlags struct {
	details, follow, noResolve, noTaskIDs, noTrunc, raw, timestamps bool
	since, tail                                                     string
}

func (a *app) serviceLogsCommand() *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] SERVICE|TASK",
		Short: "Fetch the logs of a service or task",
		Example: `  swarmctl service logs --follow --tail 20 web
  swarmctl service logs --since 10m --timestamps web`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Services),
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.logs(cmd.Context(), &f, args[0], false) },
	}
	f.add(cmd)
	return cmd
}

// taskLogsCommand is service logs of a task alone.
func (a *app) taskLogsCommand() *cobra.Command {
	var f logFlags
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] TASK",
		Short: "Fetch the logs of a task",
		Example: `  swarmctl task logs --follow --tail 20 web.1
  swarmctl task logs --since 10m --timestamps web.1`,
		Args:                  exactArgs(1),
		DisableFlagsInUseLine: true,
		ValidArgsFunction:     completeNames(a, v1.Tasks),
		RunE:                  func(cmd *cobra.Command, args []string) error { return a.logs(cmd.Context(), &f, args[0], true) },
	}
	f.add(cmd)
	return cmd
}

func (f *logFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.BoolVar(&f.details, "details", false, "Show extra details provided to logs")
	s.BoolVarP(&f.follow, "follow", "f", false, "Follow log output")
	s.BoolVar(&f.noResolve, "no-resolve", false, "Do not map IDs to Names in output")
	s.BoolVar(&f.noTaskIDs, "no-task-ids", false, "Do not include task IDs in output")
	s.BoolVar(&f.noTrunc, "no-trunc", false, "Do not truncate output")
	s.BoolVar(&f.raw, "raw", false, "Do not neatly format logs")
	s.StringVar(&f.since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	s.StringVarP(&f.tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	s.BoolVarP(&f.timestamps, "timestamps", "t", false, "Show timestamps")
}

// logs prints what a service's tasks print, or a task, which alone is looked for where taskOnly says so.
func (a *app) logs(ctx context.Context, f *logFlags, ref string, taskOnly bool) error {
	o, err := f.options(a.Now())
	if err != nil {
		return err
	}
	c, err := a.daemon()
	if err != nil {
		return err
	}
	p := &logPrinter{app: a, flags: f, prefixes: map[string]string{}, partial: map[string]v1.TaskLogRecord{}}
	kind, id, tty, err := p.target(ctx, c, ref, taskOnly)
	if err != nil {
		return err
	}
	if tty && !f.raw {
		return errors.New("tty service logs only supported with --raw")
	}
	if !f.noResolve && !f.raw {
		if p.hosts, err = hostnames(ctx, c); err != nil {
			return err
		}
	}
	failed := false
	for r, err := range c.Logs(ctx, kind, id, o) {
		switch {
		case err != nil && ctx.Err() != nil:
			return &exitError{code: 130}
		case err != nil:
			return daemonError(err)
		case r.Error != "":
			failed = true
			fmt.Fprintf(a.Err, "%s: %s\n", p.prefix(&r), r.Error)
		default:
			if err := p.print(&r); err != nil {
				return err
			}
		}
	}
	if err := p.flush(); err != nil {
		return err
	}
	if failed {
		return errors.New("the logs are not complete")
	}
	return nil
}

// options are what the flags say, in the API's terms.
func (f *logFlags) options(now time.Time) (v1.LogOptions, error) {
	o := v1.LogOptions{Stdout: true, Stderr: true, Follow: f.follow, Tail: -1}
	if f.tail != "all" && f.tail != "" {
		n, err := strconv.Atoi(f.tail)
		if err != nil {
			return o, fmt.Errorf("invalid --tail %q: want a number of lines or all", f.tail)
		}
		if n < 0 {
			return o, errors.New("negative tail values not supported: want a number of lines or all")
		}
		o.Tail = n
	}
	if f.since != "" {
		t, err := parseTime(f.since, now)
		if err != nil {
			return o, fmt.Errorf("invalid --since %q: %w", f.since, err)
		}
		o.Since = t
	}
	return o, nil
}

// timeForms are how people write times, besides durations and seconds since 1970.
var timeForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"}

// parseTime reads a time, or how long before now it was.
func parseTime(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	for _, form := range timeForms {
		if t, err := time.ParseInLocation(form, text, time.Local); err == nil {
			return t, nil
		}
	}
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(seconds) && math.Abs(seconds) < 1<<40 {
		whole, fraction := math.Modf(seconds)
		return time.Unix(int64(whole), int64(fraction*1e9)), nil
	}
	return time.Time{}, errors.New(`want a time such as 2026-01-02T13:23:37Z, or how long ago such as 42m`)
}

// maxLine bounds what is kept of a line that is not over, in bytes.
const maxLine = 1 << 20

// logPrinter prints the lines of one request.
type logPrinter struct {
	*app
	flags    *logFlags
	width    int // of the slot numbers
	hosts    map[string]string
	prefixes map[string]string           // by task
	partial  map[string]v1.TaskLogRecord // the beginnings of lines that are not over, by task and stream
}

// target finds what ref means, a service or else a task, and whether what it runs has a terminal.
func (p *logPrinter) target(ctx context.Context, c *client.Client, ref string, taskOnly bool) (kind, id string, tty bool, err error) {
	if !taskOnly {
		svc, err := client.Get(ctx, c, v1.Services, ref)
		if err == nil {
			svc = v1.Effective(svc)
			p.width = len(strconv.Itoa(replicas(svc.Spec)))
			return "services", svc.Meta.ID, svc.Spec.Task.Container.TTY, nil
		}
		if err := apiError(err, v1.KindService, ref); !notFound(err) {
			return "", "", false, err
		}
	}
	t, err := getTask(ctx, c, ref)
	switch {
	case notFound(err) && taskOnly:
		return "", "", false, fmt.Errorf("no such task: %v", ref)
	case notFound(err):
		return "", "", false, fmt.Errorf("no such task or service: %v", ref)
	case err != nil:
		return "", "", false, err
	}
	p.width = len(strconv.FormatUint(t.Desired.Slot, 10))
	revision, err := revisionOf(ctx, c, t)
	return "tasks", t.Meta.ID, revision != nil && revision.Spec.Task.Container.TTY, err
}

// prefix is "web.1.<task>@node", padded to the width of the largest slot.
func (p *logPrinter) prefix(r *v1.TaskLogRecord) string {
	if prefix, ok := p.prefixes[r.Task]; ok {
		return prefix
	}
	prefix, node := r.Name, r.Node
	if p.flags.noResolve {
		if _, slot, ok := strings.Cut(r.Name, "."); ok && r.Service != "" {
			prefix = r.Service + "." + slot
		}
	} else if host := p.hosts[node]; host != "" {
		node = host
	}
	switch {
	case p.flags.noTaskIDs:
	case p.flags.noTrunc:
		prefix += "." + r.Task
	default:
		prefix += "." + shortID(r.Task)
	}
	prefix += "@" + node + strings.Repeat(" ", max(0, p.width-len(strconv.FormatUint(r.Slot, 10))))
	p.prefixes[r.Task] = prefix
	return prefix
}

// print writes a line to where it came from: Out or Err. The parts of a long line are put together first, since those of
// other tasks come in between; what is too long even for that becomes lines of its own.
func (p *logPrinter) print(r *v1.TaskLogRecord) error {
	stream := r.Task + "/" + r.Stream
	line := r.Line
	if begun, ok := p.partial[stream]; ok {
		line = append(begun.Line, line...)
	}
	if r.Partial && len(line) < maxLine {
		kept := *r
		kept.Line = line
		p.partial[stream] = kept
		return nil
	}
	delete(p.partial, stream)
	var b strings.Builder
	if p.flags.timestamps {
		b.WriteString(r.Time.UTC().Format("2006-01-02T15:04:05.000000000Z") + " ")
	}
	if !p.flags.raw {
		b.WriteString(p.prefix(r) + "    | ")
	}
	if p.flags.details {
		fmt.Fprintf(&b, "com.docker.swarm.node.id=%s,com.docker.swarm.service.id=%s,com.docker.swarm.task.id=%s ", r.Node, r.Service, r.Task)
	}
	b.Write(line)
	b.WriteByte('\n')
	out := p.Out
	if r.Stream == "stderr" {
		out = p.Err
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// flush writes what is left of lines that never ended, such as a prompt.
func (p *logPrinter) flush() error {
	for _, stream := range slices.Sorted(maps.Keys(p.partial)) {
		r := p.partial[stream]
		delete(p.partial, stream)
		r.Partial = false
		if err := p.print(&r); err != nil {
			return err
		}
	}
	return nil
}
