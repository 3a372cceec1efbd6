package compose

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"golang.org/x/crypto/scrypt"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// What it costs to try a content against the name of a secret: scrypt's parameters, for 32 MiB and about a tenth of a second.
const (
	scryptN = 1 << 15
	scryptR = 8
	scryptP = 1
)

// versionLength is that of the part of a name that tells the version, with the _ before it.
const versionLength = 11

var versionEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// version is what tells one content from others, as a part of a name.
func version(sum []byte) string { return versionEncoding.EncodeToString(sum)[:versionLength-1] }

// versioned is the name of one version of a secret or config: its own, cut where there is no room, and the version. Equal
// contents have equal names, so that deploying twice makes nothing twice, and a changed content is another object, which
// services then refer to.
func versioned(name, version string) string {
	if most := v1.MaxSecretName - versionLength; len(name) > most {
		name = name[:most]
	}
	return name + "_" + version
}

// digest tells contents apart. Whoever reads the names of configs may read the configs.
func digest(name string, spec []byte) []byte {
	h := sha256.New()
	h.Write([]byte(name + "\x00"))
	h.Write(spec)
	return h.Sum(nil)
}

// slowDigest tells contents apart, and makes it costly to find one by trying: many may read the names of secrets who may not
// read the secrets, and passwords are short. The salt is of this swarm and this secret, so that nothing can be tried beforehand.
func slowDigest(salt, name string, spec []byte) ([]byte, error) {
	sum := sha256.Sum256(spec)
	return scrypt.Key(sum[:], []byte("swarm stack secret\x00"+salt+"\x00"+name), scryptN, scryptR, scryptP, 16)
}

func (c *converter) secrets() {
	for _, key := range slices.Sorted(maps.Keys(c.project.Secrets)) {
		o := types.FileObjectConfig(c.project.Secrets[key])
		if c.external(v1.KindSecret, "secrets", key, &o) {
			continue
		}
		spec := &v1.SecretSpec{Templating: driver(o.TemplateDriver, nil), Driver: driver(o.Driver, o.DriverOpts)}
		if spec.Driver == nil {
			spec.Data = c.data("secrets."+key, &o, v1.MaxSecretSize)
		}
		out := &v1.Secret{Spec: spec, Meta: c.version("secrets", key, &o, spec, func(name string, data []byte) ([]byte, error) {
			return slowDigest(c.options.Salt, name, data)
		})}
		c.stack.Secrets = append(c.stack.Secrets, out)
	}
}

func (c *converter) configs() {
	for _, key := range slices.Sorted(maps.Keys(c.project.Configs)) {
		o := types.FileObjectConfig(c.project.Configs[key])
		if c.external(v1.KindConfig, "configs", key, &o) {
			continue
		}
		spec := &v1.ConfigSpec{Data: c.data("configs."+key, &o, v1.MaxConfigSize), Templating: driver(o.TemplateDriver, nil)}
		out := &v1.Config{Spec: spec, Meta: c.version("configs", key, &o, spec, func(name string, data []byte) ([]byte, error) {
			return digest(name, data), nil
		})}
		c.stack.Configs = append(c.stack.Configs, out)
	}
}

func driver(name string, options map[string]string) *v1.Driver {
	if name == "" {
		return nil
	}
	return &v1.Driver{Name: name, Options: options}
}

// external notes an object that has to be there before, and tells whether it is one.
func (c *converter) external(kind v1.Kind, section, key string, o *types.FileObjectConfig) bool {
	if !bool(o.External) {
		return false
	}
	name := o.Name
	if name == "" {
		name = key
	}
	c.call(section, key, name)
	c.stack.External = append(c.stack.External, External{kind, name, section + "." + key})
	return true
}

// version is the head of a secret or config: its labels, and what the file calls it, or a name by its content.
func (c *converter) version(section, key string, o *types.FileObjectConfig, spec any,
	sum func(name string, data []byte) ([]byte, error)) v1.Meta {
	scoped := c.scoped(key)
	data, err := json.Marshal(spec)
	var hash []byte
	if err == nil {
		hash, err = sum(scoped, data)
	}
	if err != nil {
		c.fail(section+"."+key, "%v", err)
		return v1.Meta{Name: scoped, Labels: c.labels(nil)}
	}
	meta := v1.Meta{Name: o.Name, Labels: c.labels(o.Labels)}
	meta.Labels[LabelKey], meta.Labels[LabelVersion] = key, version(hash)
	if meta.Name == "" {
		meta.Name = versioned(scoped, version(hash))
	}
	c.call(section, key, meta.Name)
	return meta
}

func (c *converter) call(section, key, name string) {
	if c.names == nil {
		c.names = make(map[string]string)
	}
	c.names[section+"."+key] = name
}

// data is the content of a secret or config.
func (c *converter) data(path string, o *types.FileObjectConfig, limit int64) []byte {
	var data []byte
	var err error
	switch {
	case o.File != "":
		if data, err = c.file(o.File, limit); err != nil {
			c.fail(path+".file", "%v", err)
			return nil
		}
	case o.Environment != "":
		value, ok := c.options.Env(o.Environment)
		if !ok {
			c.fail(path+".environment", "the variable %s is not set", o.Environment)
			return nil
		}
		data = []byte(value)
	default:
		data = []byte(o.Content)
	}
	switch {
	case len(data) == 0:
		c.fail(path, "has no content")
	case int64(len(data)) >= limit:
		c.fail(path, "%d bytes are too many: want less than %d", len(data), limit)
		return nil
	}
	return data
}

func secretReferences(list []types.ServiceSecretConfig) []types.FileReferenceConfig {
	var all []types.FileReferenceConfig
	for _, r := range list {
		all = append(all, types.FileReferenceConfig(r))
	}
	return all
}

func configReferences(list []types.ServiceConfigObjConfig) []types.FileReferenceConfig {
	var all []types.FileReferenceConfig
	for _, r := range list {
		all = append(all, types.FileReferenceConfig(r))
	}
	return all
}

// references are the files that a service gets. A target without a whole path is below folder.
func (c *converter) references(path, section, folder string, list []types.FileReferenceConfig) []v1.FileReference {
	var all []v1.FileReference
	for i, r := range list {
		out := v1.FileReference{Source: c.names[section+"."+r.Source], Target: r.Target, UID: r.UID, GID: r.GID}
		if out.Source == "" {
			c.fail(path+"["+strconv.Itoa(i)+"]", "there is no %s below %s", r.Source, section)
			continue
		}
		out.Target = cmp.Or(out.Target, r.Source)
		out.Target = out.At(folder)
		if r.Mode != nil {
			mode := uint32(*r.Mode)
			out.Mode = &mode
		}
		c.extension(path+"["+strconv.Itoa(i)+"].x-on-change", r.Extensions["x-on-change"], &out.OnChange)
		all = append(all, out)
	}
	slices.SortStableFunc(all, func(x, y v1.FileReference) int { return strings.Compare(x.Target, y.Target) })
	return all
}
