package agent

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// A node whose registry is away has an image from another node that runs it, or ran it. The managers lead one to the other, and let nobody ask who has
// no task with that image; the runtime takes nothing but what the digest says.

// maxGiven is how many parts of images a node gives to others at once.
const maxGiven = 4

// askPeers is a part of an image as another node has it: the first that gives any of it.
func (a *Agent) askPeers(ctx context.Context, image, digest string) (io.ReadCloser, error) {
	var refused error
	for again := range v1.MaxImageAgain + 1 {
		from, err := a.o.Manager.Image(ctx, image, digest, again)
		if err != nil { // there are no more
			return nil, cmp.Or(refused, err)
		}
		frames := &v1.FrameReader{From: from}
		body := bufio.NewReader(frames)
		_, err = body.Peek(1)
		if err == nil || err == io.EOF {
			return struct {
				io.Reader
				io.Closer
			}{body, from}, nil
		}
		_ = from.Close()
		if refused = err; ctx.Err() != nil {
			break
		}
	}
	return nil, refused
}

// giveImage gives another node a part of the image that a task of this node runs, or ran and left here, and nothing else.
func (a *Agent) giveImage(s v1.StreamRequest) {
	t := a.tasks[s.Task]
	image := ""
	if t != nil && t.revision != nil {
		image = t.image
		if image == "" { // it was taken over from an earlier process
			image = t.spec().Container.Image
		}
	}
	refusal := ""
	switch {
	case a.giving >= maxGiven:
		refusal = fmt.Sprintf("the node gives parts of images to %d others already", maxGiven)
	case image == "":
		refusal = "the task is not known here"
	}
	a.giving++
	a.openTunnel(s, refusal, func() { a.giving-- }, func(ctx context.Context, _ context.CancelFunc, to v1.Tunnel) v1.TunnelEnd {
		return a.giveBlob(ctx, image, to)
	})
}

// giveBlob sends what the first frame asks for, if it is a part of the image.
func (a *Agent) giveBlob(ctx context.Context, image string, to v1.Tunnel) v1.TunnelEnd {
	start, err := readStart(to)
	if err != nil || start.Blob == nil {
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
