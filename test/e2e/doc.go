// Package e2e runs the real daemons in a lab of namespaces: a real etcd, a real containerd, real packets. Its tests are
// named by theme, and need root and what "make build runtime e2e-images" builds.
package e2e
