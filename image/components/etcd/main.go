// etcd and its two tools in one binary: the name it is called by says which one it is.
package main

import (
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/etcdctl/v3/ctlv3"
	"go.etcd.io/etcd/etcdutl/v3/etcdutl"
	"go.etcd.io/etcd/server/v3/etcdmain"

	"github.com/spf13/cobra"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case "etcdctl":
		ctlv3.MustStart()
	case "etcdutl":
		command := &cobra.Command{Use: "etcdutl", Short: "Works on etcd's data files while etcd does not run."}
		command.PersistentFlags().StringVarP(&etcdutl.OutputFormat, "write-out", "w", "simple", "fields, json, protobuf, simple or table")
		command.AddCommand(
			etcdutl.NewDefragCommand(),
			etcdutl.NewSnapshotCommand(),
			etcdutl.NewHashKVCommand(),
			etcdutl.NewVersionCommand(),
		)
		if command.Execute() != nil {
			os.Exit(1)
		}
	default:
		settle(100 * time.Millisecond)
		etcdmain.Main(os.Args)
	}
}
