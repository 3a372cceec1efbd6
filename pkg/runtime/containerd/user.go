package containerd

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

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

// maxUsers bounds what is read of a container's /etc/passwd and /etc/group, in bytes.
const maxUsers = 1 << 20

// userInside resolves it with the files of a container as they are now, by one of its processes.
func userInside(pid uint32, spec string) (specs.User, error) {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/%d/root", pid)) // what is opened in it cannot lead out of it
	if err != nil {
		return specs.User{}, err
	}
	defer func() { _ = root.Close() }()
	return findUser(spec, nil, &image{passwd: readInside(root, "etc/passwd"), group: readInside(root, "etc/group")})
}

// readInside is a regular file's content, or nil.
func readInside(root *os.Root, name string) []byte {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe in its place would be waited for
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	content, err := io.ReadAll(io.LimitReader(f, maxUsers))
	if err != nil {
		return nil
	}
	return content
}

// reader reads a file that may be absent, which to the parser is an interface that is nil.
func reader(file []byte) io.Reader {
	if file == nil {
		return nil
	}
	return bytes.NewReader(file)
}
