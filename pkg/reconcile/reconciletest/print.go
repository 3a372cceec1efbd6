package reconciletest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/store"
)

// table prints rows in columns.
func table(rows [][]string) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		panic(err) // a strings.Builder takes everything
	}
	var trimmed strings.Builder
	for line := range strings.Lines(out.String()) {
		trimmed.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return trimmed.String()
}

// at prints a time as the time since Epoch.
func at(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return "+" + t.Sub(Epoch).String()
}

func (w *World) printRun() (string, error) {
	ran, err := w.Run()
	if err != nil {
		return "", err
	}
	var parts []string
	if ran.Created > 0 {
		parts = append(parts, fmt.Sprintf("%d created", ran.Created))
	}
	for _, k := range slices.Sorted(maps.Keys(ran.Written)) {
		n := ran.Written[k]
		if k == v1.KindTask {
			n -= ran.Created
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s written", n, k))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(ran.Removed)) {
		parts = append(parts, fmt.Sprintf("%d %s removed", ran.Removed[k], k))
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing")
	}
	line := strings.Join(parts, ", ")
	if ran.Steps > 1 {
		line += fmt.Sprintf(" in %d steps", ran.Steps)
	}
	lines := []string{line}
	for _, l := range w.lines {
		for _, key := range slices.Sorted(maps.Keys(l.due)) {
			lines = append(lines, fmt.Sprintf("%s again at %s", key, at(l.due[key])))
		}
	}
	return strings.Join(lines, "; ") + "\n", nil
}

// settle runs and plays in turn until nothing changes.
func (w *World) settle() (string, error) {
	for range maxSteps {
		if _, err := w.Run(); err != nil {
			return "", err
		}
		changed, err := w.Play()
		if err != nil || changed == 0 {
			return "", err
		}
	}
	return "", fmt.Errorf("nothing settled in %d rounds", maxSteps)
}

// revisionName is r and the number of a revision, or r? where it is not there.
func revisionName(s *store.Snapshot, id string) string {
	if r, ok := store.Get(s, v1.ServiceRevisions, id); ok {
		return fmt.Sprintf("r%d", r.Spec.Number)
	}
	return "r?"
}

func (w *World) tasks(service string) string {
	s := w.Snapshot()
	var found []*v1.Task
	for t := range store.All(s, v1.Tasks) {
		if service == "" || t.Desired.ServiceName == service {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b *v1.Task) int {
		return cmp.Or(cmp.Compare(a.Desired.ServiceName, b.Desired.ServiceName), cmp.Compare(a.Desired.Slot, b.Desired.Slot),
			cmp.Compare(a.Desired.Attempt, b.Desired.Attempt), cmp.Compare(a.Meta.ID, b.Meta.ID))
	})
	rows := [][]string{{"TASK", "REVISION", "NODE", "DESIRED", "OBSERVED", "NOTE"}}
	for _, t := range found {
		rows = append(rows, []string{fmt.Sprintf("%s@%d", v1.TaskName(t.Desired), t.Desired.Attempt), revisionName(s, t.Desired.Revision),
			cmp.Or(v1.TaskNode(t), "-"), t.Desired.State.String(), v1.Observed(t).String(), note(t.Desired)})
	}
	return table(rows)
}

func note(d *v1.TaskDesired) string {
	var notes []string
	if !d.StartAfter.IsZero() && d.State < v1.TaskRunning {
		notes = append(notes, "starts "+at(d.StartAfter))
	}
	if r := d.Restarts; r != nil && r.Failures > 0 {
		notes = append(notes, fmt.Sprintf("failures %d", r.Failures))
	}
	if r := d.Restarts; r != nil && len(r.Times) > 0 {
		notes = append(notes, fmt.Sprintf("restarts %d", len(r.Times)))
	}
	if p := d.Placement; p != nil {
		notes = append(notes, v1.GenericEnv(p.Generic)...)
	}
	if d.Better != "" {
		notes = append(notes, "better on "+d.Better)
	}
	if d.Move != nil {
		notes = append(notes, fmt.Sprintf("moves to %s, try %d", d.Move.Node, d.Move.Tries))
	}
	for _, text := range []string{d.Pending, d.Reason} {
		if text != "" {
			notes = append(notes, text)
		}
	}
	return strings.Join(notes, ", ")
}

func (w *World) nodes() string {
	s := w.Snapshot()
	rows := [][]string{{"NODE", "HOLDS", "LIVE"}}
	for n := range store.All(s, v1.Nodes) {
		live := make(map[string]int)
		for t := range s.TasksOfNode(n.Meta.ID) {
			if v1.Live(t) {
				live[t.Desired.ServiceName]++
			}
		}
		var counts []string
		for _, name := range slices.Sorted(maps.Keys(live)) {
			counts = append(counts, fmt.Sprintf("%s %d", name, live[name]))
		}
		rows = append(rows, []string{n.Meta.ID, fmt.Sprint(s.LoadOf(n.Meta.ID).Tasks), strings.Join(counts, ", ")})
	}
	return table(rows)
}

func (w *World) update(name string) (string, error) {
	o, err := w.service(name)
	if err != nil {
		return "", err
	}
	if o.Desired == nil || o.Desired.Update == nil {
		return "no update\n", nil
	}
	u := o.Desired.Update
	admitted := fmt.Sprintf("slots to %d", u.Admitted)
	if u.Admitted == v1.UpdateEverySlot {
		admitted = "every slot"
	}
	message, before := u.Message, ""
	for t := range w.Snapshot().TasksOfService(o.Meta.ID) {
		message = strings.ReplaceAll(message, t.Meta.ID, fmt.Sprintf("%s@%d", v1.TaskName(t.Desired), t.Desired.Attempt))
	}
	if u.Previous != "" {
		before = ", before it " + revisionName(w.Snapshot(), u.Previous)
	}
	return fmt.Sprintf("%s to %s%s: %s; began %s, %d out of date, %s, %d failed, settled %s, completed %s\n", u.State,
		revisionName(w.Snapshot(), u.Revision), before, message, at(u.StartedAt), u.Dirty, admitted, u.Failures, at(u.SettledAt), at(u.CompletedAt)), nil
}

func (w *World) services() string {
	rows := [][]string{{"SERVICE", "DELETING", "TASKS"}}
	for o := range store.All(w.Snapshot(), v1.Services) {
		rows = append(rows, []string{o.Meta.Name, at(o.Meta.Deleting), fmt.Sprint(w.Snapshot().CountsOf(o.Meta.ID).Total)})
	}
	return table(rows)
}

func (w *World) revisions() string {
	var found []*v1.ServiceRevision
	for r := range store.All(w.Snapshot(), v1.ServiceRevisions) {
		found = append(found, r)
	}
	slices.SortFunc(found, func(a, b *v1.ServiceRevision) int {
		return cmp.Or(cmp.Compare(a.Spec.Service, b.Spec.Service), cmp.Compare(a.Spec.Number, b.Spec.Number))
	})
	rows := [][]string{{"SERVICE", "REVISION", "IMAGE"}}
	for _, r := range found {
		rows = append(rows, []string{r.Spec.Service, fmt.Sprintf("r%d", r.Spec.Number), r.Spec.Task.Container.Image})
	}
	return table(rows)
}
