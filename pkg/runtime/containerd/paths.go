package containerd

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxSocketDir is the length of the longest folder that shims can have their sockets in: of the 107 bytes of a socket's
// name they use 65.
const maxSocketDir = 42

// paths are the places of one Runtime.
type paths struct {
	root string
	// volumes is the folder of the volumes.
	volumes string
	// name is unique to Root on this machine: swarmd-<hash>.
	name string
	// run holds the sockets.
	run    string
	socket string
	// runtime is the folder with the binaries.
	runtime string
}

func newPaths(c Config) (paths, error) {
	for name, dir := range map[string]string{"Root": c.Root, "Bin": c.Bin, "Volumes": cmp.Or(c.Volumes, "/")} {
		if !filepath.IsAbs(dir) {
			return paths{}, fmt.Errorf("containerd: Config.%s is %q: want an absolute path", name, dir)
		}
	}
	root := filepath.Clean(c.Root)
	sum := sha256.Sum256([]byte(root))
	p := paths{root: root, name: "swarmd-" + hex.EncodeToString(sum[:4]), runtime: filepath.Clean(c.Bin)}
	if p.volumes = p.in("volumes"); c.Volumes != "" {
		p.volumes = filepath.Clean(c.Volumes)
	}
	p.run = p.in("run")
	if len(p.run) > maxSocketDir {
		p.run = filepath.Join("/run", p.name)
	}
	p.socket = filepath.Join(p.run, "containerd.sock")
	binaries := []string{"runc", "swarm-logger", "init"}
	if c.Address == "" {
		binaries = append(binaries, "containerd", "containerd-shim-runc-v2")
	}
	for _, name := range binaries {
		if _, err := os.Stat(p.bin(name)); err != nil {
			return paths{}, fmt.Errorf("containerd: %w; make -C tools BIN=%s builds it", err, p.runtime)
		}
	}
	return p, nil
}

// in is a path below the root.
func (p paths) in(elements ...string) string {
	return filepath.Join(append([]string{p.root}, elements...)...)
}

// bin is the path of a binary.
func (p paths) bin(name string) string { return filepath.Join(p.runtime, name) }

// mark is the file that says that the container was made; see mark.go.
func (p paths) mark(id string) string { return p.in("marks", id) }

// logs is the folder of the container's log.
func (p paths) logs(id string) string { return p.in("logs", id) }

// streams is the folder of the pipes of a container whose input is open.
func (p paths) streams(id string) string { return p.in("streams", id) }

// prepare makes the folders and takes the lock. What a machine left that has booted since is cleared: the state of
// containers that are no more, with process IDs that others have now.
func (p paths) prepare() (lock *os.File, err error) {
	for _, dir := range []string{p.root, p.run, p.in("marks"), p.in("logs"), p.in("runc"), p.in("tmp"), p.in("streams"), p.in("files"), p.in("anonymous"), p.volumes} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("containerd: %w", err)
		}
	}
	for _, dir := range []string{p.run, p.in("logs"), p.in("runc"), p.in("tmp"), p.in("streams"), p.in("files")} {
		if err := os.Chmod(dir, 0o700); err != nil {
			return nil, fmt.Errorf("containerd: %w", err)
		}
	}
	lock, err = os.OpenFile(p.in("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another process uses it")
		}
		return nil, fmt.Errorf("containerd: lock %s: %w", p.root, err)
	}
	if err := p.forgetBoot(); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// forgetBoot clears what only means something until the machine stops, when it has.
func (p paths) forgetBoot() error {
	current, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	last, err := os.ReadFile(p.in("boot_id"))
	if err == nil && string(last) == string(current) {
		return nil
	}
	if mounts, err := p.mounts(); err != nil || len(mounts) > 0 {
		return err // something runs here, so it cannot be of an earlier boot
	}
	for _, dir := range []string{"state", "runc", "tmp"} {
		if err := os.RemoveAll(p.in(dir)); err != nil {
			return fmt.Errorf("containerd: clear the state of an earlier boot: %w", err)
		}
	}
	os.Remove(p.in("containerd.pid"))
	for _, dir := range []string{"runc", "tmp"} {
		if err := os.MkdirAll(p.in(dir), 0o700); err != nil {
			return fmt.Errorf("containerd: %w", err)
		}
	}
	return os.WriteFile(p.in("boot_id"), current, 0o600)
}

// mounts lists what is mounted below the root and in volumes, the innermost last.
func (p paths) mounts() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var found []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) > 4 {
			if at := unescape.Replace(fields[4]); strings.HasPrefix(at, p.root+"/") || strings.HasPrefix(at, p.volumes+"/") {
				found = append(found, at)
			}
		}
	}
	return found, nil
}
