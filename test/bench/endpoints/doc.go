// Package endpoints measures what one change costs a node that knows ten thousand endpoints, in all: a real agent, network, resolver and state on
// disk, in a network namespace of its own, with containers that are only said to run. As root:
//
//	go test -run xxx -bench . ./test/bench/endpoints
package endpoints
