package containerd

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	containerregistry "github.com/google/go-containerregistry/pkg/v1"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

func TestHealthcheck(t *testing.T) {
	own := &image{health: &imageHealth{Test: []string{"CMD-SHELL", "curl localhost"}, Interval: time.Minute, Retries: 5}}
	for name, test := range map[string]struct {
		spec  *v1.Healthcheck
		image *image
		want  *v1.Healthcheck
	}{
		"none":        {nil, &image{}, nil},
		"the image's": {nil, own, &v1.Healthcheck{Test: []string{"CMD", "/bin/sh", "-c", "curl localhost"}, Interval: v1.Duration(time.Minute), Retries: 5}},
		"disabled":    {&v1.Healthcheck{Test: []string{"NONE"}}, own, nil},
		"times over the image's": {&v1.Healthcheck{Interval: v1.Duration(time.Second)}, own,
			&v1.Healthcheck{Test: []string{"CMD", "/bin/sh", "-c", "curl localhost"}, Interval: v1.Duration(time.Second), Retries: 5}},
		"its own command": {&v1.Healthcheck{Test: []string{"CMD", "true"}, Retries: 1}, own,
			&v1.Healthcheck{Test: []string{"CMD", "true"}, Interval: v1.Duration(time.Minute), Retries: 1}},
		"a port": {&v1.Healthcheck{TCP: &v1.TCPProbe{Port: 80}}, own,
			&v1.Healthcheck{TCP: &v1.TCPProbe{Port: 80}, Interval: v1.Duration(time.Minute), Retries: 5}},
		"times alone": {&v1.Healthcheck{Retries: 2}, &image{}, nil},
		"its shell":   {nil, &image{shell: []string{"ash", "-ec"}, health: own.health}, &v1.Healthcheck{Test: []string{"CMD", "ash", "-ec", "curl localhost"}, Interval: v1.Duration(time.Minute), Retries: 5}},
		"nonsense":    {nil, &image{health: &imageHealth{Test: []string{"CMD"}, Interval: -1}}, nil},
	} {
		if diff := cmp.Diff(test.want, healthcheck(test.spec, test.image)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestHealthcheckOfAnImage reads it as docker build writes it.
func TestHealthcheckOfAnImage(t *testing.T) {
	r := theRuntime(t)
	loadImage(t, r, "checked:1", testImage(t, func(c *containerregistry.Config) {
		c.Healthcheck = &containerregistry.HealthConfig{Test: []string{"CMD", "/bin/workload", "exit", "0"}, Interval: 3 * time.Second, Retries: 4}
	}))
	c := container("forever")
	c.Image = "docker.io/library/checked:1"
	create(t, r, c)
	s, err := r.State(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := &v1.Healthcheck{Test: []string{"CMD", "/bin/workload", "exit", "0"}, Interval: v1.Duration(3 * time.Second), Retries: 4}
	if diff := cmp.Diff(want, s.Healthcheck); diff != "" {
		t.Errorf("health check (-want +got):\n%s", diff)
	}
}
