package netplugin

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// process is a swarm-wire, which has the WireGuard device of one network: see pkg/netplugin/wire. It outlives this process, and is
// found again by its socket. The kernel says whose that is, so nothing has to be written down that could be wrong.
type process struct {
	// path of the socket: a directory, and the network's ID with ".sock".
	path string
}

const (
	// startPatience is how long a process may take until it answers, and answerPatience how long an answer.
	startPatience  = 15 * time.Second
	answerPatience = 5 * time.Second
	// statusPortTaken is a process's exit status where its port is another program's: wire.PortTaken, without the device that would come with it.
	statusPortTaken = 2
	// mostAnswer bounds an answer: 100,000 addresses are 5 MB.
	mostAnswer = 256 << 20
)

// wiresDir is where the processes' sockets are, and this node's keys.
func (l *Linux) wiresDir() string { return filepath.Join(l.dir, "wire") }

func (l *Linux) process(network string) process {
	return process{filepath.Join(l.wiresDir(), network+".sock")}
}

// leftProcesses are the networks that have a process, as far as can be seen.
func (l *Linux) leftProcesses() (networks []string, err error) {
	entries, err := os.ReadDir(l.wiresDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".sock"); ok {
			networks = append(networks, id)
		}
	}
	return networks, err
}

// startProcess starts a network's process, with a TUN device in the network's router and a UDP port in the machine's own namespace.
func (l *Linux) startProcess(o *overlay, port uint16) error {
	p := l.process(o.id)
	if err := os.MkdirAll(l.wiresDir(), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	tun, err := o.space.openTUN(overlayLink)
	if err != nil {
		return err
	}
	defer tun.Close() // the process has it as well, by then
	ready, told, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := exec.Command(l.wire, "--socket", p.path, "--port", strconv.Itoa(int(port)))
	cmd.Stderr, cmd.Dir, cmd.Env = log, "/", []string{}
	cmd.ExtraFiles = []*os.File{tun, told}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = l.host.within(cmd.Start)
	_ = told.Close()
	if err != nil {
		return err
	}
	if err := awaitReady(ready); err != nil {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // which tells that
		if cmd.ProcessState.ExitCode() == statusPortTaken {
			return portTaken(port)
		}
		return fmt.Errorf("%s: %w%s", l.wire, err, p.lastWords())
	}
	go func() { _ = cmd.Wait() }() // so that it is no zombie; its link tells that it has ended
	return nil
}

// awaitReady waits for the byte by which a process tells that it answers.
func awaitReady(ready *os.File) error {
	if err := ready.SetReadDeadline(time.Now().Add(startPatience)); err != nil {
		return err
	}
	n, err := ready.Read(make([]byte, 1))
	if n == 1 {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return errors.New("it has ended")
	}
	return err
}

// openTUN makes a device in the namespace, which is there for as long as somebody has it open.
func (n *namespace) openTUN(name string) (f *os.File, err error) {
	err = n.within(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: the kernel has neither WireGuard nor TUN devices, or they are not to be had here: %w", err)
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("make a TUN device: %w", err)
		}
		f = os.NewFile(uintptr(fd), "/dev/net/tun")
		return nil
	})
	return f, err
}

func (p process) log() string { return strings.TrimSuffix(p.path, ".sock") + ".log" }

// lastWords is the end of the process's log, to put after an error.
func (p process) lastWords() string {
	data, err := os.ReadFile(p.log())
	if err != nil || len(data) == 0 {
		return ""
	}
	return ": " + strings.TrimSpace(string(data[max(0, len(data)-500):]))
}

