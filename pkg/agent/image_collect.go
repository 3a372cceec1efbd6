package agent

import (
	"cmp"
	"context"
	"slices"
	"time"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	engine "github.com/swarmd/swarmd/pkg/runtime"
)

// Images that no task of this node needs are removed when the disk that they are on gets full, those first that were used the longest ago.
// What people loaded stays: no registry has it.

// collectEvery is how often the disk is looked at. A pull that fills it up in between fails, and is tried again.
const collectEvery = time.Minute

// collectImages is a worker.
func (a *Agent) collectImages() {
	for sleep(a.ctx, collectEvery) {
		if err := a.collectOnce(a.ctx); err != nil && a.ctx.Err() == nil {
			a.log.Warn("cannot look after the disk of images", "err", err)
		}
	}
}

// collectOnce removes images until the disk is below the low mark, if it is above the high one.
func (a *Agent) collectOnce(ctx context.Context) error {
	marks := a.marks.Load().OrDefault()
	disk, err := a.o.Runtime.ImageDisk(ctx)
	if err != nil || !above(disk, marks.High) {
		return err
	}
	began := disk
	for removed := 0; above(disk, marks.Low); removed++ {
		images, err := a.o.Runtime.Images(ctx)
		if err != nil {
			return err
		}
		name, ok := a.beginRemoval(images)
		if !ok {
			a.log.Warn("the disk of images is above its mark, and tasks need all of them", "used", disk.Used, "size", disk.Size, "high", marks.High, "removed", removed)
			return nil
		}
		err = a.o.Runtime.RemoveImage(ctx, name)
		a.post(a.endRemoval)
		if err != nil {
			return err
		}
		before := disk.Used
		if disk, err = a.o.Runtime.ImageDisk(ctx); err != nil {
			return err
		}
		freed := max(0, before-disk.Used)
		a.log.Info("removed an image that no task needs", "image", name, "freed", freed)
		if a.o.Collected != nil {
			a.o.Collected(freed)
		}
	}
	a.log.Info("the disk of images is below its mark again", "before", began.Used, "used", disk.Used, "size", disk.Size)
	return nil
}

// above tells whether a disk is fuller than so many percent. One of which nothing is known is not.
func above(d engine.Disk, percent uint32) bool {
	return percent < 100 && float64(d.Used)*100 > float64(d.Size)*float64(percent)
}

// beginRemoval chooses an image, and holds up new pulls until its removal has ended: one that finds it here must not find it gone a
// moment later. Those that are under way are of images that tasks need.
func (a *Agent) beginRemoval(images []engine.Image) (name string, ok bool) {
	done := make(chan struct{})
	if !a.post(func() {
		defer close(done)
		if !a.adopted {
			return
		}
		if name, ok = oldestUnused(images, a.neededImages()); ok {
			a.removing = true
		}
	}) {
		return "", false
	}
	select {
	case <-done:
		return name, ok
	case <-a.quit:
		return "", false
	}
}

// endRemoval lets the pulls go on that were held up.
func (a *Agent) endRemoval() {
	a.removing = false
	waiting := make(map[*task]bool)
	for _, t := range a.tasks {
		if t.phase == phaseNew {
			waiting[t] = true
		}
	}
	for _, t := range sorted(waiting) {
		a.advance(t)
	}
}

// neededImages are the names of those that tasks are made of or are to be.
func (a *Agent) neededImages() map[string]bool {
	needed := make(map[string]bool)
	for _, t := range a.tasks {
		if t.gone && t.phase >= phaseRemoved || !t.wanted && t.phase >= phaseRemoved {
			continue
		}
		needed[t.image] = true
		if t.revision == nil {
			continue
		}
		image := t.spec().Container.Image
		needed[image] = true
		if ref, err := v1.ParseImageReference(image); err == nil {
			if ref.Digest != "" {
				ref.Tag = "" // which the runtime leaves out
			}
			needed[ref.String()] = true
		}
	}
	return needed
}

// oldestUnused is the image that is to go first: nobody needs it, nor the same content by another name.
func oldestUnused(images []engine.Image, needed map[string]bool) (name string, ok bool) {
	content := make(map[string]bool)
	for _, i := range images {
		if needed[i.Name] || i.Loaded {
			content[i.Digest] = true
		}
	}
	left := slices.DeleteFunc(slices.Clone(images), func(i engine.Image) bool { return content[i.Digest] })
	if len(left) == 0 {
		return "", false
	}
	oldest := slices.MinFunc(left, func(x, y engine.Image) int { return cmp.Or(x.Used.Compare(y.Used), cmp.Compare(x.Name, y.Name)) })
	return oldest.Name, true
}
