// Package etcd keeps the store's contract on etcd: on a member inside this process, or on somebody's own etcd.
//
// Every section of an object is a key of its own, /swarm/v1/<kind>/<id>/<section>, and every value is sealed with the
// swarm's data key before etcd sees it. A commit is one etcd transaction; the view is one paged load at one revision and
// one watch from there, so that a snapshot's revision is exactly etcd's.
//
// The package owns everything that touches etcd: the member's life, keys, sealing, the election, compaction and
// defragmentation. It never looks into what it stores, and no other package imports etcd.
package etcd
