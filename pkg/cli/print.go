package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode/utf8"

	"github.com/docker/go-units"
	"sigs.k8s.io/yaml"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// printer prints objects of one kind in the form that -o names.
type printer struct {
	*app
	client *client.Client
	kind   v1.Descriptor
	output string
	tmpl   *template.Template
	// single tells that one object was asked for by name, so that it stands for itself instead of in a list.
	single bool
	// widths are those of the columns so far, so that what a watch adds stays below what is there.
	widths []int
}

func (a *app) newPrinter(c *client.Client, k v1.Descriptor, output string) (*printer, error) {
	p := &printer{app: a, client: c, kind: k, output: output}
	if text, ok := strings.CutPrefix(output, "go-template="); ok {
		var err error
		p.output = "go-template"
		p.tmpl, err = parseTemplate(text)
		return p, err
	}
	if !slices.Contains([]string{"table", "wide", "json", "yaml", "name"}, output) {
		return nil, fmt.Errorf("unknown output %q: want table, wide, json, yaml, name or go-template=TEMPLATE", output)
	}
	return p, nil
}

func (p *printer) print(ctx context.Context, objects []v1.Object) error {
	switch p.output {
	case "name":
		for _, o := range objects {
			p.printf("%s\n", uniqueRef(p.kind.Kind(), o))
		}
		return nil
	case "json", "yaml":
		return p.printDocuments(objects)
	case "go-template":
		return p.printTemplate(objects)
	}
	if len(objects) == 0 && p.widths == nil {
		fmt.Fprintf(p.Err, "No %s found.\n", p.kind.Plural())
		return nil
	}
	headings, rows, err := p.rows(ctx, objects)
	if err != nil {
		return err
	}
	p.printRows(headings, rows)
	return nil
}

// uniqueRef is what scripts call an object. Tasks that followed each other in one slot share a name.
func uniqueRef(k v1.Kind, o v1.Object) string {
	if k == v1.KindTask {
		return ref(k, o.GetMeta().ID)
	}
	return ref(k, objectName(o))
}

// printRows prints below what was printed before.
func (p *printer) printRows(headings []string, rows [][]string) {
	if p.widths == nil {
		p.widths = make([]int, len(headings))
		rows = slices.Insert(rows, 0, headings)
	}
	for _, row := range rows {
		for i := range row {
			row[i] = cell(row[i])
			p.widths[i] = max(p.widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, text := range row {
			b.WriteString(text)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", p.widths[i]-utf8.RuneCountInString(text)+3))
			}
		}
		p.printf("%s\n", strings.TrimRight(b.String(), " "))
	}
}

func (p *printer) printDocuments(objects []v1.Object) error {
	if p.output == "json" {
		return p.printJSON(p.document(objects))
	}
	for i, o := range objects {
		if i > 0 {
			p.printf("---\n")
		}
		text, err := manifestYAML(o)
		if err != nil {
			return err
		}
		p.printf("%s", text)
	}
	return nil
}

// document is what JSON and templates show: the object that was asked for by name, or a list of all.
func (p *printer) document(objects []v1.Object) any {
	if p.single && len(objects) == 1 {
		return v1.ManifestOf(objects[0])
	}
	items := make([]v1.Manifest, len(objects))
	for i, o := range objects {
		items[i] = v1.ManifestOf(o)
	}
	return map[string]any{"items": items}
}

func (p *printer) printJSON(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := b.WriteTo(p.Out)
	return err
}

// manifestYAML is an object as YAML that can be applied again.
func manifestYAML(o v1.Object) ([]byte, error) {
	data, err := json.Marshal(v1.ManifestOf(o))
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(data)
}

// printTemplate gives the template the document that JSON shows, by the names of its fields there.
func (p *printer) printTemplate(objects []v1.Object) error {
	data, err := json.Marshal(p.document(objects))
	if err != nil {
		return err
	}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return err
	}
	var b strings.Builder
	if err := p.tmpl.Execute(&b, fields); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	p.printf("%s\n", b.String())
	return nil
}

// rows are the table of a kind.
func (p *printer) rows(ctx context.Context, objects []v1.Object) (headings []string, rows [][]string, err error) {
	switch p.kind.Kind() {
	case v1.KindService:
		headings, rows, err = p.serviceRows(ctx, objects)
	case v1.KindTask:
		headings, rows, err = p.taskRows(ctx, objects)
	case v1.KindNode:
		headings, rows, err = p.nodeRows(ctx, objects)
	case v1.KindMember:
		headings, rows, err = p.memberRows(ctx, objects)
	case v1.KindAttachment:
		headings, rows, err = p.attachmentRows(ctx, objects)
	case v1.KindNetwork:
		headings = []string{"NAME", "ID", "DRIVER", "SUBNETS", "VNI", "CREATED", "PROBLEM"}
		for _, o := range objects {
			rows = append(rows, p.networkCells(o.(*v1.Network)))
		}
	case v1.KindUser:
		headings = []string{"NAME", "ID", "ROLE", "TOKENS", "CREATED"}
		for _, o := range objects {
			u := convertUser(o.(*v1.User))
			rows = append(rows, []string{u.Name, u.ID, u.Role, strconv.Itoa(len(u.Tokens)), p.ago(u.CreatedAt)})
		}
	case v1.KindRegistry:
		headings = []string{"SERVER", "ID", "USERNAME", "RENEWED"}
		for _, o := range objects {
			r := o.(*v1.Registry)
			rows = append(rows, []string{r.Meta.Name, r.Meta.ID, registryUser(r), p.ago(r.Meta.UpdatedAt)})
		}
	default:
		headings = []string{"NAME", "ID", "CREATED"}
		for _, o := range objects {
			m := o.GetMeta()
			rows = append(rows, []string{objectName(o), m.ID, p.ago(m.CreatedAt)})
		}
	}
	if p.output == "wide" {
		headings = append(headings, "AGE", "GENERATION", "LABELS")
		for i, o := range objects {
			m := o.GetMeta()
			rows[i] = append(rows[i], p.ago(m.CreatedAt), strconv.FormatUint(m.Generation, 10), pairs(m.Labels))
		}
	}
	return headings, rows, err
}

