package sorteo

import (
	"errors"
	"fmt"
)

// A batch is in flight: sent, and not acknowledged yet.
type batch struct {
	firstRow int64
	rows     int64
	bytes    int
}

// A pipeline sends batches without waiting for the replies to the ones before, within a window that grows with every
// acknowledgement. A goroutine of its own reads the replies, so that the server never waits for the client to read.
type pipeline struct {
	connection *conn
	inFlight   []batch
	bytes      int // in flight
	window     int // batches that may be in flight

	awaited chan struct{} // one for each batch in flight whose reply is not read yet
	replies chan reply
}

// A reply is the line of a reply to a batch, or why there is none.
type reply struct {
	line string
	err  error
}

func newPipeline(connection *conn) *pipeline {
	p := &pipeline{
		connection: connection,
		window:     windowStart,
		// Neither end ever waits for room in the channels: no more than this is in flight.
		awaited: make(chan struct{}, windowMax),
		replies: make(chan reply, windowMax),
	}
	go p.read()
	return p
}

func (p *pipeline) read() {
	defer close(p.replies)
	for range p.awaited {
		line, err := p.connection.receive()
		p.replies <- reply{line, err}
		if err != nil {
			return
		}
	}
}

// close closes the connection and waits for the goroutine to end.
func (p *pipeline) close() {
	close(p.awaited)
	p.connection.close()
	for range p.replies {
		// Replies behind the first refusal mean nothing.
	}
}

// send sends a batch as soon as the window has room for it. It calls acknowledged for each batch whose
// acknowledgement arrives meanwhile.
func (p *pipeline) send(b batch, frames []byte, acknowledged func(batch)) error {
	for len(p.replies) > 0 || !p.admits(b) {
		if err := p.settle(acknowledged); err != nil {
			return err
		}
	}
	p.inFlight = append(p.inFlight, b)
	p.bytes += b.bytes
	p.awaited <- struct{}{}
	err := p.connection.send(frames)
	if err == nil {
		return nil
	}
	// A server that closes the connection says why before. That is worth more than the error of sending.
	if refusal := p.drain(acknowledged); reasonOf(refusal) != "" {
		return refusal
	}
	return err
}

func (p *pipeline) admits(b batch) bool {
	if len(p.inFlight) == 0 {
		return true
	}
	return len(p.inFlight) < p.window && p.bytes+b.bytes <= windowBytesMax
}

// drain waits until nothing is in flight.
func (p *pipeline) drain(acknowledged func(batch)) error {
	for len(p.inFlight) > 0 {
		if err := p.settle(acknowledged); err != nil {
			return err
		}
	}
	return nil
}

// settle waits for the reply to the oldest batch in flight.
func (p *pipeline) settle(acknowledged func(batch)) error {
	b := p.inFlight[0]
	r := <-p.replies
	if r.err != nil {
		return r.err
	}
	rows, err := decodeBatch(r.line)
	if err != nil {
		return inUpload(err, b.firstRow)
	}
	if rows != b.rows {
		return protocolError(fmt.Sprintf("an acknowledgement of other than the %d rows of the batch", b.rows), r.line)
	}
	p.inFlight = p.inFlight[1:]
	p.bytes -= b.bytes
	if p.window < windowMax {
		p.window++
	}
	acknowledged(b)
	return nil
}

// inUpload makes a refusal of a row of a batch one of the row of the upload.
func inUpload(err error, firstRow int64) error {
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Row != 0 {
		return &RefusedError{Reason: refused.Reason, Detail: refused.Detail, Row: firstRow + refused.Row}
	}
	return err
}
