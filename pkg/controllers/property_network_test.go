package controllers_test

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"

	v1 "github.com/swarmd/swarmd/pkg/api/v1"
	"github.com/swarmd/swarmd/pkg/reconcile/reconciletest"
)

// tiny has five addresses, wide has enough, and late is not there at first.
var networkNames = []string{"tiny", "wide", "late"}

// drawNetworks are networks, of which some have what no rule would have given them.
func drawNetworks(t *rapid.T, y *strings.Builder) {
	for _, name := range networkNames[:2] {
		subnet := map[string]string{"tiny": "10.1.0.0/29", "wide": "10.1.0.0/24"}[name]
		fmt.Fprintf(y, "---\nkind: Network\nmetadata: {name: %s}\nspec: {subnets: [{subnet: %s}]}\n", name, subnet)
		if rapid.Bool().Draw(t, "given") {
			fmt.Fprintf(y, "desired: {vni: 4096, subnets: [{subnet: %s, gateway: 10.1.0.1}]}\n", subnet)
		}
	}
}

// drawAttachments are the networks of a spec.
func drawAttachments(t *rapid.T) string {
	var list []string
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(networkNames), 0, 2, rapid.ID[string]).Draw(t, "networks") {
		list = append(list, fmt.Sprintf(`{"target":"%s"}`, name))
	}
	return "[" + strings.Join(list, ",") + "]"
}

// drawHeld are addresses, whoever else has them.
func drawHeld(t *rapid.T) string {
	var list []string
	for range rapid.IntRange(0, 2).Draw(t, "held") {
		list = append(list, fmt.Sprintf("{network: %s, addresses: [10.1.0.%d/%d]}", rapid.SampledFrom(networkNames).Draw(t, "on"),
			rapid.IntRange(0, 8).Draw(t, "address"), rapid.SampledFrom([]int{29, 24}).Draw(t, "bits")))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func drawVIPs(t *rapid.T) string {
	if on := drawHeld(t); on != "[]" {
		return "desired: {vips: " + on + "}\n"
	}
	return ""
}

// drawNetworkStep has a network come or go, whoever is on it.
func drawNetworkStep(t *rapid.T, w *reconciletest.World) string {
	name := rapid.SampledFrom(networkNames).Draw(t, "network")
	if _, err := w.Snapshot().Resolve(v1.KindNetwork, name); err == nil {
		return "network " + name + " remove"
	}
	if name == "tiny" {
		return "network tiny 10.1.0.0/29"
	}
	return "network " + name
}
