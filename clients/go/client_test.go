package sorteo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

var ctx = context.Background()

func testDraw(client *Client) *Draw { return &Draw{Number: 5, client: client} }

func TestAWholeDraw(t *testing.T) {
	fake := startFake(t, nil)
	client := newClient(fake.address)
	draw, err := client.NewestDraw(ctx)
	if err != nil || draw.Number != 5 {
		t.Fatal(draw, err)
	}
	bets := someBets(95)
	receipt, err := draw.Upload(ctx, bets)
	if err != nil || receipt.Rows != 95 {
		t.Fatal(receipt, err)
	}
	if !reflect.DeepEqual(fake.stored(), canonical(bets)) {
		t.Error("other rows were stored")
	}
	if err := draw.Done(ctx, receipt.Rows); err != nil {
		t.Error(err)
	}
	winners, err := draw.Winners(ctx)
	if err != nil || !reflect.DeepEqual(winners, []string{"1", "2", "3"}) {
		t.Error(winners, err)
	}
}

// TestTemporaryRefusals refuses one request of each kind once, and expects that the client asks again.
func TestTemporaryRefusals(t *testing.T) {
	for _, refusal := range []struct{ request, reply string }{
		{"HELLO", "HELLO|ERR|busy"},
		{"STATUS", "STATUS|ERR|unavailable"},
		{"RESUME|", "RESUME|ERR|unavailable"},
		{"BATCH|1|10|", "ACK_BATCH|ERR|10|busy"},
		{"BATCH|1|10|", "ACK|ERR|busy"},
		{"BATCH|1|10|", "ACK_BATCH|ERR|10|storage_full"},
		{"BATCH|1|10|", "ACK_BATCH|ERR|10|gap|0"},
		{"BATCH|1|10|", "ACK_BATCH|ERR|10|conflict"},
		{"BATCH|1|5|", "ACK_BATCH|ERR|5|gap|90"},
		{"DONE|", "ACK_DONE|ERR|busy"},
		{"WAIT_WINNERS|", "WINNERS|ERR|not_ready"},
		{"GET_WINNERS|", "WINNERS|ERR|unavailable"},
	} {
		refusal := refusal
		t.Run(refusal.request+" "+refusal.reply, func(t *testing.T) {
			t.Parallel()
			refused := false
			fake := startFake(t, func(request string, connection net.Conn) bool {
				if refused || !strings.HasPrefix(request, refusal.request) {
					return false
				}
				refused = true
				if fields := strings.Split(request, "|"); fields[0] == "BATCH" {
					readRows(connection, fields)
				}
				write(connection, refusal.reply)
				return true
			})
			client, retries := newClient(fake.address), 0
			client.Observer.Retrying = func(error, time.Duration) { retries++ }
			draw, err := client.NewestDraw(ctx)
			if err != nil {
				t.Fatal(err)
			}
			bets := someBets(95)
			if _, err := draw.Upload(ctx, bets); err != nil {
				t.Fatal(err)
			}
			if err := draw.Done(ctx, 95); err != nil {
				t.Fatal(err)
			}
			if winners, err := draw.Winners(ctx); err != nil || len(winners) != 3 {
				t.Fatal(winners, err)
			}
			if !reflect.DeepEqual(fake.stored(), canonical(bets)) {
				t.Error("other rows were stored")
			}
			if retries != 1 {
				t.Errorf("%d retries", retries)
			}
		})
	}
}

// TestFinalRefusals expects that the client gives up at once, and says why.
func TestFinalRefusals(t *testing.T) {
	for reply, expected := range map[string]RefusedError{
		"ACK_BATCH|ERR|10|tomorrows_reason":     {Reason: "tomorrows_reason"},
		"ACK_BATCH|ERR|10|draw_closed":          {Reason: ReasonDrawClosed},
		"ACK_BATCH|ERR|10|agency_done":          {Reason: ReasonAgencyDone},
		"ACK_BATCH|ERR|10|row 1: bad_utf8":      {Reason: "bad_utf8", Row: 21},
		"ACK_BATCH|ERR|10|row 3: bad_birthdate": {Reason: "bad_birthdate", Row: 23},
	} {
		reply, expected := reply, expected
		t.Run(reply, func(t *testing.T) {
			t.Parallel()
			fake := startFake(t, func(request string, connection net.Conn) bool {
				fields := strings.Split(request, "|")
				if fields[0] != "BATCH" || fields[4] != "20" {
					return false
				}
				readRows(connection, fields)
				write(connection, reply)
				return true
			})
			client := newClient(fake.address)
			client.Observer.Retrying = func(err error, _ time.Duration) { t.Error("a retry after", err) }
			_, err := testDraw(client).Upload(ctx, someBets(95))
			var refused *RefusedError
			if !errors.As(err, &refused) || *refused != expected {
				t.Fatal(err)
			}
			if errors.Is(err, ErrDrawOver) != (expected.Reason == ReasonDrawClosed) {
				t.Error("ErrDrawOver is matched wrongly")
			}
			if stored := len(fake.stored()); stored != 20 {
				t.Errorf("%d rows are stored", stored)
			}
		})
	}
}

