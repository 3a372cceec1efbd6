package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/client"
)

// networkPretty is the layout of describe network, in the style of Docker's.
const networkPretty = `
ID:		{{.ID}}
Name:		{{.Name}}
{{- with .Labels}}
Labels:{{range $k, $v := .}}
 {{$k}}{{if $v}}={{$v}}{{end}}{{end}}{{end}}
Created:	{{ago .Created}}
Driver:		{{.Driver}}
{{- with .Options}}
Options:{{range $k, $v := .}}
 {{$k}}{{if $v}}={{$v}}{{end}}{{end}}{{end}}
{{- with .IPAM.Config}}
Subnets:{{range .}}
 {{.Subnet}}{{with .Gateway}}
  Gateway:	{{.}}{{end}}{{with .IPRange}}
  Range:	{{.}}{{end}}{{end}}{{end}}
IPv6:		{{.EnableIPv6}}
Internal:	{{.Internal}}
Attachable:	{{.Attachable}}
{{- with .Problem}}
Problem:	{{.}}{{end}}
`

// residentRow is a service or a task on a network.
type residentRow struct {
	Name, Address, Aliases, Node, State, Error string
}

var residentHeadings = map[string]string{"Name": "NAME", "Address": "ADDRESS", "Aliases": "ALIASES", "Node": "NODE", "State": "CURRENT STATE",
	"Error": "ERROR"}

var (
	networkServices = table{columns: `{{.Name}}\t{{.Address}}\t{{.Aliases}}`, headings: residentHeadings}
	networkTasks    = table{columns: `{{.Name}}\t{{.Address}}\t{{.Node}}\t{{.State}}\t{{.Error}}`, headings: residentHeadings}
)

// describeNetwork prints a network, and who is on it with which address.
func (a *app) describeNetwork(ctx context.Context, c *client.Client, n *v1.Network) error {
	r, err := newResidents(ctx, c, n)
	if err != nil {
		return err
	}
	return a.writeNetwork(r)
}

func (a *app) writeNetwork(r *residents) error {
	n := r.network
	if err := a.writePretty(networkPretty, []string{n.Meta.ID}, func(string) (any, error) { return convertNetwork(n), nil }); err != nil {
		return err
	}
	for _, part := range []struct {
		title string
		table table
		rows  []any
	}{{"Services", networkServices, r.serviceRows()}, {"Tasks", networkTasks, r.taskRows(a.Now())}} {
		fmt.Fprintf(a.Out, "%s:\n", part.title)
		if err := part.table.write(a.Out, "", false, part.rows); err != nil {
			return err
		}
	}
	a.printf("\n")
	return nil
}

func (r *residents) serviceRows() []any {
	var rows []any
	for _, s := range r.services {
		row := residentRow{Name: s.Meta.Name, Address: strings.Join(r.vips(s), ", ")}
		if at := r.attachment(s); at != nil {
			row.Aliases = strings.Join(at.Aliases, ", ")
		}
		if e := s.Spec.Endpoint; row.Address == "" && e != nil && e.Mode == v1.EndpointDNSRR {
			row.Address = "its tasks' (dnsrr)"
		}
		rows = append(rows, row)
	}
	return rows
}

func (r *residents) taskRows(now time.Time) []any {
	var rows []any
	for _, t := range r.tasks {
		task := newTaskRow(t, "", false, now)
		row := residentRow{Name: task.Name, Address: strings.Join(addressesOn(r.network.Meta.ID, t.Desired.Networks), ", "), Node: task.Node,
			State: task.CurrentState, Error: task.Error}
		if node := r.nodes[task.Node]; node != nil {
			row.Node = nodeName(node)
		}
		rows = append(rows, row)
	}
	return rows
}
