package compose

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// What compose files have no key for is said in extensions, which other programs leave alone. One that a service has is read strictly;
// all others are the user's own.

// schedule is what deploy.x-schedule says.
func (c *converter) schedule(path string, d *types.DeployConfig) *v1.Schedule {
	var x struct {
		Cron             string               `json:"cron"`
		TimeZone         string               `json:"time_zone"`
		Concurrency      v1.ConcurrencyPolicy `json:"concurrency"`
		StartingDeadline *v1.Duration         `json:"starting_deadline"`
		KeepSuccessful   *uint64              `json:"keep_successful"`
		KeepFailed       *uint64              `json:"keep_failed"`
		Suspend          bool                 `json:"suspend"`
	}
	if !c.extension(path+".deploy.x-schedule", d.Extensions["x-schedule"], &x) {
		return nil
	}
	return &v1.Schedule{Cron: x.Cron, TimeZone: x.TimeZone, Concurrency: x.Concurrency, StartingDeadline: x.StartingDeadline,
		KeepSuccessful: x.KeepSuccessful, KeepFailed: x.KeepFailed, Suspend: x.Suspend}
}

// extension reads the value of a key that is ours, and tells whether there is one.
func (c *converter) extension(path string, value, into any) bool {
	if value == nil {
		return false
	}
	data, err := json.Marshal(value)
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(data))
		d.DisallowUnknownFields()
		err = d.Decode(into)
	}
	if err != nil {
		c.fail(path, "%s: see docs/stacks.md for what it may say", strings.TrimPrefix(err.Error(), "json: "))
	}
	return true
}
