package sorteo

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A Receipt is what an upload stored.
type Receipt struct {
	Name string // the digest of the rows, under which they are stored
	Rows int64
}

// Upload stores the bets of a source, each exactly once, and returns when all of them are stored. Every row is
// validated before the first one is sent. If it fails, what was stored stays stored; calling it again with the same
// bets, also in another process, continues behind that.
func (d *Draw) Upload(ctx context.Context, source Source) (Receipt, error) {
	batchRows := d.client.BatchRows
	if batchRows == 0 {
		batchRows = defaultBatchRows
	}
	if batchRows < 1 || batchRows > batchRowsMax {
		return Receipt{}, fmt.Errorf("sorteo: BatchRows is %d; 1 to %d are possible", batchRows, batchRowsMax)
	}
	p, err := newPlan(ctx, source, batchRows)
	if err != nil {
		return Receipt{}, err
	}
	u := upload{draw: d, plan: p, name: p.name()}
	if err := d.client.persist(ctx, u.attempt); err != nil {
		return Receipt{}, err
	}
	return Receipt{Name: u.name, Rows: p.rows}, nil
}

// upload is the state of an upload that outlasts its connections.
type upload struct {
	draw   *Draw
	plan   *plan
	name   string
	stored int64 // the most rows that were ever known to be stored
}

// attempt asks how far the upload has come, and sends the rest.
func (u *upload) attempt(ctx context.Context, connection *conn) error {
	line, err := connection.ask(resumeRequest(u.draw.client.Agency, u.name, u.draw.Number))
	if err != nil {
		return err
	}
	next, err := decodeResume(line)
	if err != nil {
		return err
	}
	if next > u.plan.rows {
		return protocolError(fmt.Sprintf("more is stored than the %d rows of the upload", u.plan.rows), line)
	}
	u.advance(connection, next)
	if next == u.plan.rows {
		return nil
	}
	blocks, err := u.plan.open()
	if err != nil {
		return err
	}
	defer blocks.close()
	pipe := newPipeline(connection)
	defer pipe.close()
	return u.sendFrom(ctx, next, blocks, pipe)
}

// sendFrom sends the rows from the given one on, and waits until all of them are stored.
func (u *upload) sendFrom(ctx context.Context, next int64, blocks *plannedBlocks, pipe *pipeline) error {
	acknowledged := func(b batch) { u.advance(pipe.connection, b.firstRow+b.rows) }
	for ctx.Err() == nil {
		b, err := blocks.next()
		if errors.Is(err, io.EOF) {
			return pipe.drain(acknowledged)
		}
		if err != nil {
			return err
		}
		if b.end() <= next {
			continue // It is stored already.
		}
		rows := b.end() - next
		header := batchHeader(u.draw.client.Agency, int(rows), u.name, next, u.draw.Number)
		frames := append(appendFrame(nil, header), b.from(next)...)
		if err := pipe.send(batch{firstRow: next, rows: rows, bytes: len(frames)}, frames, acknowledged); err != nil {
			return err
		}
		next = b.end()
	}
	return ctx.Err()
}

// advance records that so many rows are stored.
func (u *upload) advance(connection *conn, rows int64) {
	if rows <= u.stored {
		return
	}
	u.stored = rows
	connection.patience.progress()
	if u.draw.client.Observer.Stored != nil {
		u.draw.client.Observer.Stored(rows, u.plan.rows)
	}
}