func TestCountMismatchIsFinal(t *testing.T) {
	fake := startFake(t, func(request string, connection net.Conn) bool {
		write(connection, "ACK_DONE|ERR|count_mismatch|7")
		return true
	})
	err := testDraw(newClient(fake.address)).Done(ctx, 8)
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Reason != ReasonCountMismatch || refused.Detail != "7" {
		t.Error(err)
	}
}

// TestRefusalBeforeClosing is about a server that refuses a batch and closes the connection while the client still
// sends: the refusal must not be lost behind the error of sending.
func TestRefusalBeforeClosing(t *testing.T) {
	client, server := net.Pipe() // It has no buffers: sending fails, since nobody reads.
	connection := &conn{net: client, patience: newPatience(time.Minute), replyTimeout: time.Minute}
	connection.in = bufio.NewReader(silenceLimit{connection})
	pipe := newPipeline(connection)
	defer pipe.close()
	go func() {
		write(server, "ACK_BATCH|ERR|10|too_many")
		server.Close()
	}()
	err := pipe.send(batch{rows: 10}, appendFrame(nil, "BATCH|1|10|x|0|1"), func(batch) { t.Error("acknowledged") })
	if reasonOf(err) != "too_many" {
		t.Error(err)
	}
}

func TestConflictWithoutProgress(t *testing.T) {
	t.Parallel()
	fake := startFake(t, func(request string, connection net.Conn) bool {
		fields := strings.Split(request, "|")
		if fields[0] != "BATCH" {
			return false
		}
		readRows(connection, fields)
		write(connection, "ACK_BATCH|ERR|10|conflict")
		return true
	})
	_, err := testDraw(newClient(fake.address)).Upload(ctx, someBets(10))
	if reasonOf(err) != ReasonConflict {
		t.Error(err)
	}
	if fake.connected() != conflictsMax {
		t.Errorf("%d attempts", fake.connected())
	}
}

func TestRepliesThatAreNone(t *testing.T) {
	replies := map[string]string{
		"another protocol":   "HTTP/1.1 400 Bad Request\r\n\r\n",
		"empty":              "\x00\x00\x00\x00",
		"too long":           "\x00\x00\x20\x01",
		"much too long":      "\x7f\xff\xff\xff",
		"no line ending":     string(appendFrame(nil, "ACK_BATCH|OK|10x")),
		"not UTF-8":          string(appendFrame(nil, "ACK_BATCH|OK|\xff\n")),
		"another verb":       string(appendFrame(nil, "RESUME|OK|10\n")),
		"neither OK nor ERR": string(appendFrame(nil, "ACK_BATCH|MAYBE|10\n")),
		"another count":      string(appendFrame(nil, "ACK_BATCH|OK|11\n")),
		"no number":          string(appendFrame(nil, "ACK_BATCH|OK|+10\n")),
		"too many fields":    string(appendFrame(nil, "ACK_BATCH|OK|10|10\n")),
		"no reason":          string(appendFrame(nil, "ACK_BATCH|ERR|10\n")),
		"a strange reason":   string(appendFrame(nil, "ACK_BATCH|ERR|10|Oops!\n")),
		"a strange row":      string(appendFrame(nil, "ACK_BATCH|ERR|10|row x: bad_number\n")),
	}
	for name, reply := range replies {
		reply := reply
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := startFake(t, func(request string, connection net.Conn) bool {
				if !strings.HasPrefix(request, "BATCH") {
					return false
				}
				readRows(connection, strings.Split(request, "|"))
				io.WriteString(connection, reply)
				return true
			})
			_, err := testDraw(newClient(fake.address)).Upload(ctx, someBets(10))
			var wrong *ProtocolError
			if !errors.As(err, &wrong) {
				t.Error(err)
			}
		})
	}
}

