package v1

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// A tunnel leads from a user to a task's node, through the manager that holds the node's session: what is sent on either side are
// frames, which managers pass on without a look. The user's first frame says what for; the node's last one what came of it.

// FrameKind says what a frame holds.
type FrameKind byte

// The frames of a tunnel: those from the user, then those from the node.
const (
	FrameStart  FrameKind = 's' // a TunnelStart, as JSON
	FrameInput  FrameKind = 'i' // bytes of the input; none is its end
	FrameSize   FrameKind = 'w' // a WindowSize, as JSON
	FrameSignal FrameKind = 'k' // the name of a signal, such as SIGINT, to the process that the user is attached to
	FrameOutput FrameKind = 'o' // bytes of the output, or of the connection
	FrameErrors FrameKind = 'e' // bytes of the standard error
	FrameEnd    FrameKind = 'x' // a TunnelEnd, as JSON
)

// TunnelType is the content type of a tunnel's two bodies.
const TunnelType = "application/vnd.swarmd.frames"

// MaxFrame bounds what a frame holds, in bytes.
const MaxFrame = 64 << 10

// frameHeader is a frame's kind and, in four bytes, big end first, how much it holds.
const frameHeader = 5

// Tunnel is one end: what is written comes out at the other. It is for one reader and many writers, each of which writes whole frames.
type Tunnel interface {
	io.ReadWriteCloser
	// CloseWrite tells the other end that there is no more, and leaves what comes from there to be read.
	CloseWrite() error
}

// TunnelStart says what a tunnel is for: one of its fields is set.
type TunnelStart struct {
	Exec    *ExecStart    `json:"exec,omitempty"`
	Attach  *AttachStart  `json:"attach,omitempty"`
	Copy    *CopyStart    `json:"copy,omitempty"`
	Forward *ForwardStart `json:"forward,omitempty"`
	Blob    *BlobStart    `json:"blob,omitempty"`
	// Doctor, CheckVolume, RemoveVolume and InspectVolume are asked of a node itself: see NodeItself.
	Doctor        *DoctorStart        `json:"doctor,omitempty"`
	CheckVolume   *CheckVolumeStart   `json:"checkVolume,omitempty"`
	RemoveVolume  *RemoveVolumeStart  `json:"removeVolume,omitempty"`
	InspectVolume *InspectVolumeStart `json:"inspectVolume,omitempty"`
}

// OfNode tells whether it is asked of a node itself.
func (s *TunnelStart) OfNode() bool {
	return s.Doctor != nil || s.CheckVolume != nil || s.RemoveVolume != nil || s.InspectVolume != nil
}

// InspectVolumeStart asks what a volume of a node is like: a NodeVolume, as JSON in FrameOutput. One that is not there is an error.
type InspectVolumeStart struct {
	Name string `json:"name"`
}