// dial connects to the process. The path of a socket may be too long for its name, and that of its directory's descriptor never is.
func (p process) dial() (*net.UnixConn, error) {
	dir, err := os.Open(filepath.Dir(p.path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	c, err := net.DialTimeout("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(p.path)), answerPatience)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// end kills the process, if there is one, and waits until it is gone, and its device and port with it.
func (p process) end() error {
	pidfd := -1
	// Asked twice: a process that still answers with the same ID once there is a handle is the one that the handle is of.
	for id := 0; ; {
		now, err := p.id()
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err != nil {
			return fmt.Errorf("find the process of %s: %w", p.path, err)
		}
		if id == now {
			if err := kill(pidfd); err != nil {
				return fmt.Errorf("end process %d of %s: %w", id, p.path, err)
			}
			break
		}
		if pidfd >= 0 {
			_ = unix.Close(pidfd)
		}
		if pidfd, err = unix.PidfdOpen(now, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("find process %d of %s: %w", now, p.path, err)
		}
		id = now
	}
	if pidfd >= 0 {
		_ = unix.Close(pidfd)
	}
	for _, name := range []string{p.path, p.path + ".new", p.log()} {
		if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// id is the ID of the process that listens.
func (p process) id() (int, error) {
	c, err := p.dial()
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var who *unix.Ucred
	if controlErr := raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); controlErr != nil {
		return 0, controlErr
	}
	if err != nil {
		return 0, err
	}
	return int(who.Pid), nil
}

// kill kills a process, and waits until it is gone.
func kill(pidfd int) error {
	if err := unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	for end := time.Now().Add(answerPatience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(time.Until(end)/time.Millisecond))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return errors.New("it does not end")
		default:
			return nil
		}
	}
}

// ask sends a request and reads the answer's lines, but for the last.
func (p process) ask(request string) (lines []string, err error) {
	c, err := p.dial()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return nil, err
	}
	answer := bufio.NewScanner(io.LimitReader(c, mostAnswer))
	for answer.Scan() {
		line := answer.Text()
		if code, last := strings.CutPrefix(line, "errno="); last && code != "0" {
			return nil, fmt.Errorf("%s answers with error %s%s", p.path, code, p.lastWords())
		} else if last {
			return lines, nil
		}
		lines = append(lines, line)
	}
	switch err := answer.Err(); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%s does not answer within %s", p.path, answerPatience)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", p.path, err)
	}
	return nil, fmt.Errorf("%s: the answer has no end", p.path)
}

// change implements tunnel.
func (p process) change(c wgtypes.Config) error {
	var b strings.Builder
	say := func(key string, value any) { fmt.Fprintf(&b, "%s=%v\n", key, value) }
	say("set", 1)
	if c.PrivateKey != nil {
		say("private_key", hex.EncodeToString(c.PrivateKey[:]))
	}
	for _, one := range c.Peers {
		say("public_key", hex.EncodeToString(one.PublicKey[:]))
		if one.Remove {
			say("remove", true)
			continue
		}
		if one.UpdateOnly {
			say("update_only", true)
		}
		if one.PresharedKey != nil {
			say("preshared_key", hex.EncodeToString(one.PresharedKey[:]))
		}
		if one.Endpoint != nil {
			say("endpoint", one.Endpoint)
		}
		for _, a := range one.AllowedIPs {
			say("allowed_ip", a.String())
		}
		if often := one.PersistentKeepaliveInterval; often != nil {
			say("persistent_keepalive_interval", int(*often/time.Second))
		}
	}
	b.WriteByte('\n')
	_, err := p.ask(b.String())
	return err
}

// read implements tunnel.
func (p process) read() (*wires, error) {
	lines, err := p.ask("get=1\n\n")
	if err != nil {
		return nil, err
	}
	return parseWires(lines)
}

// parseWires reads WireGuard's own lines of a device. What is of no use here is passed over.
func parseWires(lines []string) (*wires, error) {
	have := &wires{peers: map[wgtypes.Key]wirePeer{}, owner: map[netip.Prefix]wgtypes.Key{}}
	var k wgtypes.Key
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		var err error
		peer := have.peers[k]
		switch name {
		case "private_key":
			have.private, err = parseKey(value)
			have.self = have.private.PublicKey()
		case "listen_port":
			var port uint64
			port, err = strconv.ParseUint(value, 10, 16)
			have.port = uint16(port)
		case "public_key":
			k, err = parseKey(value)
			have.peers[k] = wirePeer{}
		case "preshared_key":
			peer.shared, err = parseKey(value)
			have.peers[k] = peer
		case "endpoint":
			peer.at, err = netip.ParseAddrPort(value)
			have.peers[k] = peer
		case "last_handshake_time_sec":
			var since int64
			if since, err = strconv.ParseInt(value, 10, 64); since != 0 {
				peer.met = time.Unix(since, 0)
			}
			have.peers[k] = peer
		case "rx_bytes":
			peer.heard, err = strconv.ParseInt(value, 10, 64)
			have.peers[k] = peer
		case "allowed_ip":
			var prefix netip.Prefix
			prefix, err = netip.ParsePrefix(value)
			have.owner[prefix] = k
		}
		if err != nil {
			return nil, fmt.Errorf("a device's %s: %w", name, err)
		}
	}
	return have, nil
}

func parseKey(text string) (wgtypes.Key, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return wgtypes.Key{}, errors.New("it is no key") // without what it is
	}
	return wgtypes.NewKey(b)
}
