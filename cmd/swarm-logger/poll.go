package main

import "syscall"

// poller waits for any of a few descriptors. The runtime's own would need a goroutine, and a thread, for each.
type poller struct {
	epoll  int
	events [2]syscall.EpollEvent
	fds    [2]int32
}

func newPoller(fds ...int32) (*poller, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p := &poller{epoll: epoll}
	for _, fd := range fds {
		syscall.CloseOnExec(int(fd))
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: fd}
		if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, int(fd), &event); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// wait is the descriptors that can be read or have ended; none after that many milliseconds, of which -1 is no limit. The
// result is valid until the next call.
func (p *poller) wait(milliseconds int) ([]int32, error) {
	for {
		n, err := syscall.EpollWait(p.epoll, p.events[:], milliseconds)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i := range n {
			p.fds[i] = p.events[i].Fd
		}
		return p.fds[:n], nil
	}
}

func (p *poller) remove(fd int32) {
	// Closing alone does not take it out of the set while the shim has it open, too.
	_ = syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_DEL, int(fd), nil)
	_ = syscall.Close(int(fd))
}