func (p *printer) ago(t time.Time) string { return ago(p.Now(), t) }

// ago is how long before now something was, for people; empty where it is not known.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// until is how long after now something ends, for people.
func until(now, t time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case !now.Before(t):
		return "expired " + ago(now, t)
	}
	return "in " + strings.ToLower(units.HumanDuration(t.Sub(now)))
}

func (p *printer) networkCells(n *v1.Network) []string {
	d := convertNetwork(n)
	subnets := make([]string, len(d.IPAM.Config))
	for i, s := range d.IPAM.Config {
		subnets[i] = s.Subnet
	}
	vni := ""
	if n.Desired != nil && n.Desired.VNI != 0 {
		vni = strconv.FormatUint(uint64(n.Desired.VNI), 10)
	}
	return []string{d.Name, d.ID, d.Driver, strings.Join(subnets, ","), vni, p.ago(d.Created), d.Problem}
}

func (p *printer) serviceRows(ctx context.Context, objects []v1.Object) ([]string, [][]string, error) {
	var ids []string
	if len(objects) <= 50 { // more would make a long request; then all are asked for
		for _, o := range objects {
			ids = append(ids, o.GetMeta().ID)
		}
	}
	statuses, err := p.client.ServiceStatuses(ctx, ids...)
	if err != nil {
		return nil, nil, daemonError(err)
	}
	var rows [][]string
	for _, o := range objects {
		r := newServiceRow(o.(*v1.Service), statuses[o.GetMeta().ID])
		if p.output == "wide" {
			r.ID, r.Image = o.GetMeta().ID, v1.Effective(o.(*v1.Service)).Spec.Task.Container.Image
		}
		rows = append(rows, []string{r.Name, r.ID, r.Mode, r.Replicas, r.Image, r.Ports})
	}
	return []string{"NAME", "ID", "MODE", "REPLICAS", "IMAGE", "PORTS"}, rows, nil
}

func (p *printer) taskRows(ctx context.Context, objects []v1.Object) ([]string, [][]string, error) {
	hosts, err := hostnames(ctx, p.client)
	if err != nil {
		return nil, nil, err
	}
	var rows [][]string
	for _, o := range objects {
		t := o.(*v1.Task)
		if t.Desired == nil {
			t = &v1.Task{Meta: t.Meta, Desired: &v1.TaskDesired{}, Status: t.Status}
		}
		r := newTaskRow(t, "", p.output != "wide", p.Now())
		if host := hosts[v1.TaskNode(t)]; host != "" {
			r.Node = host
		}
		rows = append(rows, []string{r.Name, r.ID, r.Node, r.DesiredState, r.CurrentState, r.Error, r.Ports})
	}
	return []string{"NAME", "ID", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"}, rows, nil
}

func (p *printer) nodeRows(ctx context.Context, objects []v1.Object) ([]string, [][]string, error) {
	info, err := p.client.Info(ctx)
	if err != nil {
		return nil, nil, daemonError(err)
	}
	roster, err := newRoster(ctx, p.client, false)
	if err != nil {
		return nil, nil, err
	}
	var rows [][]string
	for _, o := range objects {
		r := newNodeRow(o.(*v1.Node), roster, info.Swarm.NodeID)
		rows = append(rows, []string{nodeName(o.(*v1.Node)), r.ID, r.Status, r.Availability, r.ManagerStatus, r.EngineVersion})
	}
	return []string{"NAME", "ID", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"}, rows, nil
}

func (p *printer) memberRows(ctx context.Context, objects []v1.Object) ([]string, [][]string, error) {
	hosts, err := hostnames(ctx, p.client)
	if err != nil {
		return nil, nil, err
	}
	answer := map[bool]string{true: "yes", false: "no"}
	var rows [][]string
	for _, o := range objects {
		m, status := o.(*v1.Member), v1.MemberStatus{}
		if m.Status != nil {
			status = *m.Status
		}
		name, role := cmp.Or(hosts[m.Meta.ID], m.Meta.ID), "learner"
		if status.Voter {
			role = "voter"
		}
		rows = append(rows, []string{name, m.Meta.ID, status.Addr, role, answer[status.Leader], answer[status.Reachable]})
	}
	return []string{"NAME", "ID", "ADDRESS", "ROLE", "LEADER", "REACHABLE"}, rows, nil
}

// pairs are labels on one line, by key.
func pairs(labels map[string]string) string {
	all := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		if labels[k] == "" {
			all = append(all, k)
		} else {
			all = append(all, k+"="+labels[k])
		}
	}
	return strings.Join(all, ",")
}