func TestRepliesInPieces(t *testing.T) {
	fake := startFake(t, func(request string, connection net.Conn) bool {
		if !strings.HasPrefix(request, "RESUME") {
			return false
		}
		for _, piece := range appendFrame(nil, "RESUME|OK|95\n") {
			connection.Write([]byte{piece})
		}
		return true
	})
	if _, err := testDraw(newClient(fake.address)).Upload(ctx, someBets(95)); err != nil {
		t.Error(err)
	}
}

// TestResumeWithinABatch continues an upload that another client began with batches of another size.
func TestResumeWithinABatch(t *testing.T) {
	fake, bets := startFake(t, nil), someBets(95)
	fake.rows = canonical(bets[:13])
	client := newClient(fake.address)
	client.Observer.Retrying = func(err error, _ time.Duration) { t.Error("a retry after", err) }
	if _, err := testDraw(client).Upload(ctx, bets); err != nil {
		t.Error(err)
	}
	if !reflect.DeepEqual(fake.stored(), canonical(bets)) {
		t.Error("other rows were stored")
	}
}

func TestMoreStoredThanSent(t *testing.T) {
	fake := startFake(t, func(request string, connection net.Conn) bool {
		write(connection, "RESUME|OK|11")
		return true
	})
	_, err := testDraw(newClient(fake.address)).Upload(ctx, someBets(10))
	var wrong *ProtocolError
	if !errors.As(err, &wrong) {
		t.Error(err)
	}
}

func TestServersThatCannot(t *testing.T) {
	for reply, text := range map[string]string{
		"ACK|ERR|unknown":                "too old",
		"HELLO|OK|2|draws":               "version 2",
		"HELLO|OK|1|uploads,pages,waits": "lacks draws",
	} {
		reply := reply
		fake := startFake(t, func(request string, connection net.Conn) bool {
			write(connection, reply)
			return true
		})
		_, err := newClient(fake.address).NewestDraw(ctx)
		var wrong *ProtocolError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), text) {
			t.Error(reply, err)
		}
	}
}

// TestBatchesAreInFlight has a server that keeps back each acknowledgement until three more batches have come.
func TestBatchesAreInFlight(t *testing.T) {
	var unanswered []string
	fake := startFake(t, nil)
	fake.intercept = func(request string, connection net.Conn) bool {
		fields := strings.Split(request, "|")
		if fields[0] != "BATCH" {
			return false
		}
		rows, _ := readRows(connection, fields)
		unanswered = append(unanswered, fake.store(fields, rows))
		if len(unanswered) == windowStart {
			write(connection, unanswered[0])
			unanswered = unanswered[1:]
		}
		if len(fake.stored()) == 1000 {
			for _, reply := range unanswered {
				write(connection, reply)
			}
		}
		return true
	}
	client := newClient(fake.address)
	client.Observer.Retrying = func(err error, _ time.Duration) { t.Error("a retry after", err) }
	client.ReplyTimeout = 10 * time.Second
	if _, err := testDraw(client).Upload(ctx, someBets(1000)); err != nil {
		t.Error(err)
	}
}

func TestWindow(t *testing.T) {
	p := pipeline{window: windowStart}
	if !p.admits(batch{bytes: windowBytesMax + 1}) {
		t.Error("a large batch is never sent")
	}
	p.inFlight, p.bytes = make([]batch, windowStart-1), windowBytesMax-10
	if !p.admits(batch{bytes: 10}) || p.admits(batch{bytes: 11}) {
		t.Error("the limit of bytes does not hold")
	}
	p.inFlight, p.bytes = make([]batch, windowStart), 0
	if p.admits(batch{}) {
		t.Error("the limit of batches does not hold")
	}
	p.replies = make(chan reply, windowMax)
	p.inFlight = make([]batch, windowMax+1)
	for range p.inFlight {
		p.replies <- reply{line: "ACK_BATCH|OK|0"}
		if len(p.replies) == windowMax {
			break
		}
	}
	for len(p.replies) > 0 {
		if err := p.settle(func(batch) {}); err != nil {
			t.Fatal(err)
		}
	}
	if p.window != windowMax {
		t.Errorf("the window has grown to %d", p.window)
	}
}

func TestSilenceAndGivingUp(t *testing.T) {
	silent := startFake(t, func(string, net.Conn) bool { return true })
	client := newClient(silent.address)
	client.GiveUpAfter = 500 * time.Millisecond
	_, err := client.NewestDraw(ctx)
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) || unreachable.After != client.GiveUpAfter {
		t.Error(err)
	}
	client.ReplyTimeout = 10 * time.Millisecond
	if _, err = client.NewestDraw(ctx); !errors.As(err, &unreachable) {
		t.Error(err)
	}
	if silent.connected() < 3 {
		t.Error("the reply timeout does not end an attempt")
	}
}

