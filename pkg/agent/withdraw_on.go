//go:build !nodrain

package agent

// drains says that a task which is to stop is taken out of names and ports before its stop signal. Only a build for the test that shows what
// is lost without (tag nodrain) says otherwise.
const drains = true
