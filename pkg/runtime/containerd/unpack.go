package containerd

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
)

// brokenLayers are in what containerd says when what an image holds cannot be unpacked.
var brokenLayers = []string{"failed to extract layer", "mismatched image rootfs and manifest layers", "wrong diff id"}

// hostFaults are in what it says then, too, when it is this machine that cannot: another attempt may go well.
var hostFaults = []syscall.Errno{
	syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.EROFS, syscall.EBUSY,
}

// unpackDirs are the folders of this machine that a layer is unpacked to: a mount of containerd's, or the snapshot itself.
var unpackDirs = regexp.MustCompile(`[^\s:"]*(/containerd-mount[0-9]+|/io\.containerd\.snapshotter\.v1\.[a-z]+/snapshots/[0-9]+(/fs)?)`)

// explainUnpack tells an image that can be unpacked nowhere, which is runtime.ErrInvalid and names paths as they are in
// the image, from trouble of this machine.
func explainUnpack(err error) error {
	text := err.Error()
	in := func(part string) bool { return strings.Contains(text, part) }
	switch {
	case errdefs.IsUnavailable(err), errdefs.IsCanceled(err), errdefs.IsDeadlineExceeded(err),
		in(context.Canceled.Error()), in(context.DeadlineExceeded.Error()), // as text: it may have come over a wire
		slices.ContainsFunc(hostFaults, func(e syscall.Errno) bool { return in(e.Error()) }):
		return err
	case slices.ContainsFunc(brokenLayers, in):
		text = unpackDirs.ReplaceAllString(text, "")
		return &refusal{strings.ReplaceAll(text, "mount callback failed on : ", "")}
	}
	return explainPlatform(err)
}
