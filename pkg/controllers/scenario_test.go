package controllers_test

import (
	"testing"

	"github.com/swarmd/swarmd/pkg/controllers"
	"github.com/swarmd/swarmd/pkg/reconcile/reconciletest"
)

func TestScenarios(t *testing.T) {
	reconciletest.Run(t, "testdata/*.txtar", controllers.Pipelines())
}
