package controllers_test

import (
	"testing"

	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile/reconciletest"
)

func TestScenarios(t *testing.T) {
	reconciletest.Run(t, "testdata/*.txtar", controllers.Pipelines())
}

// TestSuccessions kills a leader at each commit of each scenario, of rollouts, restarts, drains and all else.
func TestSuccessions(t *testing.T) {
	reconciletest.RunSuccessions(t, "testdata/*.txtar", controllers.Pipelines())
}
