// Command daprd is Dapr's sidecar with one component more: names that are resolved through a SQLite file.
//
// Without it, sidecars outside of Kubernetes find each other by multicast, which leaves loopback.
package main

import (
	"github.com/dapr/components-contrib/nameresolution/sqlite"
	"github.com/dapr/dapr/cmd/daprd/app"
	"github.com/dapr/dapr/pkg/components/nameresolution"
)

func main() {
	nameresolution.DefaultRegistry.RegisterComponent(sqlite.NewResolver, "sqlite")
	app.Run()
}
