package containerd

import (
	"cmp"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// imageHealth is the HEALTHCHECK of an image, in Docker's format: its times are nanoseconds.
type imageHealth struct {
	Test                                          []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
}

// healthcheck is how a container is found to be healthy, as Docker has it: what its spec leaves out is the image's. Nil is by
// nothing.
func healthcheck(spec *v1.Healthcheck, i *image) *v1.Healthcheck {
	var h v1.Healthcheck
	if spec != nil {
		h = *spec
	}
	if own := i.health; own != nil {
		if len(h.Test) == 0 && h.HTTP == nil && h.TCP == nil {
			h.Test = own.Test
		}
		for _, of := range []struct {
			field *v1.Duration
			image time.Duration
		}{{&h.Interval, own.Interval}, {&h.Timeout, own.Timeout}, {&h.StartPeriod, own.StartPeriod}, {&h.StartInterval, own.StartInterval}} {
			*of.field = cmp.Or(*of.field, v1.Duration(max(0, of.image)))
		}
		h.Retries = cmp.Or(h.Retries, max(0, own.Retries))
	}
	switch {
	case h.HTTP != nil, h.TCP != nil:
		h.Test = nil
	case len(h.Test) > 1 && h.Test[0] == "CMD":
	case len(h.Test) > 1 && h.Test[0] == "CMD-SHELL":
		shell := i.shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		h.Test = append(append([]string{"CMD"}, shell...), h.Test[1])
	default: // NONE, nothing, or nonsense in an image
		return nil
	}
	return &h
}