// NodeVolume is what a volume of a node was made with, and where it is on that node.
type NodeVolume struct {
	Name       string            `json:"name"`
	Options    map[string]string `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	CreatedAt  time.Time         `json:"createdAt"`
	Mountpoint string            `json:"mountpoint"`
}

// CheckVolumeStart removes nothing: a volume that a container has is an error, as it would be for RemoveVolumeStart.
type CheckVolumeStart struct {
	Name string `json:"name"`
}

// RemoveVolumeStart removes a volume of a node, with all that is in it. One that a container has is an error; one that is not there is not.
type RemoveVolumeStart struct {
	Name string `json:"name"`
}

// MaxImageAgain is how often a node asks again for a part of an image where those that it was led to have it not.
const MaxImageAgain = 8

// BlobStart reads a part of a task's image.
type BlobStart struct {
	// Digest is that of a manifest, configuration or layer of it.
	Digest string `json:"digest"`
}

// ExecStart runs a command in a task's container.
type ExecStart struct {
	Command []string `json:"command"`
	// TTY gives it a terminal, whose output is one stream; Size is how large that is at the beginning.
	TTY  bool       `json:"tty,omitempty"`
	Size WindowSize `json:"size,omitzero"`
	// Stdin connects its input, which is else empty.
	Stdin bool `json:"stdin,omitempty"`
	// Env is added to the container's environment, User and Dir take the place of the container's.
	Env  []string `json:"env,omitempty"`
	User string   `json:"user,omitempty"`
	Dir  string   `json:"dir,omitempty"`
}

// AttachStart connects to the process that a task's container was made for.
type AttachStart struct {
	// Stdin connects its input, which the service has to have open. The end of what the user sends is not the end of that.
	Stdin bool `json:"stdin,omitempty"`
	// Size is that of the user's terminal, which the process's gets; nothing is left as it is.
	Size WindowSize `json:"size,omitzero"`
}

// CopyStart copies a file or a tree out of a task's container, which comes as a tar stream in FrameOutput, or into it, which goes as one in
// FrameInput. What is left out is told in FrameErrors.
type CopyStart struct {
	// Path is as the container sees it.
	Path string `json:"path"`
	To   bool   `json:"to,omitempty"`
	// Follow copies out what a link at the end of Path leads to.
	Follow bool `json:"follow,omitempty"`
	// Contents, Owners and Plain are of what is copied in: what is in a folder and not the folder itself; with the owners of the stream;
	// names of the stream as they are, into a folder.
	Contents bool `json:"contents,omitempty"`
	Owners   bool `json:"owners,omitempty"`
	Plain    bool `json:"plain,omitempty"`
}

// ForwardStart connects to a TCP port inside a task, at its loopback address.
type ForwardStart struct {
	Port uint16 `json:"port"`
}

// WindowSize is a terminal's, in characters.
type WindowSize struct {
	Rows    uint16 `json:"rows"`
	Columns uint16 `json:"columns"`
}

// TunnelEnd is what came of it: the command's exit code, or an error. Neither is a connection that was closed.
type TunnelEnd struct {
	ExitCode *int `json:"exitCode,omitempty"`
	// Invalid tells that the command could not be started as it stands.
	Invalid bool   `json:"invalid,omitempty"`
	Error   string `json:"error,omitempty"`
}

// WriteFrame writes a frame in one call. More than MaxFrame bytes is an error.
func WriteFrame(w io.Writer, kind FrameKind, data []byte) error {
	if len(data) > MaxFrame {
		return fmt.Errorf("a frame of %d bytes: at most %d are allowed", len(data), MaxFrame)
	}
	frame := make([]byte, frameHeader, frameHeader+len(data))
	frame[0] = byte(kind)
	binary.BigEndian.PutUint32(frame[1:], uint32(len(data)))
	_, err := w.Write(append(frame, data...))
	return err
}

// WriteFrameJSON writes a frame that holds a value as JSON.
func WriteFrameJSON(w io.Writer, kind FrameKind, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return WriteFrame(w, kind, data)
}

// ReadFrame reads a frame. What it returns is the caller's. The error is io.EOF where there are no more, and io.ErrUnexpectedEOF in the
// middle of one.
func ReadFrame(r io.Reader) (kind FrameKind, data []byte, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(header[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes: at most %d are allowed", n, MaxFrame)
	}
	data = make([]byte, n)
	if _, err := io.ReadFull(r, data); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return FrameKind(header[0]), data, nil
}

// FrameReader reads what a tunnel's frames of output hold, until its end: io.EOF where that is well, what it says else, and
// io.ErrUnexpectedEOF where the tunnel is over without one.
type FrameReader struct {
	From io.Reader
	// Errors takes what frames of errors hold; nil leaves it out.
	Errors io.Writer
	// Ended tells whether the end was read.
	Ended bool

	data []byte
	err  error
}

// Read implements io.Reader.
func (f *FrameReader) Read(p []byte) (int, error) {
	for len(f.data) == 0 && f.err == nil {
		f.next()
	}
	n := copy(p, f.data)
	if f.data = f.data[n:]; n > 0 {
		return n, nil
	}
	return 0, f.err
}

// next reads a frame.
func (f *FrameReader) next() {
	kind, data, err := ReadFrame(f.From)
	switch {
	case err == io.EOF:
		f.err = io.ErrUnexpectedEOF
	case err != nil:
		f.err = err
	case kind == FrameOutput:
		f.data = data
	case kind == FrameErrors && f.Errors != nil:
		_, _ = f.Errors.Write(data)
	case kind == FrameEnd:
		var end TunnelEnd
		if f.err = json.Unmarshal(data, &end); f.err != nil {
			return
		}
		if f.Ended, f.err = true, io.EOF; end.Error != "" {
			f.err = errors.New(end.Error)
		}
	}
}

// FrameWriter makes frames of a kind of what is written to it. To must take a whole Write at a time where several use it.
type FrameWriter struct {
	To   io.Writer
	Kind FrameKind
}

// Write implements io.Writer.
func (f FrameWriter) Write(data []byte) (n int, err error) {
	for len(data) > 0 {
		part := data[:min(len(data), MaxFrame)]
		if err := WriteFrame(f.To, f.Kind, part); err != nil {
			return n, err
		}
		n, data = n+len(part), data[len(part):]
	}
	return n, nil
}
