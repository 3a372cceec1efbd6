//go:build nodrain

package agent

const drains = false
