package cli

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"

	"github.com/docker/go-units"
)

// servicePretty is the layout of docker service inspect --pretty.
const servicePretty = `
ID:		{{.ID}}
Name:		{{.Spec.Name}}
{{- with .Spec.Labels}}
Labels:{{range $k, $v := .}}
 {{$k}}{{if $v}}={{$v}}{{end}}{{end}}{{end}}
Service Mode:
{{- with .Spec.Mode}}{{if .Global}}	Global{{else if .Replicated}}	Replicated
{{- with .Replicated.Replicas}}
 Replicas:	{{.}}{{end}}{{else if .ReplicatedJob}}	Replicated Job{{else if .Cron}}	Cron{{with .Cron}}
 Schedule:	{{.Schedule}}{{with .TimeZone}} ({{.}}){{end}}{{if .Suspend}}, suspended{{end}}
 Concurrency:	{{.Concurrency}}
{{- with .StartingDeadline}}
 Starting deadline:	{{.}}{{end}}{{end}}{{else}}	Global Job{{end}}{{end}}
{{- with .CronStatus}}
{{- with .Next}}
 Next run:	{{.}}{{end}}
{{- range .Runs}}
 Run {{.Number}}:	began {{ago .Started}}{{end}}
{{- with .Skipped}}
 Left out:	{{.}}{{end}}{{end}}
{{- with .UpdateStatus}}
UpdateStatus:
 State:		{{.State}}
{{- with .StartedAt}}
 Started:	{{ago .}}{{end}}
{{- with .CompletedAt}}
 Completed:	{{ago .}}{{end}}
 Message:	{{.Message}}{{end}}
Placement:
{{- with .Spec.TaskTemplate.Placement}}
{{- if .Constraints}}
 Constraints:	{{.Constraints}}{{end}}
{{- if .Preferences}}
 Preferences:   [{{range $i, $p := .Preferences}}{{if $i}} {{end}}spread={{$p.Spread.SpreadDescriptor}}{{end}}]{{end}}
{{- if .MaxReplicas}}
 Max Replicas Per Node:   {{.MaxReplicas}}{{end}}
{{- if .Rebalance}}
 Rebalance:	{{.Rebalance}}{{end}}{{end}}
{{- with .Spec.UpdateConfig}}
UpdateConfig:{{template "update" .}}
 Update order:      {{.Order}}{{end}}
{{- with .Spec.RollbackConfig}}
RollbackConfig:{{template "update" .}}
 Rollback order:    {{.Order}}{{end}}
{{- with .Spec.DependsOn}}
Depends On:{{range .}}
 {{.Service}}:	{{.Condition}}{{if .Optional}}, if it is there{{end}}{{end}}{{end}}
ContainerSpec:
{{- with .Spec.TaskTemplate.ContainerSpec}}
 Image:		{{.Image}}
{{- with .Args}}
 Args:		{{range .}}{{.}} {{end}}{{end}}
{{- with .Env}}
 Env:		{{range .}}{{.}} {{end}}{{end}}
{{- with .Dir}}
 Dir:		{{.}}{{end}}
{{- with .Init}}
 Init:		{{.}}{{end}}
{{- with .User}}
 User: {{.}}{{end}}
{{- if or .CapabilityAdd .CapabilityDrop}}
Capabilities:
{{- with .CapabilityAdd}}
 Add: {{join . ", "}}{{end}}
{{- with .CapabilityDrop}}
 Drop: {{join . ", "}}{{end}}{{end}}
{{- with .Sysctls}}
SysCtls:{{range $k, $v := .}}
 {{$k}}{{if $v}}: {{$v}}{{end}}{{end}}{{end}}
{{- with .Ulimits}}
Ulimits:{{range .}}
 {{.Name}}: {{.Soft}}:{{.Hard}}{{end}}{{end}}
{{- with .Mounts}}
Mounts:{{range .}}
 Target:	{{.Target}}
  Source:	{{.Source}}
  ReadOnly:	{{.ReadOnly}}
  Type:		{{.Type}}{{end}}{{end}}
{{- with .Configs}}
Configs:{{range .}}
 Target:	{{.File.Name}}
  Source:	{{.ConfigName}}
{{- with .OnChange}}
  On change:	{{.}}{{end}}{{end}}{{end}}
{{- with .Secrets}}
Secrets:{{range .}}
 Target:	{{.File.Name}}
  Source:	{{.SecretName}}
{{- with .OnChange}}
  On change:	{{.}}{{end}}{{end}}{{end}}{{end}}
{{- with .Spec.TaskTemplate.LogDriver}}
Log Driver:
{{- with .Name}}
 Name:		{{.}}{{end}}
{{- with .Options}}
 LogOpts:{{range $k, $v := .}}
  {{$k}}{{if $v}}:       {{$v}}{{end}}{{end}}{{end}}
{{end}}
{{- with .Spec.TaskTemplate.Resources}}
Resources:
{{- with .Reservations}}{{if or .NanoCPUs .MemoryBytes .GenericResources}}
 Reservations:
{{- if .NanoCPUs}}
  CPU:		{{cpus .NanoCPUs}}{{end}}
{{- if .MemoryBytes}}
  Memory:	{{size .MemoryBytes}}{{end}}
{{- range .GenericResources}}{{with .DiscreteResourceSpec}}
  {{.Kind}}:		{{.Value}}{{end}}{{end}}{{end}}{{end}}
{{- with .Limits}}{{if or .NanoCPUs .MemoryBytes .Pids}}
 Limits:
{{- if .NanoCPUs}}
  CPU:		{{cpus .NanoCPUs}}{{end}}
{{- if .MemoryBytes}}
  Memory:	{{size .MemoryBytes}}{{end}}
{{- if .Pids}}
  PIDs:		{{.Pids}}{{end}}{{end}}{{end}}{{end}}
{{- with .Spec.TaskTemplate.Networks}}
Networks:{{range .}} {{.Target}}{{end}} {{end}}
Endpoint Mode:	{{with .Spec.EndpointSpec}}{{.Mode}}{{end}}
{{- with .Endpoint.VirtualIPs}}
Virtual IPs:{{range .}}
 {{.NetworkID}} = {{.Addr}}{{end}}{{end}}
{{- with .Endpoint.Ports}}
Ports:{{range .}}
 PublishedPort = {{.PublishedPort}}
  Protocol = {{.Protocol}}
  TargetPort = {{.TargetPort}}
  PublishMode = {{.PublishMode}}{{with .HostIP}}
  HostIP = {{.}}{{end}}{{with .Interface}}
  Interface = {{.}}{{end}}{{end}} {{end}}
{{- with .Spec.TaskTemplate.ContainerSpec.Healthcheck}}
 Healthcheck:
  Interval = {{.Interval}}
  Retries = {{.Retries}}
  StartPeriod =	{{.StartPeriod}}
  Timeout =	{{.Timeout}}
{{- with .HTTP}}
  HTTP = {{.Scheme}}://:{{.Port}}{{.Path}}{{end}}
{{- with .TCP}}
  TCP = {{.Port}}{{end}}
{{- with .Test}}
  Tests:{{range .}}
	 Test = {{.}}{{end}}{{end}}{{end}}
{{define "update"}}
 Parallelism:	{{.Parallelism}}
{{- if .Delay}}
 Delay:		{{.Delay}}{{end}}
 On failure:	{{.FailureAction}}
{{- if .Monitor}}
 Monitoring Period: {{.Monitor}}{{end}}
 Max failure ratio: {{.MaxFailureRatio}}
{{- if .ProgressDeadline}}
 Progress deadline: {{.ProgressDeadline}}{{end}}{{end}}`

