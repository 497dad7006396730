package sorteo

import "fmt"

const (
	helloRequest  = "HELLO"
	statusRequest = "STATUS"
)

func authRequest(agency uint32, token string) string {
	return fmt.Sprintf("AUTH|%d|%s", agency, token)
}

// batchHeader announces rows, each of which follows in a frame of its own.
func batchHeader(agency uint32, rows int, upload string, firstRow, draw int64) string {
	return fmt.Sprintf("BATCH|%d|%d|%s|%d|%d", agency, rows, upload, firstRow, draw)
}

func resumeRequest(agency uint32, upload string, draw int64) string {
	return fmt.Sprintf("RESUME|%d|%s|%d", agency, upload, draw)
}

func doneRequest(agency uint32, count, draw int64) string {
	return fmt.Sprintf("DONE|%d|%d|%d", agency, count, draw)
}

func waitRequest(agency uint32, milliseconds, draw int64) string {
	return fmt.Sprintf("WAIT_WINNERS|%d|%d|%d", agency, milliseconds, draw)
}

func pageRequest(agency uint32, after, draw int64) string {
	return fmt.Sprintf("GET_WINNERS|%d|%d|%d", agency, after, draw)
}
