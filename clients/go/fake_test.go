package sorteo

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fakeServer keeps the rows of one upload in memory. A test can answer any request in its place.
type fakeServer struct {
	address string
	// intercept may reply to a request itself, and then returns true. For a batch, it is called with the header. It is
	// not called twice at the same time.
	intercept    func(request string, connection net.Conn) bool
	intercepting sync.Mutex

	mu          sync.Mutex
	rows        []string
	connections []net.Conn
	handlers    sync.WaitGroup
}

func startFake(t *testing.T, intercept func(request string, connection net.Conn) bool) *fakeServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startFakeOn(t, listener, intercept)
}

func startFakeOn(t *testing.T, listener net.Listener, intercept func(request string, connection net.Conn) bool) *fakeServer {
	fake := &fakeServer{address: listener.Addr().String(), intercept: intercept}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			fake.mu.Lock()
			fake.connections = append(fake.connections, connection)
			fake.mu.Unlock()
			fake.handlers.Add(1)
			go func() {
				defer fake.handlers.Done()
				defer connection.Close()
				fake.serve(connection)
			}()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-accepting
		for _, connection := range fake.connections {
			connection.Close()
		}
		fake.handlers.Wait()
	})
	return fake
}

func (f *fakeServer) serve(connection net.Conn) {
	for {
		request, err := readRequest(connection)
		if err != nil {
			return
		}
		fields := strings.Split(request, "|")
		if f.intercepted(request, connection) {
			continue
		}
		switch fields[0] {
		case "AUTH":
			write(connection, "ACK|OK")
		case "HELLO":
			write(connection, "HELLO|OK|1|waits,uploads,draws,tomorrow,pages")
		case "STATUS":
			write(connection, "STATUS|OK|5|open|0|1|0")
		case "RESUME":
			write(connection, fmt.Sprintf("RESUME|OK|%d", len(f.stored())))
		case "BATCH":
			rows, err := readRows(connection, fields)
			if err != nil {
				return
			}
			write(connection, f.store(fields, rows))
		case "DONE":
			write(connection, "ACK_DONE|OK")
		case "WAIT_WINNERS":
			write(connection, "WINNERS|OK|1,2|17")
		case "GET_WINNERS":
			write(connection, "WINNERS|OK|3|")
		}
	}
}

func (f *fakeServer) intercepted(request string, connection net.Conn) bool {
	f.intercepting.Lock()
	defer f.intercepting.Unlock()
	return f.intercept != nil && f.intercept(request, connection)
}

func (f *fakeServer) store(header, rows []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first, _ := strconv.Atoi(header[4]); first != len(f.rows) {
		return fmt.Sprintf("ACK_BATCH|ERR|%d|gap|%d", len(rows), len(f.rows))
	}
	f.rows = append(f.rows, rows...)
	return fmt.Sprintf("ACK_BATCH|OK|%d", len(rows))
}

func (f *fakeServer) stored() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.rows...)
}

func (f *fakeServer) connected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.connections)
}

// readRequest reads a request, which has no line ending.
func readRequest(connection net.Conn) (string, error) {
	line := make([]byte, frameHeader)
	if _, err := readFull(connection, line); err != nil {
		return "", err
	}
	length := int(line[2])<<8 | int(line[3])
	line = make([]byte, length)
	_, err := readFull(connection, line)
	return string(line), err
}

func readFull(connection net.Conn, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = connection.Read(p[n:])
		n += more
	}
	if n == len(p) {
		return n, nil
	}
	return n, err
}

// readRows reads the rows that a header announces.
func readRows(connection net.Conn, header []string) ([]string, error) {
	count, err := strconv.Atoi(header[2])
	if err != nil {
		return nil, err
	}
	var rows []string
	for len(rows) < count {
		row, err := readRequest(connection)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func write(connection net.Conn, line string) {
	connection.Write(appendFrame(nil, line+"\n"))
}

// someBets returns bets that are all different.
func someBets(count int) Bets {
	bets := make(Bets, count)
	for i := range bets {
		bets[i] = Bet{"Ana", "Paz", strconv.Itoa(30000000 + i), "1999-03-17", uint32(i % 1000)}
	}
	return bets
}

// canonical returns the rows as the server is to receive them.
func canonical(bets Bets) []string {
	var rows []string
	for _, bet := range bets {
		rows = append(rows, string(bet.appendCanonical(nil)))
	}
	return rows
}

func newClient(address string) *Client {
	return &Client{Address: address, Agency: 1, BatchRows: 10, GiveUpAfter: time.Minute}
}
