// Package dnsplugin answers the names of services and tasks to the tasks of this machine, as a plugin of CoreDNS, and has CoreDNS ask
// others for the rest.
//
// It owns the resolver of one machine and its answers. It never decides a name or an address, never reads the store, and never tells a
// task of a network that it is not on.
package dnsplugin
