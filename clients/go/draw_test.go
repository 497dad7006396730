package sorteo

import (
	"errors"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
)

func TestServerWholeDraw(t *testing.T) {
	server := startServer(t, "2")
	bets := someBets(5000)
	var expected []string
	for i := range bets {
		if i%2 == 0 { // more than fit in a page
			bets[i].Number = 7574
			expected = append(expected, bets[i].Document)
		}
	}
	client := server.client()
	draw := newestDraw(t, client)
	for i := 0; i < 2; i++ { // The second time, nothing is stored again.
		client.BatchRows += i
		if receipt, err := draw.Upload(ctx, bets); err != nil || receipt.Rows != int64(len(bets)) {
			t.Fatal(receipt, err)
		}
	}
	server.expectStored(1, bets)
	if err := draw.Done(ctx, int64(len(bets)+1)); reasonOf(err) != ReasonCountMismatch {
		t.Error(err)
	}
	for i := 0; i < 2; i++ {
		if err := draw.Done(ctx, int64(len(bets))); err != nil {
			t.Fatal(err)
		}
	}
	status, err := client.Status(ctx)
	if err != nil || status != (Status{Draw: 1, Done: 1, Expected: 2, Bets: int64(len(bets))}) {
		t.Error(status, err)
	}

	other := server.client()
	other.Agency = 2
	if err := newestDraw(t, other).Done(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if winners, err := newestDraw(t, other).Winners(ctx); err != nil || len(winners) != 0 {
		t.Error(winners, err)
	}
	winners, err := draw.Winners(ctx)
	if err != nil || !reflect.DeepEqual(winners, expected) {
		t.Errorf("%d winners instead of %d, %v", len(winners), len(expected), err)
	}

	// After the next draw was opened, the first one can still be asked for.
	server.run("draw", "open")
	if draw, err = client.Draw(ctx, 1); err != nil {
		t.Fatal(err)
	}
	if receipt, err := draw.Upload(ctx, bets); err != nil || receipt.Rows != int64(len(bets)) {
		t.Error(receipt, err)
	}
	if err := draw.Done(ctx, int64(len(bets))); err != nil {
		t.Error(err)
	}
	if winners, err := draw.Winners(ctx); err != nil || !reflect.DeepEqual(winners, expected) {
		t.Errorf("%d winners instead of %d, %v", len(winners), len(expected), err)
	}
	if stored := server.bets(1, 2); len(stored) != 0 {
		t.Errorf("%d bets fell into the next draw", len(stored))
	}
	if draw, err = client.Draw(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := draw.Upload(ctx, bets); reasonOf(err) != ReasonBadDraw {
		t.Error(err)
	}
}

// TestServerWaitsForTheDraw waits for the draw before it takes place.
func TestServerWaitsForTheDraw(t *testing.T) {
	server := startServer(t, "2")
	var first, second = server.client(), server.client()
	second.Agency = 2
	first.GiveUpAfter = second.GiveUpAfter / 60 // so that it is told that the draw has not taken place
	waiting := make(chan struct{})
	var once sync.Once
	first.Observer.Waiting = func() { once.Do(func() { close(waiting) }) }
	draw := newestDraw(t, first)
	bets := Bets{good}
	if _, err := draw.Upload(ctx, bets); err != nil {
		t.Fatal(err)
	}
	if err := draw.Done(ctx, 1); err != nil {
		t.Fatal(err)
	}
	result := make(chan []string, 1)
	go func() {
		winners, err := draw.Winners(ctx)
		if err != nil {
			t.Error(err)
		}
		result <- winners
	}()
	<-waiting
	if err := newestDraw(t, second).Done(ctx, 0); err != nil {
		t.Fatal(err)
	}
	if winners := <-result; !reflect.DeepEqual(winners, []string{good.Document}) {
		t.Error(winners)
	}
}

// TestServerNextDraw ends the draw and opens the next one in the middle of an upload.
func TestServerNextDraw(t *testing.T) {
	server := startServer(t, "1")
	client := server.client()
	draw := newestDraw(t, client)
	bets := someBets(20000)
	var once sync.Once
	client.Observer.Stored = func(int64, int64) {
		once.Do(func() {
			server.run("draw", "close-agency", "1", "--reason", "a test")
			server.run("draw", "open")
		})
	}
	if _, err := draw.Upload(ctx, bets); !errors.Is(err, ErrDrawOver) {
		t.Error(err)
	}
	if stored := server.bets(1, 1); len(stored) == 0 || !reflect.DeepEqual(stored, bets[:len(stored)]) {
		t.Errorf("%d bets are stored in the first draw", len(stored))
	}
	if stored := server.bets(1, 2); len(stored) != 0 {
		t.Errorf("%d bets fell into the next draw", len(stored))
	}
}

// TestServerConflict uploads the same bets in two sizes of batches at the same time.
func TestServerConflict(t *testing.T) {
	server := startServer(t, "1")
	bets := someBets(5000)
	var uploads sync.WaitGroup
	for _, batchRows := range []int{7, 13} {
		client := server.client()
		client.BatchRows = batchRows
		draw := newestDraw(t, client)
		uploads.Add(1)
		go func() {
			defer uploads.Done()
			if _, err := draw.Upload(ctx, bets); err != nil {
				t.Error(err)
			}
		}()
	}
	uploads.Wait()
	server.expectStored(1, bets)
	if log := server.log(); !strings.Contains(log, "conflict") && !strings.Contains(log, "gap") {
		t.Error("the two uploads did not meet")
	}
}

// TestServerValidates compares this client's rules for a bet with those of the server.
func TestServerValidates(t *testing.T) {
	server := startServer(t, "1")
	connection, err := server.client().dial(ctx, newPatience(defaultGiveUpAfter))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.close()
	for bet, field := range borderline() {
		line, err := connection.ask(batchHeader(1, 0, "x", 0, 1)) // as a round trip, it must succeed
		if err != nil || line != "ACK_BATCH|OK|0" {
			t.Fatal(line, err)
		}
		if err := connection.send(appendRow(appendFrame(nil, "BATCH|1|1"), bet)); err != nil {
			t.Fatal(err)
		}
		if line, err = connection.receive(); err != nil {
			t.Fatal(err)
		}
		_, err = decodeBatch(line)
		if (err == nil) != (bet.Validate() == nil) || field != "" && reasonOf(err) == "" {
			t.Errorf("%+q: the server says %v, the client %v", bet, err, bet.Validate())
		}
	}
}

// TestUnreachable has nobody listening.
func TestUnreachable(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	client := newClient(listener.Addr().String())
	client.GiveUpAfter /= 600
	var unreachable *UnreachableError
	if _, err := client.NewestDraw(ctx); !errors.As(err, &unreachable) {
		t.Error(err)
	}
}
