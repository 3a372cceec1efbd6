package containerd

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/swarmd/swarmd/pkg/runtime"
)

// findUser resolves "name", "uid", "name:group" and so on with the image's files, as Docker does. Numbers need not be in
// them; names must.
func findUser(spec string, groups []string, i *image) (specs.User, error) {
	found, err := user.GetExecUser(spec, &user.ExecUser{}, reader(i.passwd), reader(i.group))
	if err != nil {
		return specs.User{}, fmt.Errorf("%w: %w", err, runtime.ErrInvalid)
	}
	extra, err := user.GetAdditionalGroups(groups, reader(i.group))
	if err != nil {
		return specs.User{}, fmt.Errorf("%w: %w", err, runtime.ErrInvalid)
	}
	u := specs.User{UID: uint32(found.Uid), GID: uint32(found.Gid), AdditionalGids: []uint32{uint32(found.Gid)}}
	for _, gid := range slices.Concat(found.Sgids, extra) {
		if !slices.Contains(u.AdditionalGids, uint32(gid)) {
			u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
		}
	}
	return u, nil
}

// reader reads a file that may be absent, which to the parser is an interface that is nil.
func reader(file []byte) io.Reader {
	if file == nil {
		return nil
	}
	return bytes.NewReader(file)
}
