package agent

import (
	"slices"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
)

// Logins to registries come with the tasks whose images they are for, and go with the last of those. The agent has them in memory alone:
// each pull uses the one that a manager sent last.

// takeLogins takes what a message says of them, and tells whether they are others than before.
func (a *Agent) takeLogins(m v1.Assignment) (renewed bool) {
	if !m.Complete && m.Logins == nil {
		return false
	}
	renewed = !slices.Equal(a.logins, m.Logins)
	a.logins = m.Logins
	return renewed
}

// loginFor is the login for an image, or none.
func (a *Agent) loginFor(image string) v1.RegistryLogin {
	ref, err := v1.ParseImageReference(image)
	if err != nil {
		return v1.RegistryLogin{}
	}
	var found v1.RegistryLogin
	v1.MatchLogin(ref.Repository(), func(name string) bool {
		for _, l := range a.logins {
			if l.Server == name {
				found = l
			}
		}
		return found.Server != ""
	})
	return found
}

// A task that follows one whose image was refused begins like any other, with its image, and not after the delay of its restart policy,
// which is for its start. So that no registry is asked for what it refuses as fast as tasks can be made, it waits here.

// maxRefused bounds what is remembered of images that were refused.
const maxRefused = 256

// noteRefusal takes note of what came of a pull.
func (a *Agent) noteRefusal(ref string, err error) {
	delete(a.refused, ref)
	if err == nil || !final(err) {
		return
	}
	if len(a.refused) >= maxRefused {
		clear(a.refused)
	}
	a.refused[ref] = "pulling " + ref + ": " + err.Error()
}

// waitsForImage tells whether a task's image was refused, and the task is not to be started yet.
func (a *Agent) waitsForImage(t *task, ref string) bool {
	after := t.assigned.Desired.StartAfter
	why, refused := a.refused[ref]
	if !refused || !a.o.Now().Before(after) {
		return false
	}
	a.observe(t, v1.TaskPreparing, "preparing", why+"; trying again")
	a.timers.add(after, t.id)
	return true
}

// lookAgain has those try again that a registry refused: it may not refuse another login.
func (a *Agent) lookAgain(changed map[*task]bool) {
	clear(a.refused)
	for _, t := range a.tasks {
		if t.phase == phaseNew && t.pulling == nil {
			changed[t] = true
		}
	}
}
