package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"golang.org/x/sys/unix"
)

// refreshEvery is how soon a new certificate is used.
const refreshEvery = time.Second

// peerFiles are the certificates as etcd wants them: as files, which it reads again at each handshake. They are in memory only, so
// that the key is never on a disk.
type peerFiles struct {
	peer  *Peer
	pair  *memoryFile // the chain and its key
	roots *memoryFile
	stop  context.CancelFunc
	wait  sync.WaitGroup
}

func newPeerFiles(p *Peer) (*peerFiles, error) {
	chain, key, roots := p.Certificate()
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return nil, fmt.Errorf("store: etcd: the certificate for other members: %w", err)
	}
	f := &peerFiles{peer: p}
	var err error
	if f.pair, err = newMemoryFile("peer", pairOf(chain, key)); err != nil {
		return nil, err
	}
	if f.roots, err = newMemoryFile("roots", roots); err != nil {
		return nil, errors.Join(err, f.pair.close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	f.wait.Go(func() { f.refresh(ctx) })
	return f, nil
}

// pairOf is the chain and its key as one file: read one after the other, two would not always match. etcd reads it twice, so that a
// connection that is made in the moment of a renewal may fail, and is made again.
func pairOf(chain, key []byte) []byte {
	return slices.Concat(bytes.TrimSpace(chain), []byte("\n"), key)
}

func (f *peerFiles) refresh(ctx context.Context) {
	ticker := time.NewTicker(refreshEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			chain, key, _ := f.peer.Certificate()
			if _, err := tls.X509KeyPair(chain, key); err == nil {
				_ = f.pair.replace(pairOf(chain, key)) // else the one before goes on, and the next turn tries again
			}
		case <-ctx.Done():
			return
		}
	}
}

// tlsInfo is what etcd's transport wants.
func (f *peerFiles) tlsInfo() transport.TLSInfo {
	return transport.TLSInfo{
		CertFile: f.pair.path(), KeyFile: f.pair.path(), TrustedCAFile: f.roots.path(),
		ServerName: peerName, MinVersion: tls.VersionTLS13,
	}
}

func (f *peerFiles) close() error {
	f.stop()
	f.wait.Wait()
	return errors.Join(f.pair.close(), f.roots.close())
}

// memoryFile is a file without a disk, that can be opened by its path in this process.
type memoryFile struct {
	name    string
	fd      int
	content []byte
}

func newMemoryFile(name string, content []byte) (*memoryFile, error) {
	fd, err := writeMemory(name, content)
	if err != nil {
		return nil, err
	}
	return &memoryFile{name, fd, content}, nil
}

func writeMemory(name string, content []byte) (int, error) {
	fd, err := unix.MemfdCreate("swarmd-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("store: etcd: file in memory: %w", err)
	}
	for rest := content; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			return -1, fmt.Errorf("store: etcd: file in memory: %w", errors.Join(err, unix.Close(fd)))
		}
		rest = rest[n:]
	}
	return fd, nil
}

func (f *memoryFile) path() string { return fmt.Sprintf("/proc/self/fd/%d", f.fd) }

// replace puts another content under the same path at one moment: who reads sees the one or the other.
func (f *memoryFile) replace(content []byte) error {
	if bytes.Equal(content, f.content) {
		return nil
	}
	fd, err := writeMemory(f.name, content)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Dup3(fd, f.fd, unix.O_CLOEXEC), unix.Close(fd)); err != nil {
		return fmt.Errorf("store: etcd: file in memory: %w", err)
	}
	f.content = content
	return nil
}

func (f *memoryFile) close() error { return unix.Close(f.fd) }

// setVersions marks a request as one of a member.
func setVersions(h http.Header) {
	h.Set("X-Server-Version", version.Version)
	h.Set("X-Min-Cluster-Version", version.MinClusterVersion)
}
