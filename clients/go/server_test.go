package sorteo

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// program returns the path of the server, which the tests need.
func program(t *testing.T) string {
	t.Helper()
	path := os.Getenv("SORTEO_BIN")
	if path == "" {
		path = filepath.Join("..", "..", "target", "release", "sorteo")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("these tests need the server: build it, or set SORTEO_BIN: %v", err)
	}
	return path
}

// A realServer is a process of the server, and its database.
type realServer struct {
	t         *testing.T
	program   string
	directory string
	address   string // the same after a restart
	agencies  string
	flags     []string
	process   *exec.Cmd
	ended     chan struct{} // closed when the process has ended
}

func startServer(t *testing.T, agencies string, flags ...string) *realServer {
	t.Helper()
	s := &realServer{t: t, program: program(t), directory: t.TempDir(), address: "127.0.0.1:0", agencies: agencies, flags: flags}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the end of the server's log:\n%s", lastLines(s.log(), 20))
		}
	})
	s.start()
	return s
}

func (s *realServer) database() string { return filepath.Join(s.directory, "x.db") }

// start starts the process and waits until it listens.
func (s *realServer) start() {
	s.t.Helper()
	ready := filepath.Join(s.directory, "ready")
	os.Remove(ready)
	flags := append([]string{"serve", "--listen", s.address, "--agencies", s.agencies, "--ready-file", ready}, s.flags...)
	s.process = s.command(flags...)
	log, err := os.OpenFile(filepath.Join(s.directory, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.process.Stderr = log
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	process, ended := s.process, make(chan struct{})
	s.ended = ended
	go func() {
		process.Wait()
		close(ended)
	}()
	eventually(s.t, "the server listens", func() bool {
		select {
		case <-ended:
			s.t.Fatal("the server ended")
		default:
		}
		text, _ := os.ReadFile(ready)
		if !strings.HasSuffix(string(text), "\n") {
			return false
		}
		s.address = strings.TrimSuffix(string(text), "\n")
		return true
	})
}

// kill kills the process, without giving it time to finish anything.
func (s *realServer) kill() {
	if s.ended == nil {
		return
	}
	s.process.Process.Kill()
	<-s.ended
}

func (s *realServer) log() string {
	text, _ := os.ReadFile(filepath.Join(s.directory, "log"))
	return string(text)
}

// command returns a command of the server's program on the database. It must not see the variables of the tests, since
// it refuses variables that it does not know.
func (s *realServer) command(arguments ...string) *exec.Cmd {
	command := exec.Command(s.program, append(arguments, "--database", s.database())...)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "SORTEO_") {
			command.Env = append(command.Env, variable)
		}
	}
	return command
}

// run runs a command of the server's program on the database.
func (s *realServer) run(arguments ...string) string {
	s.t.Helper()
	command := s.command(arguments...)
	var problem bytes.Buffer
	command.Stderr = &problem
	output, err := command.Output()
	if err != nil {
		s.t.Fatalf("%v: %v: %s", arguments, err, problem.String())
	}
	return string(output)
}

// bets returns what is stored for an agency in a draw, in the order in which it was stored.
func (s *realServer) bets(agency uint32, draw int64) Bets {
	s.t.Helper()
	output := s.run("export", "bets", "--format", "jsonl",
		"--agency", strconv.FormatUint(uint64(agency), 10), "--draw", strconv.FormatInt(draw, 10))
	var bets Bets
	for decoder := json.NewDecoder(strings.NewReader(output)); ; {
		var bet betMeaning
		err := decoder.Decode(&bet)
		if err == io.EOF {
			return bets
		}
		if err != nil {
			s.t.Fatal(err)
		}
		bets = append(bets, bet.bet())
	}
}

// expectStored compares what is stored in the first draw.
func (s *realServer) expectStored(agency uint32, bets Bets) {
	s.t.Helper()
	if stored := s.bets(agency, 1); !reflect.DeepEqual(stored, bets) {
		s.t.Errorf("agency %d: %d bets are stored, %d were uploaded, or in another order", agency, len(stored), len(bets))
	}
}

func (s *realServer) client() *Client { return newClient(s.address) }

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func lastLines(text string, count int) string {
	lines := strings.SplitAfter(text, "\n")
	if len(lines) > count {
		lines = lines[len(lines)-count:]
	}
	return strings.Join(lines, "")
}

func newestDraw(t *testing.T, client *Client) *Draw {
	t.Helper()
	draw, err := client.NewestDraw(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return draw
}