// nodePretty is the layout of docker node inspect --pretty.
const nodePretty = `ID:			{{.ID}}
{{- with .Spec.Name}}
Name:			{{.}}{{end}}
{{- with .Spec.Labels}}
Labels:{{range $k, $v := .}}
 - {{$k}}{{if $v}}={{$v}}{{end}}{{end}}{{end}}
Hostname:              	{{.Description.Hostname}}
Joined at:             	{{.CreatedAt}}
Status:
 State:			{{pretty .Status.State}}
{{- with .Status.Message}}
 Message:              	{{pretty .}}{{end}}
 Availability:         	{{pretty .Spec.Availability}}
{{- with .Status.Addr}}
 Address:		{{.}}{{end}}
{{- with .ManagerStatus}}
Manager Status:
 Address:		{{.Addr}}
 Raft Status:		{{pretty .Reachability}}
 Leader:		{{if .Leader}}Yes{{else}}No{{end}}{{end}}
Platform:
 Operating System:	{{.Description.Platform.OS}}
 Architecture:		{{.Description.Platform.Architecture}}
Resources:
 CPUs:			{{cores .Description.Resources.NanoCPUs}}
 Memory:		{{size .Description.Resources.MemoryBytes}}
Engine Version:		{{.Description.Engine.EngineVersion}}
{{- with .Description.Engine.Labels}}
Engine Labels:{{range $k, $v := .}}
 - {{$k}}{{if $v}}={{$v}}{{end}}{{end}}{{end}}
{{- with .Description.TLSInfo}}
TLS Info:
 TrustRoot:
{{.TrustRoot}}
 Issuer Subject:	{{base64 .CertIssuerSubject}}
 Issuer Public Key:	{{base64 .CertIssuerPublicKey}}{{end}}
`

// dataPretty is the layout of docker secret inspect --pretty.
const dataPretty = `ID:              {{.ID}}
Name:            {{.Spec.Name}}
{{- with .Spec.Labels}}
Labels:{{range $k, $v := .}}
 - {{$k}}{{if $v}}={{$v}}{{end}}{{end}}{{else}}
Labels:{{end}}
{{- with .Spec.Driver}}
Driver:          {{.Name}}{{end}}
Created at:      {{.CreatedAt}}
Updated at:      {{.UpdatedAt}}
{{- with .Spec.Data}}
Data:
{{printf "%s" .}}{{end}}
`

// agoText is how long ago a time was that a layout shows.
func (a *app) agoText(t any) string {
	switch t := t.(type) {
	case *time.Time:
		return ago(a.Now(), *t)
	case time.Time:
		return ago(a.Now(), t)
	}
	return ""
}

// writePretty prints each object through one of the layouts.
func (a *app) writePretty(layout string, refs []string, get func(ref string) (any, error)) error {
	t, err := template.New("").Funcs(templateFuncs).Funcs(template.FuncMap{
		"ago":    a.agoText,
		"cpus":   func(nano int64) float64 { return float64(nano) / 1e9 },
		"cores":  func(nano int64) int64 { return nano / 1e9 },
		"size":   func(n int64) string { return units.BytesSize(float64(n)) },
		"pretty": func(v any) string { return pretty(fmt.Sprint(v)) },
		"base64": base64.StdEncoding.EncodeToString,
	}).Parse(layout)
	if err != nil {
		return err
	}
	var errs []error
	for _, ref := range refs {
		o, err := get(ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		var b strings.Builder
		if err := t.Execute(&b, o); err != nil {
			return err
		}
		a.printf("%s\n", paragraph(b.String()))
	}
	return errors.Join(errs...)
}