// TestWaitingIsNotGivingUp waits longer for the draw than the client would wait without any progress.
func TestWaitingIsNotGivingUp(t *testing.T) {
	waits := 0
	fake := startFake(t, func(request string, connection net.Conn) bool {
		fields := strings.Split(request, "|")
		if fields[0] != "WAIT_WINNERS" || waits == 5 {
			return false
		}
		waits++
		wait, _ := time.ParseDuration(fields[2] + "ms")
		time.Sleep(wait) // what the request asks for
		write(connection, "WINNERS|ERR|not_ready")
		return true
	})
	client := newClient(fake.address)
	client.GiveUpAfter = 400 * time.Millisecond
	told := 0
	client.Observer.Waiting = func() { told++ }
	if winners, err := testDraw(client).Winners(ctx); err != nil || len(winners) != 3 {
		t.Error(winners, err)
	}
	if told != 5 {
		t.Errorf("told %d times", told)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("success", func(t *testing.T) {
		if err := takePart(ctx, newClient(startFake(t, nil).address)); err != nil {
			t.Error(err)
		}
	})
	t.Run("cancellation", func(t *testing.T) {
		for _, verb := range []string{"HELLO", "RESUME", "BATCH", "DONE", "WAIT_WINNERS"} {
			verb := verb
			ctx, cancel := context.WithCancel(ctx)
			fake := startFake(t, func(request string, _ net.Conn) bool {
				if strings.HasPrefix(request, verb) {
					cancel()
					return true
				}
				return false
			})
			if err := takePart(ctx, newClient(fake.address)); !errors.Is(err, context.Canceled) {
				t.Error(verb, err)
			}
			cancel()
		}
	})
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines instead of %d", runtime.NumGoroutine(), before)
		}
		runtime.Gosched()
	}
}

func takePart(ctx context.Context, client *Client) error {
	draw, err := client.NewestDraw(ctx)
	if err != nil {
		return err
	}
	if _, err := draw.Upload(ctx, someBets(1000)); err != nil {
		return err
	}
	if err := draw.Done(ctx, 1000); err != nil {
		return err
	}
	_, err = draw.Winners(ctx)
	return err
}

// TestChangedSource uploads sources whose second reading differs, and looks that no other row was sent.
func TestChangedSource(t *testing.T) {
	bets := someBets(95)
	other, bad := bets[52], bets[52]
	other.Number++
	bad.Document = ""
	for name, second := range map[string]Bets{
		"a row":       append(append(append(Bets{}, bets[:52]...), other), bets[53:]...),
		"a bad row":   append(append(append(Bets{}, bets[:52]...), bad), bets[53:]...),
		"shorter":     bets[:60],
		"longer":      append(append(Bets{}, bets...), other),
		"a row moved": append(append(append(Bets{}, bets[:52]...), bets[53], bets[52]), bets[54:]...),
	} {
		fake := startFake(t, nil)
		_, err := testDraw(newClient(fake.address)).Upload(ctx, &changing{bets, second})
		if !errors.Is(err, ErrSourceChanged) {
			t.Error(name, err)
		}
		stored := fake.stored()
		if !reflect.DeepEqual(stored, canonical(bets)[:len(stored)]) {
			t.Errorf("%s: other rows were sent", name)
		}
	}
}

type changing []Bets

func (c *changing) Open() (Rows, error) {
	source := (*c)[0]
	*c = (*c)[1:]
	return source.Open()
}

func TestBadBetsAreFoundBeforeAnythingIsSent(t *testing.T) {
	fake := startFake(t, nil)
	bets := someBets(95)
	bets[93].Birthdate = "1988-02-30"
	_, err := testDraw(newClient(fake.address)).Upload(ctx, bets)
	var bad *BadBetError
	if !errors.As(err, &bad) || bad.Row != 94 || bad.Field != "birthdate" {
		t.Error(err)
	}
	if fake.connected() != 0 {
		t.Error("the client connected")
	}
}

func TestSettings(t *testing.T) {
	for _, rows := range []int{-1, batchRowsMax + 1} {
		client := newClient("nowhere:1")
		client.BatchRows = rows
		if _, err := testDraw(client).Upload(ctx, someBets(1)); err == nil || !strings.Contains(err.Error(), fmt.Sprint(rows)) {
			t.Error(err)
		}
	}
}
