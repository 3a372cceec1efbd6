package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// A node whose registry is away has an image from another node that runs it. The managers lead one to the other, and let nobody ask who has
// no task with that image; the runtime takes nothing but what the digest says.

// maxGiven is how many parts of images a node gives to others at once.
const maxGiven = 4

// askPeers is a part of an image as another node has it.
func (a *Agent) askPeers(ctx context.Context, image, digest string) (io.ReadCloser, error) {
	from, err := a.o.Manager.Image(ctx, image, digest)
	if err != nil {
		return nil, err
	}
	return &blobReader{from: from}, nil
}

// blobReader reads what is in the frames of a tunnel.
type blobReader struct {
	from v1.Tunnel
	data []byte
	err  error
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	for len(b.data) == 0 && b.err == nil {
		kind, data, err := v1.ReadFrame(b.from)
		var end v1.TunnelEnd
		switch {
		case errors.Is(err, io.EOF):
			b.err = io.ErrUnexpectedEOF
		case err != nil:
			b.err = err
		case kind == v1.FrameOutput:
			b.data = data
		case kind != v1.FrameEnd:
		case json.Unmarshal(data, &end) != nil:
			b.err = io.ErrUnexpectedEOF
		case end.Error != "":
			b.err = errors.New(end.Error)
		default:
			b.err = io.EOF
		}
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	if n > 0 {
		return n, nil
	}
	return 0, b.err
}

// Close implements io.Closer.
func (b *blobReader) Close() error { return b.from.Close() }

// giveImage gives another node a part of the image that a task of this node runs, and nothing else.
func (a *Agent) giveImage(s v1.StreamRequest) {
	t := a.tasks[s.Task]
	image := ""
	if t != nil && t.phase >= phaseStarted && t.phase < phaseEnded && t.revision != nil {
		image = t.image
		if image == "" { // it was taken over from an earlier process
			image = t.spec().Container.Image
		}
	}
	full := a.giving >= maxGiven
	a.giving++
	ctx, cancel := context.WithCancel(a.ctx)
	a.streams[s.ID] = cancel
	a.workers.Go(func() {
		defer cancel()
		defer a.post(func() { delete(a.streams, s.ID); a.giving-- })
		to, err := a.o.Manager.Tunnel(ctx, s.ID)
		if err != nil {
			a.log.Debug("tunnel not opened", "task.id", s.Task, "err", err)
			return
		}
		defer to.Close()
		var end v1.TunnelEnd
		switch {
		case full:
			end.Error = fmt.Sprintf("the node gives parts of images to %d others already", maxGiven)
		case image == "":
			end.Error = "the task does not run"
		default:
			end = a.giveBlob(ctx, image, to)
		}
		_ = v1.WriteFrameJSON(to, v1.FrameEnd, end) // who is gone needs no answer
		_ = to.CloseWrite()
		_, _ = io.Copy(io.Discard, to)
	})
}

// giveBlob sends what the first frame asks for, if it is a part of the image.
func (a *Agent) giveBlob(ctx context.Context, image string, to v1.Tunnel) v1.TunnelEnd {
	slow := time.AfterFunc(tunnelStart, func() { _ = to.Close() })
	kind, data, err := v1.ReadFrame(to)
	slow.Stop()
	var start v1.TunnelStart
	if err == nil {
		err = json.Unmarshal(data, &start)
	}
	if err != nil || kind != v1.FrameStart || start.Blob == nil {
		return v1.TunnelEnd{Error: "this tunnel is for parts of an image alone"}
	}
	content, err := a.o.Runtime.Content(ctx, image, start.Blob.Digest)
	if err != nil {
		return v1.TunnelEnd{Error: forPeople.Replace(err.Error())}
	}
	defer content.Close()
	if _, err := io.Copy(v1.FrameWriter{To: to, Kind: v1.FrameOutput}, content); err != nil {
		return v1.TunnelEnd{Error: "the part of the image could not be read whole"}
	}
	return v1.TunnelEnd{}
}
