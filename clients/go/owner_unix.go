//go:build unix

package sorteo

import (
	"os"
	"syscall"
)

func ownedByRoot(info os.FileInfo) bool {
	status, known := info.Sys().(*syscall.Stat_t)
	return known && status.Uid == 0
}
