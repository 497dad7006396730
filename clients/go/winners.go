package sorteo

import (
	"context"
	"time"
)

// Winners waits for the draw, for as long as it takes and the server replies, and returns the documents of the
// agency's winning bets, in the order in which the bets were stored. To wait for a limited time, use a context.
func (d *Draw) Winners(ctx context.Context) ([]string, error) {
	w := winners{draw: d, wait: waitMax}
	// A wait must not look like a server that makes no progress.
	if half := orDefault(d.client.GiveUpAfter, defaultGiveUpAfter) / 2; half < w.wait {
		w.wait = half
	}
	err := d.client.persist(ctx, w.attempt)
	if err != nil {
		return nil, err
	}
	return w.documents, nil
}

// winners is what was received so far, on one connection or several.
type winners struct {
	draw      *Draw
	wait      time.Duration
	drawn     bool
	documents []string
	next      int64 // where the next page begins
}

func (w *winners) attempt(_ context.Context, connection *conn) error {
	if !w.drawn {
		last, err := w.awaitFirst(connection)
		if last || err != nil {
			return err
		}
	}
	for {
		line, err := connection.ask(pageRequest(w.draw.client.Agency, w.next, w.draw.Number))
		if err != nil {
			return err
		}
		last, err := w.add(connection, line)
		if last || err != nil {
			return err
		}
	}
}

// awaitFirst waits for the first page.
func (w *winners) awaitFirst(connection *conn) (last bool, err error) {
	replyTimeout := connection.replyTimeout
	defer func() { connection.replyTimeout = replyTimeout }()
	connection.replyTimeout += w.wait
	for {
		asked := time.Now()
		line, err := connection.ask(waitRequest(w.draw.client.Agency, w.wait.Milliseconds(), w.draw.Number))
		if err != nil {
			return false, err
		}
		last, err := w.add(connection, line)
		if reasonOf(err) != ReasonNotReady {
			return last, err
		}
		connection.patience.progress()
		if w.draw.client.Observer.Waiting != nil {
			w.draw.client.Observer.Waiting()
		}
		if time.Since(asked) < w.wait/2 {
			return false, err // The server is stopping.
		}
	}
}

// add adds the page of a reply.
func (w *winners) add(connection *conn, line string) (last bool, err error) {
	p, err := decodePage(line)
	if err != nil {
		return false, err
	}
	if !p.last && len(p.documents) == 0 {
		return false, protocolError("an empty page that is not the last", line)
	}
	if !p.last && p.next == w.next {
		return false, protocolError("a page that is followed by itself", line)
	}
	connection.patience.progress()
	w.drawn, w.next = true, p.next
	w.documents = append(w.documents, p.documents...)
	return p.last, nil
}
