// Package wire is WireGuard in a process of its own, for kernels without it: one process for each encrypted network of a machine.
//
// Whoever starts it gives it a TUN device, in whatever network namespace that is, and a UDP port, which it opens in the namespace that
// it was started in. It has no keys and no peers until it is given them on its socket, in WireGuard's own configuration protocol. It
// outlives who started it, and it ends with its device: nothing can be sent by the one without the other.
package wire

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// Options say what a process is given.
type Options struct {
	// TUN is the device's descriptor, nonblocking from then on.
	TUN int
	// Ready is a pipe on which one byte tells that the socket answers; it is closed then.
	Ready int
	// Socket is where it is configured; it and its directory are for root alone. What is there is replaced.
	Socket string
	// Port is the UDP port, of all addresses of the machine.
	Port uint16
}

const (
	// portPatience is how long the port may be another's: that of one that was just killed, which the kernel still tidies up after. Who starts
	// the process waits for it, with all else that it has to do.
	portPatience = 200 * time.Millisecond
	portPause    = 10 * time.Millisecond
	// lookPause is between two looks at whether the socket is still this process's. Without one nobody could ever end it.
	lookPause = 10 * time.Second
	// mostWords bounds what one process says about what goes wrong, in lines.
	mostWords = 1000
	// lastKilled is all but one point of what keeps the kernel from ending a process when it is short of memory.
	lastKilled = "-999"
)

// PortTaken is the exit status of a process whose port is another program's.
const PortTaken = 2

// ExitStatus is that of a process whose life ended with the error of Run.
func ExitStatus(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, unix.EADDRINUSE):
		return PortTaken
	}
	return 1
}

// Run is the process's life: until its device goes, its socket is taken away, or it is told to end.
func Run(o Options) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE) // who started it may go, and the terminal with that
	syscall.Umask(0o077)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(lastKilled), 0) // it works without
	link, _, err := tun.CreateUnmonitoredTUNFromFD(o.TUN)
	if err != nil {
		return fmt.Errorf("take the device: %w", err)
	}
	bind := newUncrossed(conn.NewDefaultBind())
	d := device.NewDevice(unmeasured{link}, bind, words())
	defer d.Close()
	if err := up(d, o.Port); err != nil {
		return err
	}
	door, mine, err := listen(o.Socket)
	if err != nil {
		return err
	}
	defer func() { _ = door.Close() }()
	go serve(d, bind, door)
	if _, err := syscall.Write(o.Ready, []byte{0}); err != nil {
		return fmt.Errorf("tell who started it: %w", err)
	}
	if err := syscall.Close(o.Ready); err != nil {
		return fmt.Errorf("tell who started it: %w", err)
	}
	look := time.NewTicker(lookPause)
	defer look.Stop()
	for {
		select {
		case <-signals:
			return nil
		case <-d.Wait():
			return errors.New("the device is gone")
		case <-look.C:
			if now, err := os.Stat(o.Socket); err != nil || !os.SameFile(mine, now) {
				return errors.New("the socket is another's, or nobody's")
			}
		}
	}
}

// up opens the port, once it is free. The device forgets which one it was to be when it cannot open it, and would open any.
func up(d *device.Device, port uint16) error {
	for end := time.Now().Add(portPatience); ; time.Sleep(portPause) {
		err := d.IpcSet(fmt.Sprintf("listen_port=%d\n", port))
		if err == nil {
			err = d.Up()
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
			return fmt.Errorf("open UDP port %d: %w", port, err)
		}
	}
}

// listen makes the socket. It is not there before it answers.
func listen(path string) (*net.UnixListener, os.FileInfo, error) {
	// The name of a socket has 107 bytes, which a path may not fit into.
	dir, name := filepath.Split(path)
	if err := os.Chdir(dir); err != nil {
		return nil, nil, err
	}
	defer func() { _ = os.Chdir("/") }()
	made := name + ".new"
	if err := os.Remove(made); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", made)
	if err != nil {
		return nil, nil, err
	}
	door := l.(*net.UnixListener)
	door.SetUnlinkOnClose(false) // by then it may be another's
	if err := os.Rename(made, name); err != nil {
		return nil, nil, errors.Join(err, door.Close())
	}
	mine, err := os.Stat(name)
	if err != nil {
		return nil, nil, errors.Join(err, door.Close())
	}
	return door, mine, nil
}

// serve answers one after the other: there is one who has charge of it.
func serve(d *device.Device, bind *uncrossed, door *net.UnixListener) {
	for {
		c, err := door.Accept()
		if err != nil {
			d.Close()
			return
		}
		d.IpcHandle(c)
		if bind.own.Load() == nil { // it is given its key first, and has it for as long as it lives
			if public, err := publicKey(d); err == nil {
				bind.know(public)
			}
		}
	}
}

// publicKey is that of the private one that a device was given.
func publicKey(d *device.Device) (wgtypes.Key, error) {
	have, err := d.IpcGet()
	if err != nil {
		return wgtypes.Key{}, err
	}
	line, _, _ := strings.Cut(have, "\n")
	text, given := strings.CutPrefix(line, "private_key=")
	private, err := hex.DecodeString(text)
	if !given || err != nil || len(private) != wgtypes.KeyLen {
		return wgtypes.Key{}, errors.New("the device has no key yet")
	}
	return wgtypes.Key(private).PublicKey(), nil
}

// unmeasured is a device whose MTU is not known here: it is in another namespace, and changes. Packets are then filled up to a
// multiple of 16 bytes, so whoever sets the MTU makes it one.
type unmeasured struct{ tun.Device }

// MTU implements tun.Device.
func (unmeasured) MTU() (int, error) { return 0, nil }

// words are what the device tells of what goes wrong, to standard error, up to a limit.
func words() *device.Logger {
	var said atomic.Int32
	return &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf: func(format string, args ...any) {
			if said.Add(1) <= mostWords {
				fmt.Fprintf(os.Stderr, time.Now().UTC().Format(time.RFC3339)+" "+format+"\n", args...)
			}
		},
	}
}
