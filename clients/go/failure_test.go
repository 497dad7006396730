package sorteo

import (
	"bufio"
	"errors"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestServerKilled kills the server several times under an upload, each time with batches in flight.
func TestServerKilled(t *testing.T) {
	const kills = 5
	server := startServer(t, "1")
	client := server.client()
	client.BatchRows = 50
	draw := newestDraw(t, client)
	bets := someBets(60000)
	killed, refused := int64(0), 0
	client.Observer.Stored = func(rows, total int64) {
		if killed < kills && refused == 0 && rows >= total*(killed+1)/(kills+1) {
			killed++
			server.kill()
		}
	}
	client.Observer.Retrying = func(error, time.Duration) {
		if refused++; refused == 3 { // The first attempts find nobody listening.
			server.start()
			refused = 0
		}
	}
	if _, err := draw.Upload(ctx, bets); err != nil {
		t.Fatal(err)
	}
	if err := draw.Done(ctx, int64(len(bets))); err != nil {
		t.Error(err)
	}
	server.expectStored(1, bets)
	if killed != kills {
		t.Errorf("the server was killed %d times", killed)
	}
}

// TestClientKilled kills the process of the agency at random points and starts it again, until one succeeds.
func TestClientKilled(t *testing.T) {
	const kills = 10
	seed := seed(t)
	random := rand.New(rand.NewSource(seed))
	server := startServer(t, "1")
	agency := filepath.Join(t.TempDir(), "agency")
	if output, err := exec.Command("go", "build", "-o", agency, "./cmd/agency").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	bets := someBets(100000)
	var text strings.Builder
	for _, bet := range bets {
		text.WriteString(strings.ReplaceAll(string(bet.appendCanonical(nil)), "|", ",") + "\n")
	}
	file := writeFile(t, text.String())
	started := func() (*exec.Cmd, *bufio.Scanner) {
		process := exec.Command(agency, "-server", server.address, "-agency", "1", "-file", string(file), "-draw", "1")
		output, err := process.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Start(); err != nil {
			t.Fatal(err)
		}
		return process, bufio.NewScanner(output)
	}
	for kill := 0; kill < kills; kill++ {
		process, progress := started()
		for lines := random.Intn(20); lines > 0 && progress.Scan(); lines-- {
		}
		process.Process.Kill()
		process.Wait()
	}
	process, progress := started()
	for progress.Scan() {
	}
	if err := process.Wait(); err != nil {
		t.Error(err)
	}
	server.expectStored(1, bets)
}

// seed returns that of SORTEO_SEED or a new one, and shows it if the test fails.
func seed(t *testing.T) int64 {
	seed, err := strconv.ParseInt(os.Getenv("SORTEO_SEED"), 10, 64)
	if err != nil {
		seed = time.Now().UnixNano()
	}
	t.Logf("SORTEO_SEED=%d", seed)
	return seed
}

// TestConnectionCut cuts the first connection of an upload after each number of bytes received, and many numbers of
// bytes sent.
func TestConnectionCut(t *testing.T) {
	const parallel = 32
	server := startServer(t, "100000")
	bets := someBets(45)
	type cut struct{ sent, received int }
	var cuts []cut
	for sent := 0; sent < 2000; sent += 13 {
		cuts = append(cuts, cut{sent, unlimited})
	}
	for received := 0; received < 98; received++ {
		cuts = append(cuts, cut{unlimited, received})
	}
	next := make(chan int)
	var uploads sync.WaitGroup
	for i := 0; i < parallel; i++ {
		uploads.Add(1)
		go func() {
			defer uploads.Done()
			for agency := range next {
				cut := cuts[agency]
				client, retries := server.client(), 0
				client.Agency = uint32(agency)
				client.Address = startProxy(t, server.address, cut.sent, cut.received)
				client.Observer.Retrying = func(error, time.Duration) { retries++ }
				draw := &Draw{Number: 1, client: client}
				if _, err := draw.Upload(ctx, bets); err != nil || retries == 0 {
					t.Errorf("cut after %+v: %d retries, %v", cut, retries, err)
				}
			}
		}()
	}
	for agency := range cuts {
		next <- agency
	}
	close(next)
	uploads.Wait()
	for agency := range cuts {
		server.expectStored(uint32(agency), bets)
	}
}

// TestStalledConnection has a proxy that stops passing bytes on, and does not close anything.
func TestStalledConnection(t *testing.T) {
	server := startServer(t, "1")
	bets := someBets(20000)
	client := server.client()
	client.GiveUpAfter = time.Second
	client.Address = startStallingProxy(t, server.address, 100000)
	var unreachable *UnreachableError
	draw := &Draw{Number: 1, client: client}
	if _, err := draw.Upload(ctx, bets); !errors.As(err, &unreachable) {
		t.Error(err)
	}
	if stored := server.bets(1, 1); len(stored) == 0 || len(stored) == len(bets) {
		t.Errorf("%d bets are stored", len(stored))
	}

	client.Address = startStallingProxy(t, server.address, 100000)
	client.GiveUpAfter, client.ReplyTimeout = time.Minute, time.Second/10
	client.Observer.Retrying = func(err error, _ time.Duration) { client.Observer.Retrying = nil }
	if _, err := draw.Upload(ctx, bets); err != nil {
		t.Error(err)
	}
	server.expectStored(1, bets)
}

// unlimited is a limit that no test reaches.
const unlimited = 1 << 40

// startProxy passes bytes on, and closes the first connection after a number of bytes in either direction.
func startProxy(t *testing.T, server string, sent, received int) string {
	return listen(t, func(connection int, client, upstream net.Conn) {
		sent, received := sent, received
		if connection > 0 {
			sent, received = unlimited, unlimited
		}
		done := make(chan struct{}, 2)
		pass := func(dst, src net.Conn, limit int) {
			io.CopyN(dst, src, int64(limit))
			done <- struct{}{}
		}
		go pass(upstream, client, sent)
		go pass(client, upstream, received)
		<-done
		client.Close()
		upstream.Close()
		<-done
	}, server)
}

// startStallingProxy passes on a number of bytes to the server in each connection, and then nothing.
func startStallingProxy(t *testing.T, server string, sent int64) string {
	return listen(t, func(_ int, client, upstream net.Conn) {
		go io.CopyN(upstream, client, sent)
		io.Copy(client, upstream)
	}, server)
}

// listen handles each connection to a new address together with one to the server, and closes both at the end.
func listen(t *testing.T, handle func(connection int, client, upstream net.Conn), server string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for connection := 0; ; connection++ {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			t.Cleanup(func() { client.Close(); upstream.Close() })
			go handle(connection, client, upstream)
		}
	}()
	return listener.Addr().String()
}
