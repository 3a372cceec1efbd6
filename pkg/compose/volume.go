package compose

import (
	"maps"
	"path"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// mounts are what a service's volumes and tmpfs ask for.
func (c *converter) mounts(at string, s *types.ServiceConfig) []v1.Mount {
	var all []v1.Mount
	for i := range s.Volumes {
		if m, ok := c.mount(at+".volumes["+strconv.Itoa(i)+"]", &s.Volumes[i]); ok {
			all = append(all, m)
		}
	}
	for i, text := range s.Tmpfs {
		all = append(all, c.tmpfs(at+".tmpfs["+strconv.Itoa(i)+"]", text))
	}
	return all
}

func (c *converter) mount(at string, v *types.ServiceVolumeConfig) (v1.Mount, bool) {
	out := v1.Mount{Type: v1.MountType(v.Type), Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly}
	switch v.Type {
	case types.VolumeTypeBind:
		if v.Bind != nil && (v.Bind.Propagation != "" || v.Bind.Recursive != "") {
			out.Bind = &v1.BindOptions{Propagation: v.Bind.Propagation, Recursive: v.Bind.Recursive}
		}
	case types.VolumeTypeTmpfs:
		if v.Tmpfs != nil {
			out.Tmpfs = &v1.TmpfsOptions{Size: v1.Bytes(v.Tmpfs.Size), Mode: v.Tmpfs.Mode}
		}
	case types.VolumeTypeVolume:
		if _, ok := c.project.Volumes[v.Source]; !ok && v.Source != "" {
			c.fail(at, "there is no volume %s below volumes", v.Source)
			return out, false
		}
		c.volume(&out, v)
	default:
		c.fail(at+".type", "%q is not supported: want volume, bind or tmpfs", v.Type)
		return out, false
	}
	return out, true
}

// volume fills in which volume it is, and how it is made where a node does not have it.
func (c *converter) volume(out *v1.Mount, v *types.ServiceVolumeConfig) {
	options := &v1.VolumeOptions{}
	if v.Volume != nil {
		options.NoCopy, options.Subpath = v.Volume.NoCopy, v.Volume.Subpath
		options.Labels = v.Volume.Labels
	}
	out.Volume = options
	if v.Source == "" { // one of the task's own, which ends with it
		return
	}
	declared := c.project.Volumes[v.Source]
	if bool(declared.External) {
		if out.Source = v.Source; declared.Name != "" {
			out.Source = declared.Name
		}
		if options.Labels == nil && !options.NoCopy && options.Subpath == "" {
			out.Volume = nil
		}
		return
	}
	if out.Source = c.scoped(v.Source); declared.Name != "" {
		out.Source = declared.Name
	}
	labels := c.labels(declared.Labels)
	maps.Copy(labels, options.Labels)
	options.Labels = labels
	if declared.Driver != "" || len(declared.DriverOpts) > 0 {
		options.Driver = &v1.Driver{Name: declared.Driver, Options: declared.DriverOpts}
	}
}

// tmpfs reads PATH[:OPTION,…].
func (c *converter) tmpfs(at, text string) v1.Mount {
	target, list, given := strings.Cut(text, ":")
	out := v1.Mount{Type: v1.MountTmpfs, Target: path.Clean(target)}
	if !given {
		return out
	}
	out.Tmpfs = &v1.TmpfsOptions{}
	for option := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(option, "=")
		var err error
		switch name {
		case "size":
			out.Tmpfs.Size, err = v1.ParseBytes(value)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(value, 8, 32)
			out.Tmpfs.Mode = uint32(mode)
		case "ro":
			out.ReadOnly = true
		case "rw":
		default:
			c.fail(at, "the option %q is not supported: want size, mode or ro", option)
		}
		if err != nil {
			c.fail(at, "%q: %v", option, err)
		}
	}
	return out
}
